"""Several runs of one bench command as one report, as a longer run would have written it.

    for n in 1 2 3; do wmdeploy bench bundles/pong --json main/run-$n.json; done
    report, count = read_runs(Path("main"))

A shared machine has states that last for minutes, of which one run sees few.
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping
from pathlib import Path

from wmdeploy.benchmarks.compare.compatibility import check_comparable, differing
from wmdeploy.benchmarks.environment import Ceilings
from wmdeploy.benchmarks.report import (
    MOST_POOLED,
    MOST_ROUNDS,
    Curve,
    Parity,
    Report,
    Row,
    read_json,
    rows_by_key,
)
from wmdeploy.benchmarks.stats import percentile, ratio
from wmdeploy.errors import WmdeployError


def read_runs(path: Path) -> tuple[Report, int]:
    """A report, or all of a folder as one; and how many they are.

    Raises:
        WmdeployError: a file is no report, the folder has none or too many, or they cannot be
            pooled.
    """
    if not path.is_dir():
        return read_json(path), 1
    files = sorted(file for file in path.glob("*.json") if not file.name.startswith("."))
    if not 1 <= len(files) <= MOST_POOLED:
        raise WmdeployError(
            f"{path}: has {len(files)} reports (*.json), expected 1 to {MOST_POOLED} of one command"
        )
    return pooled({str(file): read_json(file) for file in files}), len(files)


def pooled(runs: Mapping[str, Report]) -> Report:
    """One report of all rounds, one run after the other.

    Memory is the median run's (of two the lower), parity at each stage and clip that of the run
    which is furthest off, ceilings are the highest, a row is noisy where a run's was; all else is
    the first run's.

    Args:
        runs: by a name for messages, one or more.

    Raises:
        WmdeployError: they measured different things, with other versions or hardware, or a
            backend failed in one and not in another.
    """
    (name, first), *others = runs.items()
    for other, report in others:
        _check_alike(name, first, other, report)
    if not others:
        return first
    tables = [rows_by_key(report, name) for name, report in runs.items()]
    rows = []
    for key in tables[0]:
        base = first.baseline, *key[1:]
        bases = [table[base] for table in tables if base in table]
        rows.append(_pooled_row([table[key] for table in tables], bases))
    curves: dict[tuple[str, str], list[Curve]] = {}
    for curve in (curve for report in runs.values() for curve in report.curves):
        curves.setdefault((curve.backend, curve.clip), []).append(curve)
    least_exact = [min(runs_of_one, key=_lowest_db) for runs_of_one in curves.values()]
    ceilings = _highest_ceilings(runs.values())
    environment = dataclasses.replace(first.environment, ceilings=ceilings)
    return dataclasses.replace(first, rows=rows, curves=least_exact, environment=environment)


def _highest_ceilings(runs: Iterable[Report]) -> dict[str, Ceilings]:
    """By device, the highest figures of any run: neighbours only take away."""
    highest: dict[str, Ceilings] = {}
    for device, ceilings in (item for run in runs for item in run.environment.ceilings.items()):
        highest[device] = ceilings.or_higher(highest.get(device))
    return highest


def _check_alike(name: str, first: Report, other: str, report: Report) -> None:
    check_comparable(first, report, (name, other))
    unlike = differing(_origin(first), _origin(report))
    tables = rows_by_key(first, name), rows_by_key(report, other)
    was, now = ({key[0]: row.verdict for key, row in table.items()} for table in tables)
    unlike = unlike or differing(was, now)
    if not unlike and tables[0].keys() != tables[1].keys():
        key = min(tables[0].keys() ^ tables[1].keys())
        unlike = f"one has no row of {key[0]}, {key[1]}, batch {key[2]}"
    if unlike:
        raise WmdeployError(
            f"{name} and {other} are not alike: {unlike}; pool runs of one command on one machine "
            "that ended alike"
        )


def _origin(report: Report) -> dict[str, object]:
    """Where the figures come from, beyond what `check_comparable` looks at."""
    environment = report.environment
    source = {"model": report.bundle.recipe.source}
    return environment.hardware | environment.packages | source


def _pooled_row(rows: list[Row], bases: list[Row]) -> Row:
    """One backend at one stage: its row of each run, and the baseline's there."""
    first = rows[0]
    by_memory = sorted((r for r in rows if r.memory_mb is not None), key=lambda r: r.memory_mb or 0)
    median = by_memory[(len(by_memory) - 1) // 2] if by_memory else first
    parity = [row.parity for row in rows if row.parity is not None]
    row = dataclasses.replace(
        first,
        memory_mb=median.memory_mb,
        memory=median.memory,
        parity=min(parity, key=_exactness, default=None),
        noisy=any(row.noisy for row in rows),
        speedup=None,
        speedup_low=None,
        speedup_high=None,
        samples_ms=_joined(rows, "samples_ms"),
        round_ms=_joined(rows, "round_ms"),
        device_samples_ms=_joined(rows, "device_samples_ms"),
    )
    row = _with_times(row)
    if not _paired(rows, bases):
        return row
    speedup = ratio(_joined(bases, "round_ms"), row.round_ms)
    return dataclasses.replace(
        row, speedup=speedup.value, speedup_low=speedup.low, speedup_high=speedup.high
    )


def _with_times(row: Row) -> Row:
    """With the times that follow from its samples; `row` has those of a single run."""
    if row.p50_ms is None or not row.samples_ms or min(row.samples_ms) <= 0:
        return row
    p50, p90, p99 = (percentile(row.samples_ms, q) for q in (50, 90, 99))
    faster, device = row.p50_ms / p50, row.device_samples_ms
    return dataclasses.replace(
        row,
        p50_ms=p50,
        p90_ms=p90,
        p99_ms=p99,
        frames_per_s=None if row.frames_per_s is None else row.frames_per_s * faster,
        of_floor=None if row.of_floor is None else row.of_floor * faster,
        device_p50_ms=percentile(device, 50) if device else None,
    )


def _paired(rows: list[Row], bases: list[Row]) -> bool:
    """Whether each run has the same rounds of a backend and of the baseline."""
    if len(rows) != len(bases):
        return False
    lengths = [
        (len(row.round_ms), len(base.round_ms)) for row, base in zip(rows, bases, strict=True)
    ]
    if not all(1 <= own == other <= MOST_ROUNDS for own, other in lengths):
        return False
    times = _joined(rows, "round_ms") + _joined(bases, "round_ms")
    return min(times) > 0 and max(times) / min(times) < math.inf


def _joined(rows: list[Row], name: str) -> list[float]:
    """A list that each row has, one run after the other."""
    return [value for row in rows for value in getattr(row, name)]


def _lowest_db(curve: Curve) -> float:
    return min((*curve.free_db, *curve.forced_db), default=math.inf)


def _exactness(parity: Parity) -> tuple[float, float, float]:
    """Less where a run is further off: by its worst frame, its largest error, its codes."""
    frames = (parity.worst_frame_psnr_db or {}).values()
    agreement = 1.0 if parity.code_agreement is None else parity.code_agreement
    return min(frames, default=math.inf), -(parity.max_abs or 0.0), agreement
