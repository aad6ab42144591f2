"""Videos and pictures are turned and mirrored as ffmpeg and viewers show them."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.clips.made_media import corners, encode, quarters, set_display_matrix
from wmdeploy.clips import count_frames, read_clip
from wmdeploy.errors import ClipError

# a, b, c, d: a pixel at (x, y) is shown at (a x + c y, b x + d y); compared with ffmpeg's pictures
MATRICES = {
    (1, 0, 0, 1): "RGBW",
    (0, 1, -1, 0): "BRWG",
    (-1, 0, 0, -1): "WBGR",
    (0, -1, 1, 0): "GWRB",
    (-1, 0, 0, 1): "GRWB",
    (1, 0, 0, -1): "BWRG",
    (0, 1, 1, 0): "RBGW",
    (0, -1, -1, 0): "WGBR",
}
# TIFF 6.0, tag 274: where row 0 and column 0 of what is stored are shown
ORIENTATIONS = dict(
    enumerate(("RGBW", "GRWB", "WBGR", "BWRG", "RBGW", "BRWG", "WGBR", "GWRB"), start=1)
)


@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
@pytest.mark.parametrize(("matrix", "shown"), MATRICES.items())
def test_a_display_matrix_is_applied(
    tmp_path: Path, suffix: str, matrix: tuple[int, int, int, int], shown: str
) -> None:
    path = encode(tmp_path / f"a{suffix}", np.stack([quarters()] * 3))
    set_display_matrix(path, matrix)
    frames = read_clip(path).frames
    assert corners(frames[2]) == shown
    assert frames.shape == (3, 48, 64, 3) if matrix[0] else (3, 64, 48, 3)


def test_a_turn_by_another_angle_is_refused(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mp4", np.stack([quarters()] * 3))
    set_display_matrix(path, (1, 1, -1, 1))
    with pytest.raises(ClipError, match=r"a rotation of -?45 degrees, expected a multiple of 90"):
        read_clip(path)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
@pytest.mark.parametrize(("orientation", "shown"), ORIENTATIONS.items())
def test_exif_orientation_is_applied(
    tmp_path: Path, suffix: str, orientation: int, shown: str
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(quarters()).save(tmp_path / f"a{suffix}", exif=exif)
    frames = read_clip(tmp_path / f"a{suffix}").frames
    assert corners(frames[0]) == shown
    assert frames.shape[1:3] == ((48, 64) if orientation < 5 else (64, 48))


def test_only_the_pictures_that_carry_an_orientation_are_turned(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    upright = Image.fromarray(quarters(48, 48))
    for index in range(2):
        upright.save(tmp_path / f"{index}.jpg", quality=95)
    for index in range(2, 4):
        upright.rotate(90).save(tmp_path / f"{index}.jpg", quality=95, exif=exif)
    assert [corners(frame) for frame in read_clip(tmp_path).frames] == ["RGBW"] * 4


def test_an_unknown_orientation_is_none(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 0  # as some cameras write it
    Image.fromarray(quarters()).save(tmp_path / "a.jpg", exif=exif)
    assert corners(read_clip(tmp_path / "a.jpg").frames[0]) == "RGBW"


def test_a_picture_with_a_depth_map_behind_it_is_one_frame(tmp_path: Path) -> None:
    picture = Image.fromarray(quarters())
    picture.save(tmp_path / "a.mpo", save_all=True, append_images=[picture], format="MPO")
    (tmp_path / "a.mpo").rename(tmp_path / "a.jpg")
    assert count_frames(tmp_path / "a.jpg") == 1
    assert corners(read_clip(tmp_path / "a.jpg").frames[0]) == "RGBW"
