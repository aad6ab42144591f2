"""Intervals of ratios by bootstrap."""

import numpy as np

from wmdeploy.benchmarks.environment import Effort
from wmdeploy.benchmarks.stats import ratio


def test_ratio_interval_holds_the_truth_nearly_as_often_as_it_says() -> None:
    random = np.random.default_rng(1)
    for count, least in ((Effort().runs, 0.82), (60, 0.9)):  # of few rounds it is too narrow
        both = random.normal(10, 0.5, (200, 2, count)).tolist()
        found = [ratio(a, b) for a, b in both]
        assert least < np.mean([r.low <= 1 <= r.high for r in found]) < 0.99
    a, b = both[0]
    assert ratio(a, b) == ratio(a, b)  # the same samples give the same figures


def test_interval_is_wider_where_what_disturbs_lasts_for_some_rounds() -> None:
    noise = np.random.default_rng(3).normal(0, 0.05, 400)
    lasting = np.convolve(noise, np.ones(6) / np.sqrt(6), mode="same")  # as strong, but six long
    brief, long = (ratio(np.exp(kind).tolist(), [1.0] * 400) for kind in (noise, lasting))
    assert long.precision > 1.7 * brief.precision
