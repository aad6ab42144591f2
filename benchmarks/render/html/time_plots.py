"""Plots of times: all samples of each stage, and frames per second as sessions are added."""

from collections.abc import Mapping

import numpy as np
from markupsafe import Markup

from wmdeploy.benchmarks.render.html.svg import (
    label,
    new_figure,
    plain_numbers,
    series_colour,
    to_svg,
)
from wmdeploy.benchmarks.render.tables import stages_in
from wmdeploy.benchmarks.report import Report, Row

PIXELS = 1200  # samples that would fall on the same one of so many across are drawn once
WIDE = 8.0  # largest over smallest from which on an axis is logarithmic
LANE, HEAD = 0.25, 0.5  # inches: of a backend, and of what is around them
WHISKERS = 1.5  # times the distance of the quartiles: what is further out is an outlier


def distributions(report: Report, colours: Mapping[str, int]) -> list[Markup]:
    """A plot for each stage at batch 1: every sample, quartiles and median of each backend."""
    plots: list[Markup] = []
    for stage in stages_in(report):
        rows = [r for r in report.rows if (r.stage, r.batch) == (stage, 1) and _timed(r)]
        if rows:
            plots.append(_distribution(f"times-{len(plots)}", stage, rows, colours))
    return plots


def _timed(row: Row) -> bool:
    return len(row.samples_ms) > 1 and all(0 < ms < 1e12 for ms in row.samples_ms)


def _distribution(name: str, stage: str, rows: list[Row], colours: Mapping[str, int]) -> Markup:
    figure = new_figure(HEAD + LANE * len(rows))
    axes = figure.add_subplot()
    low = min(min(row.samples_ms) for row in rows)
    high = max(max(row.samples_ms) for row in rows)
    wide = high > WIDE * low
    for lane, row in enumerate(rows):
        samples = np.asarray(row.samples_ms)
        colour = series_colour(colours[row.backend])
        first, median, third = np.percentile(samples, [25, 50, 75])
        reach = WHISKERS * (third - first)
        inside = (samples >= first - reach) & (samples <= third + reach)
        shown = _thinned(samples[inside], low, high, wide)
        x = np.repeat(shown, 3)
        y = np.tile([lane - 0.3, lane + 0.3, np.nan], len(shown))
        axes.plot(x, y, color=colour, linewidth=0.5, alpha=0.55, solid_capstyle="butt")
        outliers = _thinned(samples[~inside], low, high, wide)
        axes.plot(outliers, np.full(len(outliers), lane), "o", color=colour, markersize=1.8,
                  markerfacecolor="none", markeredgewidth=0.6)  # fmt: skip
        axes.plot([first, third], [lane, lane], color=colour, linewidth=5, alpha=0.75,
                  solid_capstyle="butt")  # fmt: skip
        axes.plot([median, median], [lane - 0.42, lane + 0.42], color=colour, linewidth=1.6)
    if wide:
        axes.set_xscale("log")
    plain_numbers(axes.xaxis)
    axes.set_yticks(range(len(rows)), [label(row.backend) for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set_title(f"{label(stage)}, ms" + (" (logarithmic)" if wide else ""), fontweight="bold")
    axes.grid(axis="x")
    return to_svg(figure, name, f"times of {label(stage)} in ms, every sample by backend")


def _thinned(samples: np.ndarray, low: float, high: float, wide: bool) -> np.ndarray:
    """One sample of those that would be drawn on top of each other."""
    position = np.log(samples / low) if wide else samples - low
    span = (np.log(high / low) if wide else high - low) or 1.0
    _, index = np.unique(np.round(position / span * PIXELS), return_index=True)
    return samples[index]


def batch_scaling(report: Report, colours: Mapping[str, int]) -> list[Markup]:
    """Frames, and steps without rendering, per second of all sessions over their number."""
    plots = []
    for stage, what in (("frame", "frames"), ("imagine", "steps without rendering")):
        rows = [r for r in report.rows if r.stage == stage and r.frames_per_s and r.batch > 0]
        if len({row.batch for row in rows}) < 2:
            continue
        figure = new_figure(2.3)
        axes = figure.add_subplot()
        for backend in dict.fromkeys(row.backend for row in rows):
            line = sorted((r.batch, r.frames_per_s) for r in rows if r.backend == backend)
            axes.plot(*zip(*line, strict=True), "o-", markersize=3, label=label(backend),
                      color=series_colour(colours[backend]))  # fmt: skip
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        sizes = sorted({row.batch for row in rows})
        axes.set_xticks(sizes, [str(size) for size in sizes])
        axes.minorticks_off()
        plain_numbers(axes.yaxis)
        axes.set_xlabel("sessions")
        axes.set_title(f"{what} per second, all sessions", fontweight="bold")
        axes.grid()
        plots.append(to_svg(figure, f"batches-{stage}", f"{what} per second by sessions"))
    return plots
