"""A speed-up with its interval or error, and how large a change must be to be no chance.

It knows intervals, not what is compared with what: that is `compare/run.py`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

FALSE_ALARMS = 0.01  # of comparisons in which nothing changed, all rows together
BETWEEN_RUNS = 0.005  # relative; what differs from process to process, which no interval sees
# Runs of the same thing on a shared machine lie further apart than their intervals say: states of
# the machine last for minutes, and a run sees few of them (docs/performance.md has the figures).
TOO_NARROW = 2.0
INTERVAL_RESAMPLES = 2000
_NORMAL = NormalDist()


@dataclass(frozen=True)
class Ratio:
    """How many times faster than the baseline, with a 95% interval."""

    value: float
    low: float
    high: float

    @property
    def precision(self) -> float:
        """Half the interval's width, relative to the value."""
        return (self.high - self.low) / 2 / self.value


def ratio(baseline_ms: Sequence[float], own_ms: Sequence[float]) -> Ratio:
    """The median over rounds of the baseline's time over this one's, bootstrapped over rounds."""
    each = np.asarray(baseline_ms) / np.asarray(own_ms)
    drawn = each[resamples(len(each), INTERVAL_RESAMPLES)]
    low, high = np.percentile(np.median(drawn, axis=1), [2.5, 97.5])
    return Ratio(float(np.median(each)), float(low), float(high))


@dataclass(frozen=True)
class LogValue:
    """A quotient of times: of a baseline and a backend, or of a backend in two reports.

    `log` is its natural logarithm, `error` the standard error of that.
    """

    log: float
    error: float

    @staticmethod
    def of_interval(value: float, low: float, high: float) -> "LogValue":
        """A value and its 95% interval, all above 0."""
        width = 2 * _NORMAL.inv_cdf(0.975)  # in standard errors
        return LogValue(math.log(value), math.log(high / low) / width)

    def over(self, other: "LogValue") -> "LogValue":
        """The quotient of two that were measured on their own."""
        return LogValue(self.log - other.log, math.hypot(self.error, other.error))


def noise(slowdown: LogValue, rows: int) -> float:
    """How far a slowdown's logarithm may lie from 0 by chance.

    One-sided, and shared among all rows (Bonferroni), so that of a hundred comparisons of equal
    things about `FALSE_ALARMS` of a hundred has any row beyond it.
    """
    error = math.hypot(TOO_NARROW * slowdown.error, BETWEEN_RUNS, BETWEEN_RUNS)
    return _NORMAL.inv_cdf(1 - FALSE_ALARMS / max(1, rows)) * error


def percentile(samples: list[float], q: float) -> float:
    """Linear interpolation between the nearest ranks, as numpy does it."""
    return float(np.percentile(samples, q))


def resamples(count: int, times: int, seed: int = 0) -> np.ndarray:
    """Indices of as many resamples of `count` values, (times, count); the same ones of a seed.

    What follows each other in time is alike, and drawn one by one it would look more certain than
    it is. Drawn are therefore blocks of neighbours, the first following the last: the circular
    block bootstrap (Politis and Romano, "A circular block-resampling procedure for stationary
    data", 1992), with blocks of n^(1/3) (Hall, Horowitz and Jing, "On blocking rules for the
    bootstrap with dependent data", 1995).
    """
    block = round(count ** (1 / 3))
    starts = np.random.default_rng(seed).integers(0, count, (times, math.ceil(count / block), 1))
    return ((starts + np.arange(block)) % count).reshape(times, -1)[:, :count]
