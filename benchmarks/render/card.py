"""The model card of a bundle: what a hub shows of it, from its manifest and a report of it."""

import re
import shlex
from collections.abc import Iterator

from wmdeploy.benchmarks.render.markdown import escape, to_markdown
from wmdeploy.benchmarks.report import Report
from wmdeploy.bundle import Bundle
from wmdeploy.documents import flat_settings
from wmdeploy.errors import WmdeployError
from wmdeploy.families.find import SHIPPED
from wmdeploy.files import sha256
from wmdeploy.hub.address import HubAddress
from wmdeploy.hub.push import CARD_MARK
from wmdeploy.manifest import MANIFEST_FILE

_LICENSE = re.compile(r"[a-z0-9][a-z0-9.-]{0,63}")


def model_card(
    bundle: Bundle, address: HubAddress, license: str | None, report: Report | None
) -> str:
    """A card in Markdown, with the fields that hubs read at its head.

    Args:
        license: the hub's name of one, such as "apache-2.0"; None leaves the field out.
        report: of `wmdeploy bench`, whose figures are shown.

    Raises:
        WmdeployError: the licence is no name of one, or the report is of another bundle.
    """
    if license is not None and not _LICENSE.fullmatch(license):
        raise WmdeployError(
            f"license: got {license!r}, expected a name as the hub has them, such as mit or "
            "apache-2.0"
        )
    digest = sha256(bundle.path / MANIFEST_FILE)
    if report is not None and report.bundle.manifest_sha256 != digest:
        raise WmdeployError(
            f"report: it is of another bundle than {bundle.path}; measure this one with bench"
        )
    manifest, recipe = bundle.manifest, bundle.manifest.recipe
    at = shlex.quote(str(address))
    lines = [
        "---",
        "library_name: wmdeploy",
        *([f"license: {license}"] if license else []),
        "tags:",
        *(f"- {tag}" for tag in ("world-model", "onnx", "wmdeploy")),
        "---",
        CARD_MARK,
        f"# {escape(address.path.split('/')[-1] or address.repository.split('/')[-1])}",
        "",
        f"A world model of the family {escape(manifest.family)}: ONNX graphs that imagine frames, "
        "each compared with PyTorch when it was exported. `manifest.json` says what runs when.",
        "",
        "## Run it",
        "",
        "```sh",
        f"wmdeploy inspect {at}",
        f"wmdeploy rollout {at} CLIP -o imagined.mp4",
        f"wmdeploy bench {at} --clip CLIP",
        "```",
        "",
        *_plugin_note(manifest.family),
        "`CLIP` is a clip of real frames: a video, a folder of pictures, an .npz. Plans of "
        "TensorRT are not part of this: `wmdeploy build-engine` builds them on a copy.",
        "",
        "## What it is",
        "",
        *_table(("what", "value"), _facts(bundle)),
        "",
        "## Graphs",
        "",
        "Errors are the largest of any output at export, relative to PyTorch's largest float32 "
        "value; of frames the root mean square over 255.",
        "",
        *_table(("graph", "weights MB", "GFLOP per frame", "error", "tolerance"), _graphs(bundle)),
        "",
        "## Files",
        "",
        *_table(
            ("file", "MB", "sha256"),
            (
                (name, f"{record.bytes / 1e6:.2f}", record.sha256)
                for name, record in manifest.files.items()
            ),
        ),
        "",
        f"Exported by {escape(', '.join(f'{k} {v}' for k, v in recipe.tools.items()))}.",
        "",
    ]
    if report is not None:
        lines += ["## Figures", "", to_markdown(report)]
    return "\n".join(lines)


def _plugin_note(family: str) -> list[str]:
    """For a family that wmdeploy does not ship."""
    if family in SHIPPED:
        return []
    note = f"`bench` needs the package of the family {escape(family)}; `rollout` does not."
    return [note, ""]


def _facts(bundle: Bundle) -> Iterator[tuple[str, ...]]:
    recipe, programs = bundle.manifest.recipe, bundle.manifest.programs
    yield "layout", recipe.layout
    yield "precision", recipe.types
    yield "opset", str(recipe.opset)
    yield "largest batch", str(recipe.max_batch)
    yield "context", f"{programs.context} frames"
    yield "PyTorch model included", "no" if recipe.slim else "yes"
    for name, value in flat_settings(bundle.manifest.model):
        yield name, str(value)


def _graphs(bundle: Bundle) -> Iterator[tuple[str, ...]]:
    for name, graph in bundle.manifest.graphs.items():
        floats = [p for p in graph.parity.values() if p.agreement is None]
        worst = max(floats, key=lambda p: p.relative / (p.tolerance or 1), default=None)
        shown = (f"{worst.relative:.1e}", f"{worst.tolerance:.1e}") if worst else ("", "")
        yield name, f"{graph.weight_bytes / 1e6:.1f}", f"{graph.flops / 1e9:.3g}", *shown


def _table(headings: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> list[str]:
    lines = [headings, ("---",) * len(headings), *(tuple(map(escape, row)) for row in rows)]
    return [f"| {' | '.join(line)} |" for line in lines]
