"""Backends that take turns at one stage, and the ratio of their times with its interval.

A shared machine is slow for seconds and fast for seconds. Two backends that are timed one after the
other are compared across such a change; here each round has a block of each, and the ratio is taken
round by round. Processes are not known here: `ask` is whoever passes commands on.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import numpy as np

from benchmarks.protocol import Block, Command, Timed, Warm, Warmed
from benchmarks.timing import Effort, Samples, percentile
from wmdeploy.gpu import GpuState

MOST_RUNS = 50  # of one block
MOST_ROUNDS = 100
SLOW_ROUND = 2.0  # seconds; a stage whose rounds are longer needs fewer of them
SLOW_ROUNDS = 5
# OpenMP's threads go on looking for work for some ms, on the cores that the next backend needs
SETTLE_SECONDS = 0.02
RESAMPLES = 2000
Kind = TypeVar("Kind")


class Ask(Protocol):
    """An answer of the backend of that label; None if it is dead."""

    def __call__(
        self, label: str, command: Command, kind: type[Kind], doing: str
    ) -> Kind | None: ...


@dataclass
class Run:
    """One backend at one stage and batch size: raw times, and the GPU's clocks at the end.

    `round_ms` is empty where there was one run only.
    """

    stage: str
    batch: int
    samples: Samples
    gpu: GpuState | None = None
    warmup: int | None = None
    round_ms: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Ratio:
    """How many times faster than the baseline, with a 95% interval."""

    value: float
    low: float
    high: float

    @property
    def precision(self) -> float:
        """Half the interval's width, relative to the value."""
        return (self.high - self.low) / 2 / self.value


def ratio(baseline_ms: Sequence[float], own_ms: Sequence[float]) -> Ratio:
    """The median over rounds of the baseline's time over this one's, bootstrapped over rounds."""
    each = np.asarray(baseline_ms) / np.asarray(own_ms)
    drawn = np.random.default_rng(0).integers(len(each), size=(RESAMPLES, len(each)))
    low, high = np.percentile(np.median(each[drawn], axis=1), [2.5, 97.5])
    return Ratio(float(np.median(each)), float(low), float(high))


def race(
    ask: Ask,
    labels: Sequence[str],
    stage: str,
    batch: int,
    effort: Effort,
    clock: Callable[[], float] = time.monotonic,
) -> dict[str, Run]:
    """Time a stage of several backends in turns.

    Args:
        labels: those that have the stage; the first is the one that others are compared with.

    Returns:
        A run for each that is alive at the end; their rounds are the same.
    """
    doing = stage if batch == 1 else f"{stage}, batch {batch}"
    runs: dict[str, Run] = {}
    blocks: dict[str, Block] = {}
    for label in labels:
        warmed = ask(label, Warm(stage, batch), Warmed, f"{doing}: warm up")
        if warmed is not None:
            runs[label] = Run(stage, batch, Samples([]), warmup=warmed.runs)
            fitting = round(effort.block_ms / warmed.newest_ms)
            blocks[label] = Block(min(MOST_RUNS, max(1, fitting)))
    warm = clock()
    turn = list(runs)
    done = 0
    while turn and not _enough(list(runs.values()), done, clock() - warm, effort):
        for label in [*turn[done % len(turn) :], *turn[: done % len(turn)]]:
            timed = ask(label, blocks[label], Timed, f"{doing}: round {done + 1}")
            if timed is None:
                del runs[label]
            else:
                _add(runs[label], timed)
            time.sleep(SETTLE_SECONDS)
        turn = list(runs)
        done += 1
    return runs


def _add(run: Run, timed: Timed) -> None:
    device = timed.samples.device
    if device is not None:
        device = [*(run.samples.device or []), *device]
    run.samples = Samples([*run.samples.wall, *timed.samples.wall], device)
    run.round_ms.append(percentile(timed.samples.wall, 50))
    run.gpu = timed.gpu


def _enough(runs: list[Run], done: int, spent: float, effort: Effort) -> bool:
    """Whether the ratios are known well enough, or the time is over."""
    slow = done > 0 and spent / done > SLOW_ROUND
    if done < (min(effort.runs, SLOW_ROUNDS) if slow else effort.runs):
        return False
    if spent >= effort.seconds * len(runs) or done >= MOST_ROUNDS:
        return True
    first, *others = runs
    return all(ratio(first.round_ms, r.round_ms).precision <= effort.precision for r in others)
