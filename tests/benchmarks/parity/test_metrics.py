"""Errors of frames, codes and tensors."""

import math

import numpy as np
import pytest

from wmdeploy.benchmarks.parity.metrics import (
    curve,
    frame_errors,
    horizons,
    rollout_parity,
    tensor_parity,
)
from wmdeploy.benchmarks.report import Parity
from wmdeploy.psnr import IDENTICAL_DB, psnr


def parity_of(clips: list[tuple[np.ndarray, np.ndarray]], at: list[int]) -> Parity:
    return rollout_parity(clips, np.stack([frame_errors(*pair) for pair in clips]), at)


def test_rollout_parity_has_the_worst_frame() -> None:
    expected = np.full((4, 8, 8, 3), 100, np.uint8)
    got = expected.copy()
    got[2] += 10
    parity = parity_of([(got, expected)], [1, 4])
    assert parity.worst_frame_psnr_db == {
        "1": IDENTICAL_DB, "4": pytest.approx(10 * math.log10(255**2 / 100)),
    }  # fmt: skip
    assert parity.psnr_db and parity.psnr_db["4"] == pytest.approx(10 * math.log10(255**2 / 25))
    assert parity.max_abs == 10 and parity.mean_abs == 2.5


def test_horizons_end_where_the_rollout_ends() -> None:
    assert horizons(32, 64) == [1, 8, 32, 64]
    assert horizons(16, 20) == [1, 8, 16, 20]
    assert horizons(16, 100) == [1, 8, 16, 32, 64, 100]


def test_worst_frame_is_the_worst_of_all_clips() -> None:
    expected = np.full((4, 8, 8, 3), 100, np.uint8)
    first, second = expected.copy(), expected.copy()
    first[3] += 4
    second[1] += 10
    parity = parity_of([(first, expected), (second, expected)], [1, 2, 4])
    ten = 10 * math.log10(255**2 / 100)
    assert parity.worst_frame_psnr_db == pytest.approx({"1": IDENTICAL_DB, "2": ten, "4": ten})
    assert parity.psnr_db and parity.psnr_db["4"] == pytest.approx(
        10 * math.log10(255**2 / ((100 + 16) / 8))
    )
    assert parity.max_abs == 10 and parity.mean_abs == pytest.approx(14 / 8)


def test_curve_is_frame_by_frame() -> None:
    expected: dict[str, np.ndarray] = {
        "free": np.full((3, 8, 8, 3), 100, np.uint8),
        "forced": np.full((2, 8, 8, 3), 100, np.uint8),
        "codes": np.zeros((5, 4), np.int64),
        "imagined_codes": np.zeros((3, 4), np.int64),
    }
    got = {name: array.copy() for name, array in expected.items()}
    got["free"][1] += 5
    got["forced"][0] += 10
    got["codes"][0, 0] = got["imagined_codes"][1, 2] = 1
    found = curve("x", "a.mkv", got, expected)
    assert found.free_db == pytest.approx([120, 10 * math.log10(255**2 / 25), 120])
    assert found.forced_db == pytest.approx([10 * math.log10(255**2 / 100), 120])
    assert found.worst_frame == 2 and found.first_difference == 2
    assert (found.code_agreement, found.imagined_agreement) == (19 / 20, 11 / 12)
    assert curve("x", "a.mkv", expected, expected).first_difference is None


def test_psnr_of_known_errors() -> None:
    assert psnr(255.0**2) == 0 and psnr(1.0) == pytest.approx(48.13, abs=0.01)
    assert psnr(0.0) == psnr(1e-12) == IDENTICAL_DB
    assert math.isnan(psnr(math.nan))


def test_frame_errors_are_of_each_frame() -> None:
    expected = np.zeros((3, 2, 2, 3), np.uint8)
    got = expected.copy()
    got[1], got[2, 0, 0, 0] = 255, 6
    assert frame_errors(got, expected).tolist() == frame_errors(expected, got).tolist()
    assert frame_errors(got, expected).tolist() == [0, 255**2, 3]


def test_tensors_of_nothing_have_no_cosine() -> None:
    a = np.array([[3.0, 4.0]], np.float16)
    parity = tensor_parity(a, np.array([[4.0, 3.0]], np.float32))
    assert (parity.max_abs, parity.mean_abs) == (1, 1)
    assert parity.cosine == pytest.approx(24 / 25)
    assert tensor_parity(a, 0 * a).cosine is None
    broken = tensor_parity(a, a * math.nan)
    assert math.isnan(broken.max_abs or 0)
