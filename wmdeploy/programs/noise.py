"""The noise of one frame of one row: the same on every backend, at every batch size.

It comes from a counter-based generator (Philox, Salmon et al. 2011), keyed by seed, stream, name
and frame, so that it is also the same after a restore, in any order of asking, and however a frame
is cut into graphs. numpy promises the generator's bits but not its distributions; those are here.
"""

import hashlib
import math

import numpy as np

from wmdeploy.programs.contract import Noise


def draw(noise: Noise, name: str, seed: int, stream: int, frame: int) -> np.ndarray:
    """What one frame draws under one name, float32 of `noise.shape`.

    Args:
        seed, stream: the stream is the row's, so that rows of one seed differ.
        frame: how many were absorbed or predicted since the reset.
    """
    word = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")
    key = np.array([seed % 2**64, stream % 2**64], np.uint64)
    generator = np.random.Philox(key=key, counter=np.array([0, 0, word, frame], np.uint64))
    count = math.prod(noise.shape)
    if noise.kind == "normal":  # Box and Muller 1958
        pairs = (count + 1) // 2
        uniform = _uniform(generator, 2 * pairs).reshape(2, pairs)
        radius, angle = np.sqrt(-2 * np.log(uniform[0])), 2 * np.pi * uniform[1]
        values = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:count]
    else:
        values = _uniform(generator, count)
        if noise.kind == "gumbel":  # Gumbel 1935: -log of an exponential variable
            values = -np.log(-np.log(np.minimum(values, 1 - 2.0**-53)))
    return values.astype(np.float32).reshape(noise.shape)


def _uniform(generator: np.random.Philox, count: int) -> np.ndarray:
    """(count,) float64 in (0, 1], of 53 bits each."""
    return ((generator.random_raw(count) >> np.uint64(11)).astype(np.float64) + 1) * 2.0**-53
