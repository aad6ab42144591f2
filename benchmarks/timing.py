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


@dataclass(frozen=True)
class Samples:
    """Raw times of each run in ms: `wall` end to end, `device` between two CUDA events."""

    wall: list[float]
    device: list[float] | None = None


def measure(
    run: Callable[[], object],
    synchronize: Callable[[], None],
    effort: Effort,
    prepare: Callable[[], object] = lambda: None,
    on_gpu: bool = False,
) -> Samples:
    """Time `run` again and again.

    Args:
        prepare: called before each run, off the clock.
        on_gpu: also put CUDA events before and after each run on the current stream.
    """
    for _ in range(effort.warmup):
        prepare()
        run()
    synchronize()
    timed = _on_gpu if on_gpu else _on_host
    wall: list[float] = []
    device: list[float] = []
    spent = 0.0
    while len(wall) < effort.runs or (
        spent < effort.seconds * 1e3 and len(wall) < effort.most_runs
    ):
        prepare()
        synchronize()
        milliseconds, between_events = timed(run, synchronize)
        wall.append(milliseconds)
        device += between_events
        spent += milliseconds
    return Samples(wall, device if on_gpu else None)


def _on_host(
    run: Callable[[], object], synchronize: Callable[[], None]
) -> tuple[float, list[float]]:
    start = time.perf_counter()
    run()
    synchronize()
    return (time.perf_counter() - start) * 1e3, []


def _on_gpu(
    run: Callable[[], object], synchronize: Callable[[], None]
) -> tuple[float, list[float]]:
    import torch

    before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start = time.perf_counter()
    before.record()
    run()
    after.record()
    synchronize()
    return (time.perf_counter() - start) * 1e3, [before.elapsed_time(after)]


def percentile(samples: list[float], q: float) -> float:
    """Linear interpolation between the nearest ranks, as numpy does it."""
    return float(np.percentile(samples, q))
