"""Noise: by key, the same always, and of the distribution that its name says."""

import math

import numpy as np
import pytest

from wmdeploy.programs.contract import Noise
from wmdeploy.programs.noise import draw

UNIFORM = [0.11584092, 0.34283784, 0.7412017]
NORMAL = [-0.1147232, -1.4610515, -2.0731409]


def many(kind: str) -> np.ndarray:
    noise = Noise(kind, (100, 101))  # type: ignore[arg-type]
    return np.concatenate([draw(noise, "x", 1, 2, frame).ravel() for frame in range(20)])


def test_a_key_has_its_own_numbers() -> None:
    noise = Noise("normal", (5,))
    one = draw(noise, "x", seed=1, stream=2, frame=3)
    np.testing.assert_array_equal(one, draw(noise, "x", seed=1, stream=2, frame=3))
    others = [("y", 1, 2, 3), ("x", 2, 2, 3), ("x", 1, 3, 3), ("x", 1, 2, 4), ("x", -1, 2, 3)]
    for key in others:
        assert not np.isin(draw(noise, *key), one).any()


def test_the_numbers_stay_what_they_are() -> None:
    """A rollout of last year is the same this year: these are of Philox's bits, and of no library's
    distributions."""
    assert draw(Noise("uniform", (3,)), "x", 1, 2, 3).tolist() == pytest.approx(UNIFORM, rel=1e-6)
    assert draw(Noise("normal", (3,)), "x", 1, 2, 3).tolist() == pytest.approx(NORMAL, rel=1e-5)


@pytest.mark.parametrize(
    ("kind", "mean", "deviation"),
    [("normal", 0, 1), ("gumbel", 0.5772157, math.pi / 6**0.5), ("uniform", 0.5, 12**-0.5)],
)
def test_moments(kind: str, mean: float, deviation: float) -> None:
    values = many(kind).astype(np.float64)
    assert values.mean() == pytest.approx(mean, abs=5 * deviation / len(values) ** 0.5)
    assert values.std() == pytest.approx(deviation, rel=0.02)
    assert np.isfinite(values).all()


def test_argmax_with_gumbel_noise_is_a_draw_from_softmax() -> None:
    logits = np.array([0.0, 1.0, 2.0])
    noise = Noise("gumbel", (20000, 3))
    chosen = (logits + draw(noise, "x", 0, 0, 0)).argmax(1)
    expected = np.exp(logits) / np.exp(logits).sum()
    np.testing.assert_allclose(np.bincount(chosen) / len(chosen), expected, atol=0.015)
