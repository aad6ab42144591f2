"""Frames asked for at a fixed rate, as a game asks: the machine idles in between, and clocks down.

What is asked for is known beforehand: frame i is due to be begun at start + i / fps, whatever
became of those before it. One that is late holds up the next; both are measured from when they were
due.
"""

import time
from collections.abc import Callable

import numpy as np

from wmdeploy.benchmarks.protocol import FixedRateTimes

SPIN_SECONDS = 0.001  # the last bit of a wait: sleep comes back late
FEWEST_FRAMES = 2


def run_at_rate(
    step: Callable[[], object],
    fps: float,
    seconds: float,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
) -> FixedRateTimes:
    """Call `step` at a fixed rate; what was not even begun when the time was over was missed.

    Args:
        step: makes one frame, and has finished when it returns.
    """
    asked = max(FEWEST_FRAMES, round(fps * seconds))
    ready: list[float] = []
    latency: list[float] = []
    start = clock()
    for number in range(asked):
        due = start + number / fps
        _wait(due, clock, sleep)
        if number >= FEWEST_FRAMES and clock() > start + asked / fps:
            break
        step()
        ready.append(clock())
        latency.append((ready[-1] - due) * 1e3)
    late = sum(ms > 1e3 / fps for ms in latency)
    return FixedRateTimes(
        frames=asked,
        misses=late + asked - len(latency),
        jitter_ms=float(np.std(np.diff(ready))) * 1e3,
        latency_ms=latency,
    )


def _wait(due: float, clock: Callable[[], float], sleep: Callable[[float], None]) -> None:
    left = due - clock()
    if left > SPIN_SECONDS:
        sleep(left - SPIN_SECONDS)
    while clock() < due:
        pass
