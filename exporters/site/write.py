"""`wmdeploy site`: a bundle, its starts and the page, as files that any web server can send."""

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from wmdeploy.bundle import Bundle
from wmdeploy.clips.source import ReadOptions
from wmdeploy.errors import ExportError
from wmdeploy.exporters.site.graphs import in_float32, write_graphs
from wmdeploy.exporters.site.runtime import WASM, WEBGPU, copy_runtime
from wmdeploy.files import DirectoryKind, staged_directory
from wmdeploy.graph_file import WEIGHTS_FILE
from wmdeploy.programs.arrays import NUMPY
from wmdeploy.programs.contract import Programs
from wmdeploy.programs.engine import Backend
from wmdeploy.programs.record import record_cases
from wmdeploy.programs.rollouts import Snapshot
from wmdeploy.programs.session import Session
from wmdeploy.progress import Progress, silent
from wmdeploy.psnr import psnr
from wmdeploy.serve.app import PAGE
from wmdeploy.serve.protocol import VERSION
from wmdeploy.serve.site import INFO, bundle_digest, rendered_by
from wmdeploy.serve.starts import Start, picture
from wmdeploy.serve.world import find_world

SITE_FILE = "site.json"
SCHEMA = 1
SITE_KIND = DirectoryKind(
    SITE_FILE, "graphs", ("index.html", "info", "sw.js", "page", "starts", "model", "ort")
)
JUDGED = 64  # frames of the rollout beside the bundle
LEAST_DB = {"fp32": 55.0, "fp16": 38.0}  # of its worst one; float16 itself is as far off
REWIND = 10.0  # seconds
# what the page may load: its own files; wasm is compiled, pictures are made on the page
POLICY = (
    "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; img-src 'self' data: blob:; "
    "object-src 'none'; base-uri 'none'; form-action 'none'"
)


@dataclass(frozen=True, kw_only=True)
class SiteOptions:
    """What the site is of.

    Attributes:
        clips: to begin from; none: as the bundle says.
        fps: frames per second of a dream.
        webgpu: with ONNX Runtime's WebGPU build in the place of the one for wasm alone, and graphs
            for it.
        runtime: a folder with ONNX Runtime for browsers; None: npm gets it.
    """

    bundle: Path
    output: Path
    clips: tuple[Path, ...] = ()
    fps: float = 15
    webgpu: bool = False
    runtime: Path | None = None
    read: ReadOptions = ReadOptions()


@dataclass(frozen=True)
class Site:
    """What was written.

    Attributes:
        worst_db: of `frames` frames beside `ort-cpu`; bytes: of all files.
    """

    worst_db: float
    frames: int
    bytes: int


def write_site(
    options: SiteOptions, backend: Backend, remarks: list[str], progress: Progress = silent
) -> Site:
    """Write the folder.

    Args:
        backend: `ort-cpu` of the bundle, beside which the site's graphs are run.

    Raises:
        BundleError, BackendError, ClipError: the bundle cannot be played.
        ExportError: its weights are integers, its graphs do not do in a browser what they do here,
            or npm cannot get ONNX Runtime.
    """
    bundle = Bundle.open(options.bundle)
    if (weights := bundle.manifest.recipe.weights) != "float":
        raise ExportError(
            f"{options.bundle}: has {weights} weights, and a site stores them as float16 itself; "
            "export the model again with float weights"
        )
    world = find_world(backend, options.clips, options.read, None, bundle=bundle, remarks=remarks)
    programs = backend.programs
    names = _played(programs)
    first = world.starts[0]
    build = WEBGPU if options.webgpu else WASM
    progress("site", 0, 3, "rewrite the graphs")
    with staged_directory(options.output, SITE_KIND) as directory:
        for folder in ("page", "starts", "model", "ort"):
            (directory / folder).mkdir()
        actions = None
        if first.actions is not None:  # what is done at the last frame is up to the player
            actions = np.concatenate([first.actions, np.zeros_like(first.actions, shape=1)])
        cases = record_cases(backend, first.frames, actions)
        graphs, engines = write_graphs(
            bundle, names, cases, directory / "model", webgpu=options.webgpu
        )
        shown = dataclasses.replace(
            backend,
            engines={**backend.engines, **engines},
            arrays=NUMPY,
            programs=_in_float32(programs),
        )
        progress("site", 1, 3, "imagine beside the bundle")
        worst = _worst_frame(backend, shown, first)
        least = LEAST_DB[backend.precision]
        if worst < least:
            raise ExportError(
                f"the worst of {JUDGED} frames is {worst:.1f} dB from ort-cpu's, expected "
                f"{least:g} dB: weights stored as float16 change too much; use trained weights"
            )
        progress("site", 2, 3, "write the page")
        index = _write_starts(directory, backend, world.starts)
        copy_runtime(build, directory / "ort", options.runtime)
        model = {
            "schema": SCHEMA,
            "programs": msgspec.to_builtins(shown.programs),
            "graphs": msgspec.to_builtins(graphs),
            "weights": WEIGHTS_FILE,
            "starts": index,
        }
        info = {
            "version": VERSION,
            "title": options.bundle.name,
            "about": [
                *world.about,
                ("Runs in", "this tab"),
                ("Beside ort-cpu", f"worst of {JUDGED} frames {worst:.1f} dB"),
            ],
            "size": backend.image_size,
            "fps": options.fps,
            "actions": max(1, programs.num_actions),
            "meanings": world.meanings,
            "starts": [{"title": start.title, "live": False} for start in world.starts],
            "rewind": REWIND,
            "recorded": 0,
            "recordings": [],
            "tab": True,
            "runtime": dataclasses.asdict(build),
            "draws": bool(programs.noise),
            "bundle": bundle_digest(bundle),
            "rendered_by": rendered_by(programs),
        }
        _write_page(directory, model, info)
        size = sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())
    return Site(worst, JUDGED, size)


