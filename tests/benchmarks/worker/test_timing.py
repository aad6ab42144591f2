"""One run timed, and how long the warm-up lasts."""

import pytest

from wmdeploy.benchmarks.worker.timing import MOST_WARMUPS, Workload, measure, warm_up


def test_measure_keeps_raw_values_and_prepares_off_the_clock() -> None:
    calls: list[str] = []
    workload = Workload(
        lambda: calls.append("run"),
        lambda: calls.append("sync"),
        lambda: calls.append("prepare"),
    )
    samples = measure(workload, 2)
    assert len(samples.wall) == 2 and all(0 < s < 1000 for s in samples.wall)
    assert samples.device is None
    assert calls == ["prepare", "sync", "run", "sync"] * 2


@pytest.mark.parametrize(
    ("times", "runs"),
    [
        ([5.0, 5.0, 5.0, 1.0], 3),
        ([900.0, 20.0, 10.0, 9.9, 9.9, 1.0], 5),  # 9.9 is no faster than 0.98 of 10
        ([6.0, 5.0, 4.0, 3.0, 2.0, 1.0, 1.0, 1.0, 0.1], 8),
        ([0.9**n for n in range(99)], MOST_WARMUPS),
        ([9000 * 0.9**n for n in range(99)], 3),  # more than 10 s are over
    ],
)
def test_warm_up_ends_when_it_gets_no_faster(times: list[float], runs: int) -> None:
    left = iter(times)
    assert warm_up(lambda: next(left)) == times[:runs]
