"""One figure of two reports: how it changed in speed and memory, and whether that is a regression.

Parity is in `benchmarks.parity_change`.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from benchmarks.matched import matched_slowdown
from benchmarks.ratio import (
    FEWEST_SAMPLES,
    LogRatio,
    Slowdown,
    noise,
    ratio_of,
    ratio_slowdown,
)
from benchmarks.report import Report, Row
from wmdeploy.errors import WmdeployError

Status = Literal["regression", "improvement", "unclear", "information", "unchanged"]
LEAST_MEMORY = 0.05  # allocators and libraries differ by less from run to run
SINGLE = ("load", "first_call")  # happen once a run: one value has no spread

Key = tuple[str, str, int]  # backend, stage, batch


@dataclass(frozen=True)
class Change:
    """One figure of both reports. `size` orders changes of the same kind, the largest first."""

    stage: str
    backend: str
    batch: int | None
    what: str
    old: str
    new: str
    change: str
    status: Status
    noise: str = ""
    size: float = 0.0


def keyed(report: Report) -> dict[Key, Row]:
    """Rows by backend, stage and batch.

    Raises:
        WmdeployError: two rows are of the same.
    """
    rows: dict[Key, Row] = {}
    for row in report.rows:
        key = row.backend, row.stage, row.batch
        if key in rows:
            raise WmdeployError(
                f"a report has two rows of {row.backend}, {row.stage}, batch {row.batch}; give "
                "what wmdeploy bench --json wrote"
            )
        rows[key] = row
    return rows


def speed_changes(
    before: dict[Key, Row], after: dict[Key, Row], baseline: str, fail_on: float, same: bool
) -> list[Change]:
    """Times judged by their noise; the baseline's and single ones only told.

    Where the hardware is the same and both reports have rounds, these are matched; else it is the
    speed-ups that are compared.

    Args:
        baseline: its name; both reports have the same.
        fail_on: the smallest slowdown that counts, 0.05 for 5%.
        same: whether the hardware is; between machines an absolute time says nothing.
    """
    ratios: dict[Key, tuple[LogRatio, LogRatio]] = {}
    slowdowns: dict[Key, Slowdown] = {}
    changes = []
    for key in (key for key in before if key in after):
        (name, stage, batch), a, b = key, before[key], after[key]
        if not a.p50_ms or not b.p50_ms:
            continue
        base = (baseline, stage, batch)
        old, new = ratio_of(a, before.get(base)), ratio_of(b, after.get(base))
        if name == baseline or stage in SINGLE or old is None or new is None:
            if same:
                changes.append(_absolute(key, a.p50_ms, b.p50_ms, fail_on))
        else:
            ratios[key] = old, new
            rounds = [_rounds(r, rows.get(base)) for r, rows in ((a, before), (b, after))]
            if same and rounds[0] is not None and rounds[1] is not None:
                slowdowns[key] = matched_slowdown(rounds[0], rounds[1])
            else:
                slowdowns[key] = ratio_slowdown(old, new)
    for key, slowdown in slowdowns.items():
        noisy = before[key].noisy or after[key].noisy or slowdown.estimated
        chance = noise(slowdown, len(slowdowns))
        changes.append(_speed(key, *ratios[key], slowdown.log, chance, fail_on, noisy))
    return changes


def _rounds(row: Row, baseline: Row | None) -> np.ndarray | None:
    """(2, rounds), times of the baseline and of a backend; None where a report has none."""
    if baseline is None or len(row.round_ms) < FEWEST_SAMPLES:
        return None
    if len(baseline.round_ms) != len(row.round_ms):
        return None
    times = np.array([baseline.round_ms, row.round_ms])
    return times if np.isfinite(times).all() and (times > 0).all() else None


def _speed(
    key: Key,
    old: LogRatio,
    new: LogRatio,
    slower: float,
    chance: float,
    fail_on: float,
    noisy: bool,
) -> Change:
    """`slower` is above 0 if NEW takes longer; `chance` is how far from 0 it may lie without."""
    limit = math.log1p(fail_on)
    status: Status = "unchanged"
    if abs(slower) > max(limit, chance):
        status = "regression" if slower > 0 else "improvement"
    elif chance > limit and (noisy or abs(slower) > limit):
        status = "unclear"
    told = f"{math.exp(old.log):.2f}x", f"{math.exp(new.log):.2f}x", _slower(slower)
    noise_told = f"{math.expm1(chance):.1%}"
    return Change(key[1], key[0], key[2], "speed-up", *told, status, noise_told, abs(slower))


def _absolute(key: Key, old: float, new: float, fail_on: float) -> Change:
    name, stage, batch = key
    slower = math.log(new / old) if min(old, new) > 0 else 0.0
    status: Status = "information" if abs(slower) > math.log1p(fail_on) else "unchanged"
    told = _milliseconds(old), _milliseconds(new), _slower(slower)
    return Change(stage, name, batch, "p50 ms", *told, status, size=abs(slower))


def _slower(log: float) -> str:
    """0.0953 as `10.0% slower`: how much longer the same work takes, or took."""
    told = f"{math.expm1(abs(log)):.1%}"
    return told if told == "0.0%" else f"{told} {'slower' if log > 0 else 'faster'}"


def _milliseconds(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def memory_changes(
    before: dict[Key, Row], after: dict[Key, Row], baseline: str, tolerance: float, same: bool
) -> list[Change]:
    """Memory of each backend's process, where a whole frame was timed."""
    changes = []
    for key in (key for key in before if key in after):
        (name, stage, batch), a, b = key, before[key], after[key]
        old, new = a.memory_mb, b.memory_mb
        if stage != "frame" or old is None or new is None or min(old, new) <= 0:
            continue
        kinds = {row.memory.headline[1] for row in (a, b) if row.memory is not None}
        growth = new / old - 1
        status: Status = "unchanged"
        if growth > tolerance or growth < 1 / (1 + tolerance) - 1:
            judged = same and name != baseline and len(kinds) < 2  # else it was counted otherwise
            worse: Status = "regression" if growth > 0 else "improvement"
            status = worse if judged else "information"
        told = f"{old:.0f}", f"{new:.0f}", f"{growth:+.1%}"
        change = Change(
            stage, name, batch, "memory MB", *told, status, f"{tolerance:.0%}", abs(growth)
        )
        changes.append(change)
    return changes
