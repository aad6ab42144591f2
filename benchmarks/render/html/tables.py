"""The tables of the page: cells with their text, and what they are sorted by. No markup."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from wmdeploy.benchmarks.render.format import figure, speed_up, worst_db
from wmdeploy.benchmarks.report import Report, Row, flatten

LONGEST = 300  # characters of a value of the environment


@dataclass(frozen=True)
class Cell:
    """`sort` is the number that a column is sorted by, where the text alone does not say it."""

    text: str
    sort: float | None = None
    mark: str = ""  # pass, fail, skipped or warn


@dataclass(frozen=True)
class Table:
    """`numeric` are the headings whose columns stand on the right."""

    headings: tuple[str, ...]
    rows: list[list[Cell]]
    numeric: frozenset[str] = field(default_factory=frozenset)


def latency(report: Report) -> Table:
    """All stages at batch 1. Columns that no row fills are left out."""
    rows = [row for row in report.rows if row.batch == 1 and row.p50_ms is not None]
    cells = [
        [
            Cell(row.stage, float(position)),
            Cell(row.backend),
            _number(len(row.samples_ms), "d"),
            _figure(row.p50_ms),
            _figure(row.p90_ms),
            _figure(row.p99_ms),
            _figure(row.frames_per_s),
            Cell(speed_up(row), row.speedup, "warn" if row.noisy else ""),
            _figure(row.floor_ms),
            _number(row.of_floor, ".0%"),
            Cell(row.bound or ""),
            _figure(row.device_p50_ms),
            _figure(row.memory_mb),
            _parity(row),
            _verdict(row),
        ]
        for position, row in enumerate(rows)
    ]
    return _without_empty(
        ("stage", "backend", "runs", "p50 ms", "p90 ms", "p99 ms", "per s", "speed-up", "floor ms",
         "of floor", "bound", "device ms", "memory MB", "parity", "verdict"),
        cells,
        words=("stage", "backend", "bound", "verdict"),
    )  # fmt: skip


def parity(report: Report) -> Table:
    """Each backend's rollout against the baseline's, the worst of all clips."""
    rows = [r for r in report.rows if (r.stage, r.batch) == ("frame", 1)
            and r.parity is not None and r.parity.worst_frame_psnr_db]  # fmt: skip
    horizons = sorted(
        {h for row in rows if row.parity for h in row.parity.worst_frame_psnr_db or {}},
        key=lambda h: (len(h), h),
    )
    cells = []
    for row in rows:
        assert row.parity is not None
        worst = row.parity.worst_frame_psnr_db or {}
        mean = row.parity.psnr_db or {}
        cells.append([
            Cell(row.backend),
            _number(row.parity.code_agreement, ".3%"),
            *(_number(worst.get(h), ".1f") for h in horizons),
            _number(mean.get(horizons[-1]), ".1f"),
            _number(row.parity.max_abs, ".0f"),
            _verdict(row),
        ])  # fmt: skip
    headings = ("backend", "codes", *(f"worst dB to {h}" for h in horizons), "mean dB",
                "max of 255", "verdict")  # fmt: skip
    return _without_empty(headings, cells, words=("backend", "verdict"))


def clips(report: Report) -> Table:
    """Each backend on each clip: worst frames, and how codes hold."""
    cells = [
        [
            Cell(curve.backend),
            Cell(curve.clip),
            _number(min(curve.free_db, default=None), ".1f"),
            _number(curve.worst_frame if curve.free_db else None, "d"),
            _number(min(curve.forced_db, default=None), ".1f"),
            _number(min(curve.own_db, default=None), ".1f"),
            _number(curve.code_agreement, ".3%"),
            _number(curve.codes.tied or None if curve.codes else None, "d"),
            _number(curve.imagined_agreement, ".3%"),
            Cell("none", 1e9)
            if curve.first_difference is None
            else _number(curve.first_difference, "d"),
        ]
        for curve in report.curves
    ]
    return _without_empty(
        ("backend", "clip", "worst dB, free", "at horizon", "worst dB, forced",
         "worst dB, own codes", "codes", "tied", "imagined codes", "first other code at"),
        cells,
        words=("backend", "clip"),
    )  # fmt: skip


def swaps(report: Report) -> Table:
    """Worst frame of rollouts in which one graph alone is the backend's."""
    graphs = list(dict.fromkeys(g for found in report.swaps.values() for g in found))
    cells = [
        [Cell(backend), *(_number(found.get(graph), ".1f") for graph in graphs)]
        for backend, found in report.swaps.items()
    ]
    return _without_empty(("backend", *graphs), cells, words=("backend",))


