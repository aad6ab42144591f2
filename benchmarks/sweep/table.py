"""A sweep as a rich table."""

from rich.table import Table
from rich.text import Text

from wmdeploy.benchmarks.render.format import figure
from wmdeploy.benchmarks.render.terminal import new_table
from wmdeploy.benchmarks.sweep.budget import Limit, missed
from wmdeploy.benchmarks.sweep.run import Cell, Sweep
from wmdeploy.manifest import types_in_words
from wmdeploy.programs.contract import FULL

_NARROW = ("bundle", "backend")  # columns that wrap where there is little room
_LEAST = {"codes": len("100.00%")}  # characters that others need at least
_FIGURE = len("3715")


def sweep_table(sweep: Sweep, limits: tuple[Limit, ...] = ()) -> Table:
    """A row for each cell, the Pareto set in bold; with a budget a column says who keeps it."""
    students = any(cell.decoder != FULL for cell in sweep.cells)
    caption = ["frame, imagine: ms for all sessions of the batch; psnr: worst frame"]
    if students:
        caption.append("lite, tiny: student decoders; psnr is beside the full one, verdict is not")
    caption += [f"skipped: {name}: {why}" for name, why in sweep.skipped.items()]
    table = new_table(
        "sweep: bold rows are not beaten in latency, memory and quality together",
        "\n".join(caption),
        ("bundle", "backend"),
        ("batch", "frame ms", "imagine ms", "memory MB", "psnr dB", "codes"),
    )
    table.add_column("verdict")
    if limits:
        table.add_column("budget")
    for column in table.columns:
        column.overflow = "fold"
        column.no_wrap = column.header == "bundle" and not students
        if (name := str(column.header)) not in _NARROW:
            column.min_width = max(_LEAST.get(name, _FIGURE), *map(len, name.split()))
    for cell in sorted(sweep.cells, key=lambda c: (c.batch, c.figures["frame"] or 0)):
        figures = cell.figures
        kept = cell.verdict == "pass" and not missed(limits, figures)
        table.add_row(
            " ".join([cell.layout, cell.precision, *_others(cell)]),
            cell.backend,
            str(cell.batch),
            figure(figures["frame"]),
            figure(figures["imagine"]),
            figure(figures["memory"]),
            figure(figures["psnr"]),
            "" if figures["codes"] is None else f"{figures['codes']:.2f}%",
            Text(cell.verdict, style={"pass": "green", "fail": "bold red"}.get(cell.verdict, "")),
            *(
                [Text("kept" if kept else "missed", style="green" if kept else "")]
                if limits
                else []
            ),
            style="bold" if cell.best else None,
        )
    return table


def _others(cell: Cell) -> list[str]:
    """Weights and decoder, where they are not the usual ones."""
    return [
        name for name, usual in ((cell.weights, "float"), (cell.decoder, FULL)) if name != usual
    ]


def cell_line(cell: Cell) -> str:
    """One cell in words."""
    figures = cell.figures
    return (
        f"{cell.layout} layout, {types_in_words(cell.precision, cell.weights)}, {cell.decoder} "
        f"decoder, {cell.backend}, batch {cell.batch}: "
        f"{figure(figures['frame'])} ms a frame, {figure(figures['memory'])} MB, "
        f"worst frame {figure(figures['psnr'])} dB"
    )
