"""How much longer a backend takes at an equal state of the machine: rounds of two reports.

A neighbour on a shared machine slows baseline and backend down, but not alike, so that their ratio
moves with it. In a plot of log(backend's time) over log(baseline's time in the same round), both
reports' rounds lie on one line; a backend that has changed makes a step between them. That step is
estimated (an analysis of covariance), robustly, as a burst may hit one block of a round only.
"""

import numpy as np

from benchmarks.ratio import Slowdown
from benchmarks.resampling import resamples

RESAMPLES = 200
HUBER = 1.345  # in standard deviations; 95% efficient where there are no outliers
ITERATIONS = 12
_MAD = 1.4826  # of a normal distribution: standard deviation over median absolute deviation


def matched_slowdown(old: np.ndarray, new: np.ndarray) -> Slowdown:
    """The step between two reports at one stage, and its error by bootstrap over rounds.

    Args:
        old, new: (2, rounds), times of the baseline and of the backend in the same rounds, > 0.
    """
    draws = [resamples(times.shape[1], RESAMPLES, seed) for seed, times in enumerate((old, new))]
    whole = [np.log(times)[:, None] for times in (old, new)]
    drawn = [np.log(times)[:, draw] for times, draw in zip((old, new), draws, strict=True)]
    return Slowdown(float(_step(*whole)[0]), float(_step(*drawn).std()))


def _step(old: np.ndarray, new: np.ndarray) -> np.ndarray:
    """(2, times, rounds) each -> (times): the step of the line own = a + b * baseline + step * new.

    Weighted least squares whose weights are those of Huber ("Robust estimation of a location
    parameter", 1964), again and again.
    """
    x, y = np.concatenate((old, new), axis=-1)
    is_new = np.zeros_like(x)
    is_new[:, old.shape[-1] :] = 1
    columns = np.stack((np.ones_like(x), x - x.mean(axis=-1, keepdims=True), is_new), axis=-1)
    weights = np.ones_like(y)
    for _ in range(ITERATIONS):
        weighted = columns * weights[..., None]
        # the pseudo-inverse: where the baseline never varies, its slope stays 0
        inverse = np.linalg.pinv(weighted.swapaxes(-1, -2) @ columns, hermitian=True)
        found = inverse @ (weighted.swapaxes(-1, -2) @ y[..., None])
        off = np.abs(y - (columns @ found)[..., 0])
        near = HUBER * _MAD * np.median(off, axis=-1, keepdims=True)
        weights = np.divide(near, off, out=np.ones_like(off), where=off > near)
    steps: np.ndarray = found[..., 2, 0]
    return steps
