"""Rounds of two reports at an equal state of the machine."""

import math

import numpy as np
import pytest

from wmdeploy.benchmarks.compare.equal_state import slowdown_at_equal_state
from wmdeploy.benchmarks.stats import noise


def rounds_of_a_neighbour(seed: int, busy: float, slower: float = 1.0) -> np.ndarray:
    """(2, rounds): a neighbour that comes and goes costs the baseline 30%, a backend 10%."""
    rng = np.random.default_rng(seed)
    state = rng.random(60) < busy
    own = 19 * slower * np.where(state, 1.1, 1) * np.exp(rng.normal(0, 0.02, 60))
    return np.array([22 * np.where(state, 1.3, 1) * np.exp(rng.normal(0, 0.02, 60)), own])


def test_a_busier_neighbour_is_no_change() -> None:
    quiet, busy = rounds_of_a_neighbour(0, 0.2), rounds_of_a_neighbour(1, 0.8)
    ratios = [np.median(base / own) for base, own in (quiet, busy)]
    assert ratios[1] > 1.15 * ratios[0]
    found = slowdown_at_equal_state(quiet, busy)
    assert abs(found.log) < 0.02 and abs(found.log) < 4 * found.error
    back = slowdown_at_equal_state(busy, quiet)
    assert abs(back.log) < 0.02  # where the ratio alone says 15% slower
    slower = slowdown_at_equal_state(busy, quiet * [[1], [1.1]])
    assert slower.log == pytest.approx(math.log(1.1), abs=0.02)
    assert slower.log > noise(slower, rows=20)


def test_bursts_in_one_block_of_a_round_hardly_count() -> None:
    old, new = rounds_of_a_neighbour(0, 0.5), rounds_of_a_neighbour(1, 0.5)
    before = slowdown_at_equal_state(old, new).log
    new[1, ::8] *= 4
    assert slowdown_at_equal_state(old, new).log == pytest.approx(before, abs=0.02)


def test_a_baseline_that_never_varies_has_no_slope() -> None:
    old = np.array([[10.0] * 20, np.random.default_rng(0).normal(5, 0.1, 20)])
    found = slowdown_at_equal_state(old, old * [[1], [1.1]])
    assert found.log == pytest.approx(math.log(1.1)) and 0 < found.error < 0.02
