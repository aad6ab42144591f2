"""The picture of the worst frame."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from wmdeploy.benchmarks.parity.worst_frame import GAP, HIGHEST, picture


def pixels_of(text: str) -> np.ndarray:
    """(H, W, 4) uint8."""
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))


@pytest.mark.parametrize("side", [8, 512])
def test_picture_shows_both_frames_and_what_is_between_them(side: int) -> None:
    expected = np.full((side, side, 3), 100, np.uint8)
    got = expected.copy()
    got[: side // 2] += 2
    got[-1, -1, 0] -= 1
    pixels = pixels_of(picture(expected, got))
    width = min(side, HIGHEST)
    assert pixels.shape == (width, 3 * width + 2 * GAP, 4)
    assert (pixels[:, width : width + GAP, 3] == 0).all()
    assert (pixels[0, 0, :3] == 100).all() and (pixels[0, width + GAP, :3] == 102).all()
    difference = pixels[:, 2 * (width + GAP) :, :3]
    assert (difference[: width // 4] == 255).all() and (difference[width - 4, 0] == 0).all()


def test_smaller_differences_are_as_much_darker() -> None:
    expected = np.full((8, 8, 3), 100, np.uint8)
    got = expected.copy()
    got[0, 0], got[7, 7, 0] = 102, 99
    difference = pixels_of(picture(expected, got))[:, -8:, :3]
    assert difference[0, 0].tolist() == [255, 255, 255]
    assert difference[7, 7].tolist() == [128, 0, 0]


def test_difference_of_equal_frames_is_black() -> None:
    frame = np.full((8, 8, 3), 100, np.uint8)
    assert not pixels_of(picture(frame, frame))[:, -8:, :3].any()
