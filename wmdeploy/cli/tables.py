"""Bundles, models and the doctor's findings as rich tables."""

from collections.abc import Sequence
from pathlib import Path

from rich.table import Table
from rich.text import Text

from wmdeploy.bundle import Bundle
from wmdeploy.cli.programs import calls_table, row_table
from wmdeploy.doctor import Finding
from wmdeploy.documents import flat_settings
from wmdeploy.files import sha256
from wmdeploy.manifest import Parity, PlanRecord, Play
from wmdeploy.training.summary import StageSummary


def bundle_tables(bundle: Bundle, details: bool) -> list[Table]:
    """The graphs with their parity; with `details` also tensors, programs and files."""
    tables = [_graphs(bundle)]
    if details:
        programs = bundle.manifest.programs
        tables += [_tensors(bundle), row_table(programs), calls_table(programs), _files(bundle)]
        if bundle.manifest.play is not None:
            tables.append(_play(bundle.manifest.play))
        if bundle.manifest.plans:
            tables.append(plans_table(bundle.manifest.plans))
    return tables


def _play(play: Play) -> Table:
    table = Table(title="play", title_justify="left", show_header=False)
    table.add_row("game", play.game)
    table.add_row("actions", " ".join(play.actions))
    table.add_row("frames per second", f"{play.fps:g}, {play.frame_skip} of the emulator for each")
    table.add_row("starts", f"{play.starts} of {play.context} frames")
    for name, value in play.prediction.lines() if play.prediction else ():
        table.add_row(name.lower(), value)
    return table


def plans_table(plans: Sequence[PlanRecord]) -> Table:
    """TensorRT plans, and what they were built for."""
    table = Table(
        title="plans",
        caption="MB on the device: weights, and activations at the largest batch",
        title_justify="left",
        caption_justify="left",
    )
    for heading in ("graph", "flavour", "for", "batch"):
        table.add_column(heading)
    for heading in ("file MB", "weights MB", "activations MB", "built in s"):
        table.add_column(heading, justify="right")
    for plan in plans:
        least, _, most = plan.batches
        table.add_row(
            plan.graph,
            f"{plan.flavour} {plan.version}",
            " ".join(plan.architectures),
            f"{least} to {most}",
            *(
                "" if size is None else f"{size / 1e6:.1f}"
                for size in (plan.bytes, plan.weight_bytes, plan.activation_bytes)
            ),
            f"{plan.build_seconds:.2f}",
        )
    return table


def model_table(path: Path, remarks: list[str], family: str | None = None) -> Table:
    """Sizes of a model directory or a reference checkpoint.

    Args:
        remarks: gets those of `load_model`.
        family: of a checkpoint that does not name its own.

    Raises:
        CheckpointError: it is neither.
    """
    from wmdeploy.families import family_of, load_model

    model = load_model(path, remarks=remarks, family=family)
    facts = family_of(model).facts(model)
    table = Table(title=str(path), title_justify="left")
    table.add_column("what", no_wrap=True)
    table.add_column("value")
    for file in filter(Path.is_file, sorted(path.iterdir()) if path.is_dir() else [path]):
        table.add_row(file.name, f"{file.stat().st_size / 1e6:.2f} MB, sha256 {sha256(file)}")
    table.add_row("family", family_of(model).title)
    for part, count in facts.parameters.items():
        table.add_row("parameters" if part == "all" else f"of the {part}", f"{count:,}")
    for name, value in flat_settings(family_of(model).sizes(model)):
        table.add_row(name, str(value))
    return table


def training_line(name: str, stage: StageSummary) -> Text:
    """One line on a stage: steps, speed, and how much of the time was the model's."""
    if stage.ended == "given":
        return Text(f"{name}: taken from another model")
    ended = {"steps": "", "time": ", ended by the time limit", "patience": ", ended early"}
    return Text(
        f"{name}: {stage.steps} steps in {stage.seconds:.0f} s "
        f"({stage.images_per_second:.0f} frames/s), {stage.in_model:.0%} of the time in the model"
        f"{ended.get(stage.ended, '')}"
        + ("" if stage.held_out is None else f", held-out loss {stage.held_out:.4f}")
    )


def doctor_table(findings: list[Finding]) -> Table:
    table = Table("component", "found", "enables", "how to install", title="wmdeploy doctor")
    styles = {"ok": "green", "missing": "yellow", "problem": "bold red"}
    for finding in findings:
        description = Text(finding.description, style=styles[finding.state])
        table.add_row(finding.what, description, finding.enables, Text(finding.fix))
    return table


def _graphs(bundle: Bundle) -> Table:
    recipe = bundle.manifest.recipe
    table = Table(
        title=f"{bundle.path}: {recipe.layout} layout, {recipe.types}, opset {recipe.opset}, "
        f"batch 1 to {recipe.max_batch}",
        caption="error: the largest of any output, relative to PyTorch's largest float32 value; "
        "for frames the root mean square over 255",
        title_justify="left",
        caption_justify="left",
    )
    table.add_column("graph")
    for heading in ("weights MB", "GFLOP per frame", "error", "tolerance", "integers equal"):
        table.add_column(heading, justify="right")
    for name, graph in bundle.manifest.graphs.items():
        floats = [p for p in graph.parity.values() if p.agreement is None]
        worst = max(floats, key=lambda p: p.relative / (p.tolerance or 1), default=None)
        table.add_row(
            name,
            f"{graph.weight_bytes / 1e6:.1f}",
            f"{graph.flops / 1e9:.3g}",
            f"{worst.relative:.1e}" if worst else "",
            f"{worst.tolerance:.1e}" if worst else "",
            _agreement(graph.parity),
        )
    return table


def _agreement(parity: dict[str, Parity]) -> str:
    """Of the integers that agree least, such as "100.00%" or "99.80%, 1 tied"."""
    shares = [(p.agreement, p) for p in parity.values() if p.agreement is not None]
    if not shares:
        return ""
    share, least = min(shares, key=lambda pair: pair[0])
    return f"{share:.2%}" + (f", {least.tied:,} tied" if least.tied else "")


def _tensors(bundle: Bundle) -> Table:
    table = Table(
        title="tensors, and the errors of outputs measured at export", title_justify="left"
    )
    for heading in ("graph", "", "tensor", "type and shape", "error", "relative"):
        table.add_column(heading)
    for name, graph in bundle.manifest.graphs.items():
        rows = [("in", spec) for spec in graph.inputs] + [("out", spec) for spec in graph.outputs]
        for i, (way, spec) in enumerate(rows):
            parity = graph.parity.get(spec.name) if way == "out" else None
            table.add_row(
                name if i == 0 else "",
                way,
                spec.name,
                str(spec),
                f"{parity.max_abs:.1e}" if parity else "",
                f"{parity.relative:.1e}" if parity else "",
                end_section=i == len(rows) - 1,
            )
    return table


def _files(bundle: Bundle) -> Table:
    table = Table(title="files (hashes checked)", title_justify="left")
    table.add_column("file", no_wrap=True)
    table.add_column("MB")
    table.add_column("sha256")
    for name, record in bundle.manifest.files.items():
        table.add_row(name, f"{record.bytes / 1e6:.2f}", record.sha256)
    return table
