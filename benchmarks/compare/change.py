"""One figure of two reports: how it changed in speed and memory, and whether that is a regression.

Parity is in `wmdeploy.benchmarks.compare.parity`.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from wmdeploy.benchmarks.compare.equal_state import FEWEST_ROUNDS, slowdown_at_equal_state
from wmdeploy.benchmarks.report import MOST_POOLED, MOST_ROUNDS, Key, Row
from wmdeploy.benchmarks.stages import find_stage
from wmdeploy.benchmarks.stats import LogValue, noise

Status = Literal["regression", "improvement", "unclear", "information", "unchanged"]
LEAST_MEMORY = 0.05  # allocators and libraries differ by less from run to run
# the largest change that is written as a figure; only a damaged report has more
LARGEST = 1_000_000
LARGEST_LOG = math.log(LARGEST)


@dataclass(frozen=True, kw_only=True)
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


def speed_changes(
    before: dict[Key, Row], after: dict[Key, Row], baseline: str, fail_on: float, same: bool
) -> list[Change]:
    """Times judged by their noise; the baseline's and single ones are information.

    Where the hardware is the same and both reports have rounds, these are compared at an
    equal state of the machine; else the speed-ups are.

    Args:
        baseline: its name; both reports have the same.
        fail_on: the smallest slowdown that counts, 0.05 for 5%.
        same: whether the hardware is; between machines an absolute time says nothing.
    """
    slowdowns: dict[Key, tuple[LogValue, LogValue, LogValue]] = {}
    changes = []
    for key in (key for key in before if key in after):
        (name, stage, batch), a, b = key, before[key], after[key]
        if not a.p50_ms or not b.p50_ms:
            continue
        base = (baseline, stage, batch)
        old, new = speed_up_of(a), speed_up_of(b)
        if name == baseline or find_stage(stage).once or old is None or new is None:
            if same:
                changes.append(_absolute(key, a.p50_ms, b.p50_ms, fail_on))
            continue
        rounds = _rounds(a, before.get(base)), _rounds(b, after.get(base))
        if same and rounds[0] is not None and rounds[1] is not None:
            slowdowns[key] = old, new, slowdown_at_equal_state(rounds[0], rounds[1])
        else:
            slowdowns[key] = old, new, old.over(new)
    for key, (old, new, slowdown) in slowdowns.items():
        noisy = before[key].noisy or after[key].noisy
        chance = noise(slowdown, len(slowdowns))
        figures = f"{_times(old)}x", f"{_times(new)}x"
        changes.append(_speed(key, figures, slowdown.log, chance, (fail_on, noisy)))
    return changes


def _rounds(row: Row, baseline: Row | None) -> np.ndarray | None:
    """(2, rounds), times of the baseline and of a backend; None where they make no line."""
    if baseline is None or len(baseline.round_ms) != len(row.round_ms):
        return None
    times = np.array([baseline.round_ms, row.round_ms])
    if not FEWEST_ROUNDS <= times.shape[1] <= MOST_ROUNDS * MOST_POOLED:
        return None
    return times if np.isfinite(times).all() and (times > 0).all() else None


def _speed(
    key: Key, figures: tuple[str, str], slower: float, chance: float, limits: tuple[float, bool]
) -> Change:
    """`slower` is above 0 if NEW takes longer; `chance` is how far from 0 it may lie without.

    Args:
        limits: the smallest slowdown that counts, 0.05 for 5%; whether a row was noisy.
    """
    name, stage, batch = key
    fail_on, noisy = limits
    limit = math.log1p(fail_on)
    status: Status = "unchanged"
    if abs(slower) > max(limit, chance):
        status = "regression" if slower > 0 else "improvement"
    elif chance > limit and (noisy or abs(slower) > limit):
        status = "unclear"
    return Change(
        stage=stage,
        backend=name,
        batch=batch,
        what="speed-up",
        old=figures[0],
        new=figures[1],
        change=_slower(slower),
        status=status,
        noise=_percent(chance),
        size=abs(slower),
    )


def _absolute(key: Key, old: float, new: float, fail_on: float) -> Change:
    name, stage, batch = key
    slower = math.log(new / old) if min(old, new) > 0 else 0.0
    status: Status = "information" if abs(slower) > math.log1p(fail_on) else "unchanged"
    return Change(
        stage=stage,
        backend=name,
        batch=batch,
        what="p50 ms",
        old=_milliseconds(old),
        new=_milliseconds(new),
        change=_slower(slower),
        status=status,
        size=abs(slower),
    )


def _slower(log: float) -> str:
    """0.0953 as `10.0% slower`: how much longer the same work takes, or took."""
    percent = _percent(abs(log))
    return percent if percent == "0.0%" else f"{percent} {'slower' if log > 0 else 'faster'}"


def _percent(log: float) -> str:
    return f"{math.expm1(log):.1%}" if log < LARGEST_LOG else f"over {LARGEST:,.0%}"


def _times(ratio: LogValue) -> str:
    return f"{math.exp(ratio.log):.2f}" if ratio.log < LARGEST_LOG else f"over {LARGEST:,}"


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
            comparable = (
                same and name != baseline and len(kinds) < 2
            )  # else it was counted otherwise
            worse: Status = "regression" if growth > 0 else "improvement"
            status = worse if comparable else "information"
        changes.append(
            Change(
                stage=stage,
                backend=name,
                batch=batch,
                what="memory MB",
                old=f"{old:.0f}",
                new=f"{new:.0f}",
                change=f"{growth:+.1%}",
                status=status,
                noise=f"{tolerance:.0%}",
                size=abs(growth),
            )
        )
    return changes


def speed_up_of(row: Row) -> LogValue | None:
    """A row's speed-up; None where its spread is not measured, as of single values."""
    speedup, low, high = row.speedup, row.speedup_low, row.speedup_high
    if not speedup or not low or not high:
        return None
    if not all(math.isfinite(value) and value > 0 for value in (speedup, low, high)) or low > high:
        return None
    return LogValue.of_interval(speedup, low, high)
