"""How much longer a backend takes at an equal state of the machine: rounds of two reports.

A neighbour on a shared machine slows baseline and backend down, but not alike, so that their ratio
moves with it. In a plot of log(backend's time) over log(baseline's time in the same round), both
reports' rounds lie on one line; a backend that has changed makes a step between them. That step is
estimated (an analysis of covariance), robustly, as a burst may hit one block of a round only.

The line is too flat where rounds scatter each on its own, and then takes an evenly slower machine
for a step, which the ratio does not. A change must show in both: what counts is the smaller one.
"""

import numpy as np

from wmdeploy.benchmarks.stats import LogValue, resamples

FEWEST_ROUNDS = 12  # for a line
RESAMPLES = 100
HUBER = 1.345  # in standard deviations; 95% efficient where there are no outliers
ITERATIONS = 8
_MAD = 1.4826  # of a normal distribution: standard deviation over median absolute deviation


def slowdown_at_equal_state(old: np.ndarray, new: np.ndarray) -> LogValue:
    """The new time over the old one; its error is the step's, by bootstrap over rounds.

    Args:
        old, new: (2, rounds), times of the baseline and of the backend in the same rounds, > 0.
    """
    logs = [np.log(times) for times in (old, new)]
    drawn = [log[:, resamples(log.shape[1], RESAMPLES, seed)] for seed, log in enumerate(logs)]
    step = float(_step(*(log[:, None] for log in logs))[0])
    before, after = (float(np.median(own - baseline)) for baseline, own in logs)
    agree = step * (after - before) > 0
    value = min(step, after - before, key=abs) if agree else 0.0
    return LogValue(value, float(_step(*drawn).std()))


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
        solution = inverse @ (weighted.swapaxes(-1, -2) @ y[..., None])
        off = np.abs(y - (columns @ solution)[..., 0])
        near = HUBER * _MAD * np.median(off, axis=-1, keepdims=True)
        weights = np.divide(near, off, out=np.ones_like(off), where=off > near)
    steps: np.ndarray = solution[..., 2, 0]
    return steps
