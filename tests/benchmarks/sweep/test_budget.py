"""Budgets as users write them."""

import pytest

from wmdeploy.benchmarks.sweep.budget import missed, parse_budget
from wmdeploy.errors import WmdeployError


def test_budget_reads_terms_and_units() -> None:
    limits = parse_budget("frame<33ms, memory <= 2GB,psnr>40, imagine<0.5s")
    assert [(limit.figure, limit.bound) for limit in limits] == [
        ("frame", 33), ("memory", 2000), ("psnr", 40), ("imagine", 500),
    ]  # fmt: skip
    assert limits[1].holds(2000) and not limits[0].holds(33) and not limits[2].holds(None)
    assert missed(limits, {"frame": 40.0, "memory": 1.0, "psnr": None, "imagine": 1.0}) == [
        "frame < 33 ms (is 40)", "psnr > 40 dB (is unknown)",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "got ''"),
        ("frame=33", "got 'frame=33'"),
        ("frame<1.2.3ms", "got 'frame<1.2.3ms'"),
        ("speed<3", "figure 'speed', expected one of frame, imagine"),
        ("memory<3ms", "got 'ms' for memory, expected MB or GB"),
    ],
)
def test_budget_that_says_nothing_is_refused(text: str, message: str) -> None:
    with pytest.raises(WmdeployError, match=message):
        parse_budget(text)