def _played(programs: Programs) -> tuple[str, ...]:
    """The graphs that a dream without real frames calls."""
    calls = [*programs.refresh, *programs.predict, *programs.render]
    return tuple(dict.fromkeys(call.graph for call in calls))


def _in_float32(programs: Programs) -> Programs:
    return dataclasses.replace(
        programs,
        state=tuple(map(in_float32, programs.state)),
        records=tuple(map(in_float32, programs.records)),
        outputs=tuple(map(in_float32, programs.outputs)),
    )


def _worst_frame(ours: Backend, shown: Backend, start: Start) -> float:
    """In dB of PSNR, of a rollout that does nothing; of one draw where the model draws."""
    sides = [Session(ours), Session(shown)]
    action = None if ours.programs.action is None else 0
    sides[0].reset(start.frames, start.actions)
    sides[1].restore([_as_float32(one, shown.programs) for one in sides[0].snapshot()])
    worst = np.inf
    for _ in range(JUDGED):
        frames = [side.step(action).astype(np.float64) for side in sides]
        worst = min(worst, psnr(float(np.square(frames[0] - frames[1]).mean())))
    return float(worst)


def _as_float32(snapshot: Snapshot, programs: Programs) -> Snapshot:
    def wide(arrays: dict[str, Any]) -> dict[str, Any]:
        half = np.float16
        return {n: a.astype(np.float32) if a.dtype == half else a for n, a in arrays.items()}

    return dataclasses.replace(
        snapshot, programs=programs, state=wide(snapshot.state), window=wide(snapshot.window)
    )


def _write_starts(
    directory: Path, backend: Backend, starts: Sequence[Start]
) -> list[dict[str, Any]]:
    """Pictures, and what a row is after each start, so that the page needs no encoder."""
    index: list[dict[str, Any]] = []
    session = Session(backend)
    with (directory / "model" / "starts.bin").open("wb") as out:
        for number, start in enumerate(starts):
            (directory / "starts" / f"{number}.png").write_bytes(picture(start.frames[-1], "png"))
            session.reset(start.frames, start.actions)
            (row,) = session.snapshot()
            row = _as_float32(row, row.programs)
            entry: dict[str, Any] = {"numbers": row.numbers, "state": {}, "window": {}}
            parts = [("state", row.state), ("window", row.window)]
            if row.actions is not None:
                parts.append(("window", {"action": row.actions}))
            for kind, arrays in parts:
                for name, array in arrays.items():
                    out.write(bytes(-out.tell() % 8))  # typed arrays begin at their items' size
                    place = {"offset": out.tell(), "dtype": str(array.dtype), "shape": array.shape}
                    entry[kind][name] = place
                    out.write(np.ascontiguousarray(array).tobytes())
            index.append(entry)
    return index


def _write_page(directory: Path, model: dict[str, Any], info: dict[str, Any]) -> None:
    shutil.copytree(PAGE, directory / "page", dirs_exist_ok=True)
    page = (directory / "page" / "index.html").read_text()
    head = f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
    (directory / "index.html").write_text(page.replace("<head>", f"<head>\n{head}", 1))
    (directory / "page" / "index.html").unlink()
    (directory / INFO).write_text(json.dumps(info))
    (directory / SITE_FILE).write_text(json.dumps(model))
    worker = (directory / "page" / "sw.js").read_text()
    (directory / "page" / "sw.js").unlink()
    files = sorted(p.relative_to(directory).as_posix() for p in directory.rglob("*") if p.is_file())
    digest = hashlib.sha256()
    for name in files:
        digest.update((directory / name).read_bytes())
    listed = json.dumps(["./", *files])
    worker = worker.replace('"VERSION"', json.dumps(digest.hexdigest()[:16]))
    (directory / "sw.js").write_text(worker.replace('["FILES"]', listed))
