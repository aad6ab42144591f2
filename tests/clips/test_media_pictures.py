"""Folders of pictures: their order, one series of several, and no other format than promised."""

import os
import stat
from pathlib import Path

import pytest
from PIL import Image

from tests.clips.made_media import corners, greys, numbers, quarters
from wmdeploy.clips import ReadOptions, count_frames, read_clip
from wmdeploy.errors import ClipError

SCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"


def save(folder: Path, *names: str) -> None:
    """Pictures of `greys`, in the order of the names."""
    folder.mkdir(exist_ok=True)
    for name, frame in zip(names, greys(len(names)), strict=True):
        Image.fromarray(frame).save(folder / name)


@pytest.mark.parametrize(
    "names",
    [
        ("frame-2.png", "frame-10.png", "frame-101.png"),
        ("0.25.png", "0.5.png", "0.75.png", "1.0.png", "10.5.png"),
        ("t1700000000.05.png", "t1700000000.5.png", "t1700000001.125.png"),
        ("Frame_1.png", "frame_2.png", "FRAME_3.png", "frame_4.png"),
        ("a.png", "B.png", "c.png"),
        ("1.png", "2.PNG", "3.jpg", "4.jpeg"),
        ("007.png", "8.png", "0009.png"),
    ],
)
def test_pictures_come_in_the_order_of_their_numbers(
    tmp_path: Path, names: tuple[str, ...]
) -> None:
    save(tmp_path / "p", *names)
    assert numbers(read_clip(tmp_path / "p").frames) == list(range(len(names)))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("rgb_{}.png", "mask_{}.png"),
        ("{}_rgb.png", "{}_mask.png"),
        ("{}.jpg", "{}.png"),
        ("rgb{}.png", "rgb_depth{}.png"),
        ("left-{}-a.png", "right-{}-a.png"),
    ],
)
def test_two_series_are_refused_and_one_can_be_chosen(tmp_path: Path, one: str, other: str) -> None:
    save(tmp_path / "p", *(name.format(i) for i in (0, 1, 2, 10) for name in (one, other)))
    with pytest.raises(ClipError, match=r"holds 2 series of pictures \(.*: 4, .*: 4\)") as error:
        read_clip(tmp_path / "p")
    with pytest.raises(ClipError, match="2 series"):
        count_frames(tmp_path / "p")
    suggested = str(error.value).split("series=")[1]
    assert suggested in (
        one.format("%d"),
        other.format("%d"),
        one[:-4].format("%d"),
        other[:-4].format("%d"),
    )
    chosen = read_clip(tmp_path / "p", options=ReadOptions(series=suggested))
    first = 0 if suggested in one.format("%d") else 1
    assert numbers(chosen.frames) == [first, first + 2, first + 4, first + 6]


def test_a_part_of_the_name_chooses_where_only_one_has_it(tmp_path: Path) -> None:
    save(tmp_path, "rgb_0.png", "mask_0.png", "rgb_1.png", "mask_1.png", "rgb_far_0.png")
    mask = read_clip(tmp_path, options=ReadOptions(series="MASK"))
    assert numbers(mask.frames) == [1, 3]
    for series, found in (("rgb", "2"), ("depth", "none")):
        with pytest.raises(ClipError, match=f"got '{series}', which is {found} of its series"):
            read_clip(tmp_path, options=ReadOptions(series=series))


def test_a_single_picture_beside_a_series_is_another(tmp_path: Path) -> None:
    save(tmp_path, "frame_0.png", "frame_1.png", "cover.png")
    with pytest.raises(ClipError, match=r"frame_%d: 2"):
        read_clip(tmp_path)


def test_files_that_are_no_pictures_are_told(tmp_path: Path) -> None:
    save(tmp_path, "0.png", "1.png")
    (tmp_path / "IMG_2.heic").write_bytes(b"a picture of a phone")
    (note,) = read_clip(tmp_path).notes
    assert "IMG_2.heic" in note


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".ppm", ".tif", ".webp"])
def test_a_text_named_as_a_picture_runs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    ghost = tmp_path / "bin" / "gs"
    ghost.parent.mkdir()
    ghost.write_text(f"#!/bin/sh\necho ran >> {tmp_path}/ran\n")
    ghost.chmod(ghost.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{ghost.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", None)  # look for it again
    path = tmp_path / f"0{suffix}"
    path.write_bytes(SCRIPT)
    with pytest.raises(ClipError, match="cannot be read as a picture") as error:
        read_clip(path)
    assert "\n" not in str(error.value) and not (tmp_path / "ran").exists()


@pytest.mark.parametrize("kind", ["GIF", "PCX", "TGA", "ICO", "SGI", "DDS", "WEBP"])
def test_another_format_than_the_suffix_promises_is_refused(tmp_path: Path, kind: str) -> None:
    Image.fromarray(quarters()).save(tmp_path / "a.bin", format=kind)
    (tmp_path / "a.bin").rename(tmp_path / "a.png")
    with pytest.raises(ClipError, match=r"no PNG as \.png promises"):
        read_clip(tmp_path / "a.png")


def test_damaged_exif_is_told(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(quarters()).save(tmp_path / "good.jpg", exif=exif)
    good = (tmp_path / "good.jpg").read_bytes()
    place = good.index(b"Exif") + 6
    shown = set()
    for position in range(place, place + 26):
        for value in (0, 1, 127, 255):
            data = bytearray(good)
            data[position] = value
            (tmp_path / "bad.jpg").write_bytes(data)
            clip = read_clip(tmp_path / "bad.jpg")
            shown.add(corners(clip.frames[0]) + " and told" * bool(clip.notes))
    assert shown >= {"BRWG", "RGBW and told"}


@pytest.mark.parametrize("kind", ["pipe", "link to itself", "link to nothing", "device", "folder"])
@pytest.mark.parametrize("place", ["0.png", "a.mkv", "folder/0.png"])
def test_what_is_no_file_is_one_line(tmp_path: Path, place: str, kind: str) -> None:
    path = tmp_path / place
    path.parent.mkdir(exist_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to({"device": "/dev/zero"}.get(kind, path if "itself" in kind else "nowhere"))
    for given in (path, path.parent):
        with pytest.raises(ClipError) as error:
            read_clip(given)
        assert len(str(error.value).splitlines()) == 1
