"""The one place that reads a clock: warm up, synchronize, clock, run, synchronize."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Effort:
    """How long one stage is repeated: at least `runs`, then until `seconds` are over."""

    runs: int = 5
    seconds: float = 3.0
    warmup: int = 2
    most_runs: int = 500


def measure(
    run: Callable[[], object],
    synchronize: Callable[[], None],
    effort: Effort,
    prepare: Callable[[], object] = lambda: None,
) -> list[float]:
    """Wall time of each run in ms, raw.

    Args:
        prepare: called before each run, off the clock.
    """
    for _ in range(effort.warmup):
        prepare()
        run()
    synchronize()
    samples: list[float] = []
    spent = 0.0
    while len(samples) < effort.runs or (
        spent < effort.seconds * 1e3 and len(samples) < effort.most_runs
    ):
        prepare()
        synchronize()
        start = time.perf_counter()
        run()
        synchronize()
        samples.append((time.perf_counter() - start) * 1e3)
        spent += samples[-1]
    return samples


def percentile(samples: list[float], q: float) -> float:
    """Linear interpolation between the nearest ranks, as numpy does it."""
    return float(np.percentile(samples, q))
