"""Times of a stage: warm up, then prepare, synchronize, clock, run, synchronize.

It times one thing in one process; who takes turns with whom is decided in `bench/interleave.py`.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

from wmdeploy.benchmarks.protocol import Samples

FEWEST_WARMUPS, MOST_WARMUPS = 3, 50
WARMUP_SECONDS = 10.0
STILL_FASTER = 0.98  # of the best time before: a run below that says that it is not warm yet


@dataclass(frozen=True)
class Workload:
    """What is timed. `prepare` is called before each run, off the clock."""

    run: Callable[[], object]
    synchronize: Callable[[], None]
    prepare: Callable[[], object] = lambda: None
    on_gpu: bool = False


def measure(workload: Workload, runs: int) -> Samples:
    """Time `runs` runs; on a GPU also between CUDA events before and after each, on its stream."""
    timed = _on_gpu if workload.on_gpu else _on_host
    wall: list[float] = []
    device: list[float] = []
    for _ in range(runs):
        workload.prepare()
        workload.synchronize()
        milliseconds, between_events = timed(workload.run, workload.synchronize)
        wall.append(milliseconds)
        device += between_events
    return Samples(wall, device if workload.on_gpu else None)


def warm_up(once: Callable[[], float]) -> list[float]:
    """Run until it gets no faster: neither of the newest two beats the best before them by 2%.

    Args:
        once: one run, and the ms that it took.

    Returns:
        The ms of each run: 3 to 50, or fewer than 50 where 10 s were over.
    """
    times: list[float] = []
    while len(times) < MOST_WARMUPS:
        times.append(once())
        if len(times) < FEWEST_WARMUPS:
            continue
        if min(times[-2:]) >= STILL_FASTER * min(times[:-2]) or sum(times) > WARMUP_SECONDS * 1e3:
            break
    return times


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
