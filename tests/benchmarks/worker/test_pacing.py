"""Frames at a fixed rate, on a clock of the test's own."""

from collections.abc import Sequence

import numpy as np
import pytest

from wmdeploy.benchmarks.worker.fixed_rate import run_at_rate


class Clock:
    """Time that passes where somebody sleeps, looks, or works."""

    def __init__(self, work: Sequence[float]) -> None:
        self.now, self.work, self.begun = 0.0, iter(work), list[float]()

    def __call__(self) -> float:
        self.now += 1e-6
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def step(self) -> None:
        self.begun.append(self.now)
        self.now += next(self.work)


def test_pace_keeps_due_times_after_a_late_frame() -> None:
    clock = Clock([0.01, 0.15, 0.01, 0.01, 0.01])
    times = run_at_rate(clock.step, 10, 0.5, clock, clock.sleep)
    assert (times.frames, times.misses) == (5, 1)
    # the third is held up by the second, the fourth begins when it is due
    assert clock.begun == pytest.approx([0, 0.1, 0.25, 0.3, 0.4], abs=1e-4)
    assert times.latency_ms == pytest.approx([10, 150, 60, 10, 10], abs=0.1)
    assert times.jitter_ms == pytest.approx(1e3 * np.std([0.24, 0.01, 0.05, 0.1]), abs=0.1)


def test_pace_counts_frames_that_never_came() -> None:
    clock = Clock([1.0] * 20)
    times = run_at_rate(clock.step, 10, 2, clock, clock.sleep)
    assert (times.frames, len(times.latency_ms), times.misses) == (20, 2, 20)
