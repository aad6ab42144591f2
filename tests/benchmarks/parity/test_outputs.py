"""Errors of named outputs, of known values."""

import math

import numpy as np
import pytest

from wmdeploy.benchmarks.parity.outputs import compare_outputs, first_draw, total_variation
from wmdeploy.benchmarks.report import OutputParity


def test_total_variation_of_known_distributions() -> None:
    even = np.zeros((5, 2), np.float32)
    odd = np.log(np.array([[0.9, 0.1]], np.float32))  # 0.4 away
    assert total_variation(even, even + 7) == 0
    assert total_variation(np.repeat(odd, 5, 0), even) == pytest.approx(0.4, abs=1e-6)
    mixed = np.concatenate([odd, even[1:]])
    assert total_variation(mixed, even) == pytest.approx(0.4 / 5, abs=1e-6)
    far = np.array([[1e4, 0.0]]), np.array([[0.0, 1e4]])
    assert total_variation(*far) == pytest.approx(1)
    assert math.isnan(total_variation(even * math.nan, even))


def test_outputs_are_compared_by_what_they_are() -> None:
    """Those that follow true frames, of all clips together."""
    expected: dict[str, np.ndarray] = {
        "free": np.zeros((2, 4, 4, 3), np.uint8),
        "free/reward": np.zeros(2, np.float32),
        "forced/reward": np.array([1.0, -4.0], np.float32),
        "forced/drawn": np.array([[1, 2], [3, 4]]),
        "forced/end_logits": np.zeros((2, 2), np.float32),
        "forced/logits": np.zeros((2, 2), np.float32),
        "forced/wordlogits": np.zeros((2, 2), np.float32),
    }
    got = {name: array.copy() for name, array in expected.items()}
    got["free/reward"] += 9
    got["forced/reward"][0] = 1.5
    got["forced/drawn"][1, 1] = 0
    got["forced/end_logits"][0] = np.log([0.9, 0.1])
    found = compare_outputs([got, expected], [expected, expected])
    assert found["reward"] == OutputParity(relative=0.125)
    assert found["drawn"] == OutputParity(agreement=7 / 8)
    assert found["end_logits"].variation == pytest.approx(0.1)
    for name in ("logits", "wordlogits"):  # as the export does: by the end of the name
        assert found[name] == OutputParity(relative=0, variation=0)
    assert len(found) == 5 and compare_outputs([{}], [{}]) == {}


def test_first_draw_is_of_free_integers() -> None:
    expected: dict[str, np.ndarray] = {
        "free/drawn": np.zeros((6, 2, 2), np.int64),
        "free/end": np.zeros(6, np.int64),
        "free/logits": np.zeros((6, 3), np.float32),
        "forced/drawn": np.zeros((6, 2, 2), np.int64),
        "imagined_codes": np.zeros((6, 2), np.int64),
    }
    got = {name: array.copy() for name, array in expected.items()}
    for name in ("free/logits", "forced/drawn", "imagined_codes"):
        got[name][0] = 1
    assert first_draw(got, expected) is None
    got["free/drawn"][4, 1, 1] = 1
    assert first_draw(got, expected) == 5
    got["free/end"][3] = 1
    assert first_draw(got, expected) == 4
