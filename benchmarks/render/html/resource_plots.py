"""Plots of bytes and operations: memory by who holds it, the roofline, what the layout saved."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from markupsafe import Markup

from wmdeploy.benchmarks.environment import Ceilings
from wmdeploy.benchmarks.render.html.svg import (
    LINE,
    TEXT,
    label,
    new_figure,
    plain_numbers,
    series_colour,
    to_svg,
)
from wmdeploy.benchmarks.report import Report, Row
from wmdeploy.benchmarks.stages import find_stage

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BAR, HEAD = 0.3, 0.8  # inches: of a bar, and of what is around them
MARKERS = "os^Dv<>Pp*"  # of graphs, in turns


def memory(report: Report) -> list[Markup]:
    """A stacked bar for each backend at batch 1; one plot for each way of counting."""
    kinds: dict[str, list[Row]] = {}
    for row in report.frames():
        if row.memory is not None:
            kinds.setdefault(row.memory.headline[1], []).append(row)
    return [_memory(i, kind, rows) for i, (kind, rows) in enumerate(kinds.items())]


def _memory(number: int, kind: str, rows: list[Row]) -> Markup:
    figure = new_figure(HEAD + BAR * len(rows))
    axes = figure.add_subplot()
    parts: dict[str, np.ndarray] = {}  # of each engine label, MB by backend
    for place, row in enumerate(rows):
        assert row.memory is not None
        left = row.memory.headline[0]
        for name, size in row.memory.engines.items():
            parts.setdefault(name, np.zeros(len(rows)))[place] = size
            left -= size
        parts.setdefault("rest", np.zeros(len(rows)))[place] = max(0.0, left)
    parts["rest"] = parts.pop("rest")  # the last
    begin = np.zeros(len(rows))
    for index, (name, sizes) in enumerate(parts.items()):
        rest = name == "rest"
        shown = "everything else" if len(parts) > 1 else "the whole process"
        axes.barh(range(len(rows)), sizes, left=begin, height=0.62,
                  color=series_colour(0 if rest else index + 1), alpha=0.55 if rest else 0.9,
                  label=shown if rest else label(f"engines: {name}"))  # fmt: skip
        begin += sizes
    for place, total in enumerate(begin):
        _beside(axes, total, place, f"{total:,.0f}")
    axes.set_yticks(range(len(rows)), [label(row.backend) for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(0, 1.18 * max(begin.max(), 1.0))
    axes.tick_params(axis="y", length=0)
    plain_numbers(axes.xaxis)
    axes.set_title(f"MB, {kind}", fontweight="bold")
    axes.grid(axis="x")
    figure.legend(loc="outside lower left", ncols=2, frameon=False, fontsize=8.5)
    return to_svg(figure, f"memory-{number}", f"memory in MB ({kind}) by backend")


def _beside(axes: "Axes", value: float, place: float, text: str) -> None:
    """The figure right of the end of its bar."""
    axes.annotate(text, (value, place), (3, 0), textcoords="offset points", va="center",
                  fontsize=8.5)  # fmt: skip


def roofline(report: Report, colours: Mapping[str, int]) -> list[Markup]:
    """For each device: operations per byte of each graph against what each backend reached."""
    graphs = report.bundle.graphs
    plots: list[Markup] = []
    for device, ceilings in report.environment.ceilings.items():
        points = [
            (row, cost.flops / cost.moved_bytes, cost.flops / row.p50_ms / 1e6)
            for row in report.rows
            if row.batch == 1 and row.p50_ms and (row.device or "").split(":")[0] == device
            and (cost := graphs.get(find_stage(row.stage).graph or "")) is not None
            and _drawable(cost.flops, cost.moved_bytes, row.p50_ms)
        ]  # fmt: skip
        if points and _drawable(ceilings.bandwidth_gb_s, ceilings.gflop_s):
            plots.append(_roofline(f"roofline-{len(plots)}", device, ceilings, points, colours))
    return plots


def _drawable(*values: float) -> bool:
    """Whether logarithmic axes have room for the values."""
    return all(1e-15 < value < 1e15 for value in values)


def _roofline(
    name: str,
    device: str,
    ceilings: Ceilings,
    points: list[tuple[Row, float, float]],
    colours: Mapping[str, int],
) -> Markup:
    figure = new_figure(3.2)
    axes = figure.add_subplot()
    bandwidth = ceilings.bandwidth_gb_s
    rates = {"float32": ceilings.gflop_s}
    if ceilings.half_gflop_s:
        rates["float16"] = ceilings.half_gflop_s
    intensities = [x for _, x, _ in points]
    left = min(intensities) / 3
    right = 3 * max(*intensities, max(rates.values()) / bandwidth)
    for precision, rate in rates.items():
        corners = np.array([left, rate / bandwidth, right])
        legend = f"{bandwidth:,.0f} GB/s, {rate:,.0f} GFLOP/s in {precision}"
        axes.plot(corners, np.minimum(bandwidth * corners, rate), color=TEXT, linewidth=1,
                  linestyle="-" if precision == "float32" else "--", label=legend)  # fmt: skip
    stages = list(dict.fromkeys(row.stage for row, _, _ in points))
    markers = {stage: MARKERS[i % len(MARKERS)] for i, stage in enumerate(stages)}
    lowest = min(y for _, _, y in points)
    for stage in stages:
        at = next(x for row, x, _ in points if row.stage == stage)
        axes.axvline(at, color=LINE, linewidth=0.6, zorder=0)
    for row, x, y in points:
        axes.plot(x, y, markers[row.stage], color=series_colour(colours[row.backend]),
                  markersize=4.5, alpha=0.9)  # fmt: skip
    for stage in stages:
        axes.plot([], [], markers[stage], color=TEXT, markersize=4, linestyle="none",
                  label=label(stage))  # fmt: skip
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(left, right)
    highest = max(*(y for _, _, y in points), *rates.values())
    axes.set_ylim(min(lowest, bandwidth * left) / 3, 3 * highest)
    for axis in (axes.xaxis, axes.yaxis):
        plain_numbers(axis)
    axes.set_xlabel("operations per byte")
    axes.set_title(f"GFLOP/s reached, {label(device)}", fontweight="bold")
    axes.grid(alpha=0.5)
    handles, labels = axes.get_legend_handles_labels()
    drawn = len(handles) - len(stages)  # ceilings
    figure.legend(handles[:drawn], labels[:drawn], loc="outside upper left", frameon=False,
                  fontsize=8.5)  # fmt: skip
    figure.legend(handles[drawn:], labels[drawn:], loc="outside lower left", ncols=4,
                  frameon=False, fontsize=8.5)  # fmt: skip
    return to_svg(figure, name, f"roofline of {label(device)}")


def layout_savings(report: Report) -> Markup | None:
    """Weights that each graph reads once, in this layout and in the other; None if not counted."""
    bundle = report.bundle
    sizes = {
        name: (cost.weight_bytes, cost.other_layout_weight_bytes)
        for name, cost in bundle.graphs.items()
        if cost.other_layout_weight_bytes
    }
    graphs = list(sizes)
    if not graphs:
        return None
    figure = new_figure(HEAD + 1.6 * BAR * len(graphs))
    axes = figure.add_subplot()
    largest = max(max(pair) for pair in sizes.values()) / 1e6
    for which, (offset, name, colour) in enumerate(
        (
            (-0.2, bundle.recipe.layout, series_colour(1)),
            (0.2, bundle.other_layout or "", series_colour(0)),
        )
    ):
        values = [sizes[graph][which] / 1e6 for graph in graphs]
        places = np.arange(len(graphs)) + offset
        axes.barh(
            places, values, height=0.36, color=colour, alpha=0.9, label=f"{label(name)} layout"
        )
        for place, value in zip(places, values, strict=True):
            _beside(axes, value, place, f"{value:,.1f}")
    axes.set_yticks(range(len(graphs)), [label(graph) for graph in graphs])
    axes.set_ylim(len(graphs) - 0.4, -0.6)
    axes.set_xlim(0, 1.18 * largest)
    axes.tick_params(axis="y", length=0)
    plain_numbers(axes.xaxis)
    axes.set_title("weights of each graph, MB", fontweight="bold")
    axes.grid(axis="x")
    figure.legend(loc="outside lower left", ncols=2, frameon=False, fontsize=8.5)
    return to_svg(figure, "layout", "weights of each graph in MB, in both layouts")
