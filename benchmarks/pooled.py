"""Several runs of one bench command as one report, as a longer run would have written it.

    for n in 1 2 3; do wmdeploy bench bundles/pong --json main/run-$n.json; done
    report = read_runs(Path("main"))

A shared machine has states that last for minutes, of which one run sees few.
"""

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from statistics import median

from benchmarks.change import keyed
from benchmarks.comparable import baseline_of, check_comparable, section
from benchmarks.ratio import ratio
from benchmarks.report import MOST_RUNS, SCHEMA, Report, Row, Verdict, read_json
from benchmarks.timing import percentile
from wmdeploy.errors import WmdeployError

VERDICTS: tuple[Verdict, ...] = ("pass", "skipped", "fail")  # the worst last


def read_runs(path: Path) -> tuple[Report, int]:
    """A report, or all of a folder as one; and how many they are.

    Raises:
        WmdeployError: a file is no report, the folder has none or too many, or they cannot be
            pooled.
    """
    if not path.is_dir():
        return read_json(path), 1
    files = sorted(path.glob("*.json"))
    if not 1 <= len(files) <= MOST_RUNS:
        raise WmdeployError(
            f"{path}: has {len(files)} reports (*.json), expected 1 to {MOST_RUNS} of one command"
        )
    return pooled({str(file): read_json(file) for file in files}), len(files)


def pooled(runs: Mapping[str, Report]) -> Report:
    """One report of all rounds, one run after the other.

    Memory is the median run's. Parity, curves and strips are those of the run with the worst frame
    of all, verdicts each backend's worst; all else is the first run's.

    Args:
        runs: by a name for messages, one or more.

    Raises:
        WmdeployError: they measured different things, or with other versions or hardware, or are of
            a schema without rounds.
    """
    (name, first), *others = runs.items()
    for other, report in others:
        _check_alike(name, first, other, report)
    if not others:
        return first
    reports = list(runs.values())
    least_exact = min(reports, key=_worst_frame)
    exact = keyed(least_exact)
    tables = [keyed(report) for report in reports]
    worst = {
        row.backend: row
        for verdict in VERDICTS
        for report in reports
        for row in report.rows
        if row.verdict == verdict
    }
    rows = []
    for key in dict.fromkeys(key for table in tables for key in table):
        base = baseline_of(first), *key[1:]
        pairs = [(table[key], table.get(base)) for table in tables if key in table]
        told = worst[key[0]]
        rows.append(
            dataclasses.replace(
                _pooled_row(pairs),
                parity=exact[key].parity if key in exact else None,
                verdict=told.verdict,
                reason=told.reason,
            )
        )
    return dataclasses.replace(
        least_exact, rows=rows, environment=first.environment, bundle=first.bundle
    )


def _worst_frame(report: Report) -> float:
    """Of all backends and clips, in dB."""
    return min((min(curve.free_db) for curve in report.curves if curve.free_db), default=math.inf)


def _check_alike(name: str, first: Report, other: str, report: Report) -> None:
    common = check_comparable(first, report, (name, other))
    for which, one in ((name, first), (other, report)):
        if one.schema < SCHEMA:
            raise WmdeployError(
                f"{which}: has schema {one.schema}, without rounds; runs that are pooled must be "
                "measured by this version"
            )
    packages = [section(one.environment, "packages") for one in (first, report)]
    if not common.same_hardware or packages[0] != packages[1]:
        raise WmdeployError(
            f"{name} and {other} were measured on other hardware or with other versions; pool runs "
            "of one command on one machine"
        )


def _pooled_row(pairs: list[tuple[Row, Row | None]]) -> Row:
    """One backend's times and memory at one stage: of each run's row, and the baseline's there."""
    rows, bases = [row for row, _ in pairs], [base for _, base in pairs if base is not None]
    memory = [row.memory_mb for row in rows if row.memory_mb is not None]
    samples, device = _joined(rows, "samples_ms"), _joined(rows, "device_samples_ms")
    row = dataclasses.replace(
        rows[0],
        memory_mb=median(memory) if memory else None,
        noisy=any(row.noisy for row in rows),
        samples_ms=samples,
        round_ms=_joined(rows, "round_ms"),
        device_samples_ms=device,
    )
    if not (samples and min(samples) > 0):
        return row
    p50, p90, p99 = (percentile(samples, q) for q in (50, 90, 99))
    of_bases = _joined(bases, "samples_ms")
    row = dataclasses.replace(
        row,
        p50_ms=p50,
        p90_ms=p90,
        p99_ms=p99,
        frames_per_s=None if row.frames_per_s is None else row.batch * 1e3 / p50,
        of_floor=None if row.floor_ms is None else row.floor_ms / p50,
        device_p50_ms=percentile(device, 50) if device else None,
        speedup=percentile(of_bases, 50) / p50 if of_bases else None,
    )
    rounds = _joined(bases, "round_ms")
    if rounds and len(rounds) == len(row.round_ms) and min(rounds + row.round_ms) > 0:
        found = ratio(rounds, row.round_ms)
        row = dataclasses.replace(
            row, speedup=found.value, speedup_low=found.low, speedup_high=found.high
        )
    return row


def _joined(rows: list[Row], name: str) -> list[float]:
    """A list that each row has, one run after the other."""
    return [value for row in rows for value in getattr(row, name)]
