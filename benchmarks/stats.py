"""A speed-up with its interval or error, and how large a change must be to be no chance.

It knows rows and intervals, not what is compared with what: that is `compare/run.py`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from wmdeploy.benchmarks.report import Row
from wmdeploy.benchmarks.resampling import resamples

FALSE_ALARMS = 0.01  # of comparisons in which nothing changed, all rows together
BETWEEN_RUNS = 0.005  # relative; what differs from process to process, which no interval sees
# Runs of the same thing on a shared machine lie further apart than their intervals say: states of
# the machine last for minutes, and a run sees few of them (docs/performance.md has the figures).
TOO_NARROW = 2.0
FEWEST_SAMPLES = 5  # to estimate an interval from
INTERVAL_RESAMPLES = 2000
ERROR_RESAMPLES = 1000  # where a report has no intervals
_NORMAL = NormalDist()
_INTERVAL = 2 * _NORMAL.inv_cdf(0.975)  # width of a 95% interval in standard errors


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

    Attributes:
        log: natural logarithm.
        error: standard error of `log`.
        estimated: from samples of an old report, not from rounds that were paired.
    """

    log: float
    error: float
    estimated: bool = False

    def over(self, other: "LogValue") -> "LogValue":
        """The quotient of two that were measured on their own."""
        error = math.hypot(self.error, other.error)
        return LogValue(self.log - other.log, error, self.estimated or other.estimated)


def ratio_of(row: Row, baseline: Row | None) -> LogValue | None:
    """A row's speed-up; None where its spread is not known, as of single values.

    Args:
        baseline: the baseline's row of the same stage and batch, for reports without intervals.
    """
    speedup, low, high = row.speedup, row.speedup_low, row.speedup_high
    if speedup and low and high and 0 < low <= high and _positive(speedup, low, high):
        return LogValue(math.log(speedup), math.log(high / low) / _INTERVAL)
    if baseline is None or min(len(row.samples_ms), len(baseline.samples_ms)) < FEWEST_SAMPLES:
        return None
    if not _positive(*row.samples_ms, *baseline.samples_ms):
        return None
    medians = float(np.median(baseline.samples_ms) / np.median(row.samples_ms))
    errors = (_median_error(baseline.samples_ms), _median_error(row.samples_ms))
    return LogValue(math.log(medians), math.hypot(*errors), estimated=True)


def noise(slowdown: LogValue, rows: int) -> float:
    """How far a slowdown's logarithm may lie from 0 by chance.

    One-sided, and shared among all rows (Bonferroni), so that of a hundred comparisons of equal
    things about `FALSE_ALARMS` of a hundred has any row beyond it.
    """
    error = math.hypot(TOO_NARROW * slowdown.error, BETWEEN_RUNS, BETWEEN_RUNS)
    return _NORMAL.inv_cdf(1 - FALSE_ALARMS / max(1, rows)) * error


def _median_error(samples: Sequence[float]) -> float:
    """Standard error of the logarithm of the median."""
    drawn = np.asarray(samples)[resamples(len(samples), ERROR_RESAMPLES)]
    return float(np.log(np.median(drawn, axis=1)).std())


def _positive(*values: float) -> bool:
    return all(math.isfinite(value) and value > 0 for value in values)
