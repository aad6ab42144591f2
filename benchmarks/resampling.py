"""Which values a bootstrap draws, where neighbours are alike."""

import math

import numpy as np


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
