"""Rows of a pool: bit for bit what each would be alone, whatever its neighbours do."""

import threading
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from tests.programs.conftest import Backends
from tests.programs.schedules import ROWS, SCHEDULES, Rows, Schedule
from wmdeploy.errors import BackendError
from wmdeploy.programs.engine import Backend
from wmdeploy.programs.pool import Pool
from wmdeploy.programs.record import recording

NAMES = [
    "token",
    "latent",
    "mean-pool",
    "sampled",
    "recurrent-like",
    "token on ort-cpu",
    "sampled on ort-cpu",
    "recurrent-like on ort-cpu",
]


def frames_for(backend: Backend) -> np.ndarray:
    from wmdeploy.clips.read import SAMPLE_CLIP, read_clip

    return read_clip(SAMPLE_CLIP, size=backend.image_size, count=40).frames


@pytest.mark.parametrize("name", NAMES)
def test_a_row_is_what_it_would_be_alone(name: str, backends: Backends) -> None:
    check_schedules(backends(name), examples=15, levels=0 if "ort" in name else 1)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_row_is_what_it_would_be_alone_in_hundreds_of_schedules(
    name: str, backends: Backends
) -> None:
    check_schedules(backends(name), examples=100, levels=0 if "ort" in name else 1)


def check_schedules(backend: Backend, examples: int, levels: int) -> None:
    frames = frames_for(backend)

    @settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(SCHEDULES)
    def check(schedule: Schedule) -> None:
        rows = Rows(backend, frames, levels=levels)
        for verb, bits, number in [("add", 1, 3), ("add", 1, 8), *schedule]:
            rows.go(verb, bits, number)
        rows.go("step", 2**ROWS - 1, 0)

    check()


def test_with_refill(backends: Backends) -> None:
    backend = backends("token")
    frames = frames_for(backend)

    @settings(max_examples=15, deadline=None, derandomize=True)
    @given(SCHEDULES)
    def check(schedule: Schedule) -> None:
        rows = Rows(backend, frames, refill=3)
        for verb, bits, number in [("add", 1, 5), ("add", 1, 2), *schedule]:
            rows.go(verb, bits, number)

    check()


def test_a_pool_belongs_to_one_thread(backends: Backends) -> None:
    backend = backends("recurrent-like")
    pool = Pool(backend, 1)
    pool.add(frames_for(backend)[:1])
    found: list[str] = []

    def other() -> None:
        try:
            pool.step([0], np.zeros((1, 2), np.float32))
        except BackendError as error:
            found.append(str(error))

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert "belong to one thread" in found[0]
    pool.step([0], np.zeros((1, 2), np.float32))  # the first one goes on


def test_a_reset_may_give_rows_other_noise(backends: Backends) -> None:
    backend = backends("sampled")
    frames = frames_for(backend)[:1]

    def imagined(*streams: int) -> np.ndarray:
        pool.reset([0, 1], frames, streams=streams or None)
        return np.stack([pool.step([0, 1], np.array([0, 0])) for _ in range(6)], 1)

    pool = Pool(backend, 2)
    rows = pool.add(frames), pool.add(frames, stream=7)
    assert rows == (0, 1)
    before = imagined()
    np.testing.assert_array_equal(imagined(7, 0), before[::-1])
    np.testing.assert_array_equal(imagined(), before[::-1])  # those that they had
    other = imagined(8, 9)
    assert (other != before).any() and (other != before[::-1]).any()
    with pytest.raises(BackendError, match="got 1 streams, expected one for 2 rows"):
        imagined(5)


def test_rows_may_be_given_in_any_order(backends: Backends) -> None:
    backend = backends("token")
    frames = frames_for(backend)
    pool, other = Pool(backend, 2), Pool(backend, 2)
    for each in (pool, other):
        each.add(frames[:3], np.array([0, 1]))
        each.add(frames[20:23], np.array([2, 1]))
    for at in range(12):  # past the window
        actions = np.array([at % 3, (at + 1) % 3])
        backwards = pool.step([1, 0], actions[::-1])
        np.testing.assert_allclose(
            backwards[::-1].astype(int), other.step([0, 1], actions).astype(int), atol=1
        )
        pool.observe([1, 0], frames[[31 + at % 3, 30]])
        other.observe([0, 1], frames[[30, 31 + at % 3]])


def test_a_new_row_is_fed_nothing_of_the_one_before(backends: Backends) -> None:
    """Its first frame follows no action, not the last one of who was there."""
    backend = backends("sampled")
    fed: list[int] = []

    def note(name: str, feeds: Mapping[str, Any], outputs: Mapping[str, Any]) -> None:
        if name == "absorb":
            fed.append(int(feeds["action"][0]))

    pool = Pool(recording(backend, note), 1)
    frames = frames_for(backend)
    pool.add(frames[:1])
    pool.step([0], np.array([2]))
    pool.remove(0)
    pool.add(frames[5:7], np.array([1]))
    assert fed == [0, 0, 1]


def test_actions_for_other_rows_than_those_observed_are_refused(backends: Backends) -> None:
    backend = backends("token")
    pool = Pool(backend, 3)
    for _ in range(3):
        pool.add(frames_for(backend)[:2], np.array([0]))
    with pytest.raises(BackendError, match=r"got actions int64 \(2,\)"):
        pool.observe([0, 1, 2], frames_for(backend)[:3], np.array([1, 2]))
