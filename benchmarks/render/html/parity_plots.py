"""Plots of parity: PSNR of each imagined frame with the baseline's, over the horizon."""

from collections.abc import Mapping

import numpy as np
from markupsafe import Markup

from wmdeploy.benchmarks.parity.gate import GATES
from wmdeploy.benchmarks.render.html.svg import (
    TEXT,
    label,
    new_figure,
    plain_numbers,
    series_colour,
    to_svg,
)
from wmdeploy.benchmarks.report import Curve, Report

MOST_CLIPS = 6


def parity_curves(report: Report, colours: Mapping[str, int]) -> list[Markup]:
    """A plot for each clip, at most `MOST_CLIPS`, those with the worst frames first."""
    worst: dict[str, float] = {}
    for curve in report.curves:
        if curve.free_db:
            worst[curve.clip] = min(worst.get(curve.clip, np.inf), *curve.free_db)
    gate = GATES[report.bundle.recipe.exactness]
    clips = sorted(worst, key=lambda clip: worst[clip])[:MOST_CLIPS]
    return [
        _plot(index, clip, [c for c in report.curves if c.clip == clip], colours,
              gate.worst_frame_db)
        for index, clip in enumerate(clips)
    ]  # fmt: skip


def _plot(
    index: int, clip: str, curves: list[Curve], colours: Mapping[str, int], gate: float
) -> Markup:
    figure = new_figure(2.5)
    axes = figure.add_subplot()
    longest = max(len(curve.free_db) for curve in curves)
    for curve in curves:
        colour = series_colour(colours.get(curve.backend, 1))
        for values, style in ((curve.free_db, "-"), (curve.forced_db, ":")):
            axes.plot(np.arange(1, len(values) + 1), values, style, color=colour, linewidth=1.2)
        if curve.free_db:
            at = curve.worst_frame
            axes.plot(at, curve.free_db[at - 1], "o", color=colour, markersize=3.5)
        if curve.first_difference is not None and 1 <= curve.first_difference <= longest:
            axes.axvline(curve.first_difference, color=colour, linewidth=0.7, linestyle="--",
                         alpha=0.6)  # fmt: skip
    axes.axhline(gate, color=TEXT, linewidth=0.8, linestyle=(0, (1, 3)))
    axes.text(1, gate, " gate", fontsize=8, va="bottom")
    for axis in (axes.xaxis, axes.yaxis):
        plain_numbers(axis)
    axes.set_xlim(0, longest + 1)
    axes.set_xlabel("horizon, frames")
    axes.set_title(f"dB, {label(clip)}", fontweight="bold")
    axes.grid()
    return to_svg(figure, f"parity-{index}", f"PSNR in dB over the horizon, clip {label(clip)}")