def pacing(report: Report) -> Table:
    cells = []
    for paced in report.pacing:
        quantiles = np.percentile(paced.latency_ms, [50, 99]) if paced.latency_ms else [None, None]
        share = paced.misses / paced.frames if paced.frames else None
        cells.append([
            Cell(paced.backend),
            _number(paced.fps, "g"),
            _number(paced.frames, "d"),
            Cell(f"{paced.misses} ({share:.1%})" if share is not None else "", share,
                 "warn" if paced.misses else ""),
            _figure(None if quantiles[0] is None else float(quantiles[0])),
            _figure(None if quantiles[1] is None else float(quantiles[1])),
            _figure(max(paced.latency_ms, default=None)),
            _figure(paced.jitter_ms),
        ])  # fmt: skip
    return _without_empty(
        ("backend", "frames per s asked", "frames", "missed", "latency p50 ms", "p99 ms", "max ms",
         "jitter ms"),
        cells,
        words=("backend",),
    )  # fmt: skip


def batches(report: Report) -> Table:
    """Whole frames and steps of several sessions together."""
    rows = [row for row in report.rows if row.stage in ("frame", "imagine") and row.p50_ms]
    if len({row.batch for row in rows}) < 2:
        return Table((), [])
    cells = [
        [
            Cell(row.stage, float(position)),
            Cell(row.backend),
            _number(row.batch, "d"),
            _figure(row.p50_ms),
            _figure(row.frames_per_s),
            Cell(speed_up(row), row.speedup, "warn" if row.noisy else ""),
            _number(row.of_floor, ".0%"),
            _figure(row.memory_mb),
        ]
        for position, row in enumerate(rows)
    ]
    return _without_empty(
        ("stage", "backend", "sessions", "p50 ms", "per s", "speed-up", "of floor", "memory MB"),
        cells,
        words=("stage", "backend"),
    )


def facts(report: Report) -> Table:
    """The environment and the bundle, one value a line; not what has a plot or is long."""
    flat = {**flatten(report.environment), **flatten(report.bundle, "bundle.")}
    elsewhere = ("gpu_states.", "bundle.graph_", "bundle.other_layout.")
    cells = [
        [Cell(name), Cell(_short(value))]
        for name, value in flat.items()
        if not name.startswith(elsewhere)
    ]
    return Table(("what", "value"), cells)


def _short(value: object) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    text = "none" if value is None else text
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def _without_empty(headings: Sequence[str], rows: list[list[Cell]], words: Sequence[str]) -> Table:
    kept = [i for i in range(len(headings)) if any(row[i].text for row in rows)]
    shown = tuple(headings[i] for i in kept)
    return Table(
        shown, [[row[i] for i in kept] for row in rows], frozenset(shown) - frozenset(words)
    )


def _figure(value: float | None) -> Cell:
    return Cell(figure(value), value)


def _number(value: float | int | None, form: str) -> Cell:
    return Cell("") if value is None else Cell(format(value, form), float(value))


def _parity(row: Row) -> Cell:
    if told := worst_db(row):
        return Cell(f"{told} dB", float(told))
    error = row.parity.max_abs if row.parity else None
    return _number(error, ".1e")


def _verdict(row: Row) -> Cell:
    words = row.verdict if row.reason is None else f"{row.verdict}: {row.reason}"
    return Cell(words, mark=row.verdict)
