"""When frames are shown: variable rates are told, resampled by time, and delays are kept."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.clips.made_media import encode, greys, numbers
from wmdeploy.clips import ReadOptions, count_frames, iter_frames, read_clip, write_npz, write_video
from wmdeploy.clips.read import SAMPLE_CLIP
from wmdeploy.clips.source import Timeline
from wmdeploy.clips.timing import at_rate, uneven
from wmdeploy.errors import ClipError

CODECS = {".mp4": "libx264", ".mov": "libx264", ".mkv": "libx264", ".webm": "libvpx-vp9"}
UNEVEN = [0, 300, 600, 900, 3000, 3300, 3600, 6000]  # 33, 233 and 267 ms apart


def timeline(ticks: list[int], rate: int) -> Timeline:
    from fractions import Fraction

    return Timeline(np.array(ticks), Fraction(1, rate))


@pytest.mark.parametrize("suffix", CODECS)
def test_a_variable_rate_is_told_with_its_gaps(tmp_path: Path, suffix: str) -> None:
    path = encode(tmp_path / f"a{suffix}", greys(8), CODECS[suffix], UNEVEN)
    clip = read_clip(path)
    assert numbers(clip.frames) == list(range(8))
    (note,) = clip.notes
    assert note.startswith("variable frame rate: frames are 33")
    assert " to 26" in note and note.endswith("with fps they are resampled by timestamp")


@pytest.mark.parametrize("suffix", CODECS)
def test_a_rate_that_a_container_rounds_is_even(tmp_path: Path, suffix: str) -> None:
    times = [round(index * 9000 / 23.976) for index in range(12)]
    assert read_clip(encode(tmp_path / f"a{suffix}", greys(12), CODECS[suffix], times)).notes == ()


def test_rounded_gaps_are_even_and_dropped_frames_are_not() -> None:
    assert uneven(timeline([0, 4, 8, 13, 17, 21], 1000)) is None  # 240 frames per second
    assert uneven(timeline([0, 33, 67, 100, 133], 1000)) is None
    assert uneven(timeline([0, 1, 2, 3, 4], 30)) is None
    assert uneven(timeline([0, 5], 30)) is None  # one frame has no gap
    dropped = uneven(timeline([0, 1, 2, 4, 5], 30))
    assert dropped is not None and "33.33 to 66.67 ms" in dropped
    twice = uneven(timeline([0, 0, 3, 6, 9], 90))
    assert twice is not None and "0 to 33.33 ms" in twice


@pytest.mark.parametrize("suffix", CODECS)
def test_fps_takes_frames_by_their_times(tmp_path: Path, suffix: str) -> None:
    path = encode(tmp_path / f"a{suffix}", greys(8), CODECS[suffix], UNEVEN)
    fast, slow = ReadOptions(fps=30), ReadOptions(fps=10)
    shown = [0, 1, 2, 3, 3, 3, 3, 3, 3, 3, 4, 5, *[6] * 8, 7]
    clip = read_clip(path, options=fast)
    assert numbers(clip.frames)[:21] == shown
    assert clip.fps == 30 and clip.notes == ()
    assert numbers(read_clip(path, options=slow).frames)[:7] == [0, 3, 3, 3, 6, 6, 6]
    assert count_frames(path, fast) == len(clip)
    some = list(iter_frames(path, start=9, count=4, options=fast))
    assert numbers(np.stack(some)) == [3, 4, 5, 6]


def test_a_stamp_that_its_container_rounded_up_is_not_late() -> None:
    stamps = [0, 67, 134, 200, 267, 334]  # fifteenths of a second, in milliseconds, some rounded up
    assert at_rate(timeline(stamps, 1000), 15).tolist() == [0, 1, 2, 3, 4]
    assert at_rate(timeline([0, 1, 2, 3, 4, 5], 30), 60).tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]


def test_fps_is_refused_where_nothing_tells_the_time(tmp_path: Path) -> None:
    Image.fromarray(greys(1)[0]).save(tmp_path / "0.png")
    write_npz(tmp_path / "a.npz", greys(4))
    for path in (tmp_path / "0.png", tmp_path / "a.npz"):
        with pytest.raises(ClipError, match="has no timestamps"):
            read_clip(path, options=ReadOptions(fps=10))
    for fps in (0.0, -1.0, float("nan"), 1e9):
        with pytest.raises(ClipError, match=r"fps: got .*, expected 0\.01 to 1000"):
            ReadOptions(fps=fps)


def test_fps_does_not_tear_frames_from_their_actions() -> None:
    whole = read_clip(SAMPLE_CLIP)
    same = read_clip(SAMPLE_CLIP, options=ReadOptions(fps=whole.fps))
    assert same.actions is not None and whole.actions is not None
    np.testing.assert_array_equal(same.actions, whole.actions)
    np.testing.assert_array_equal(same.frames, whole.frames)
    half = ReadOptions(fps=whole.fps / 2)
    with pytest.raises(ClipError, match="has an action for each of its frames"):
        read_clip(SAMPLE_CLIP, options=half)
    some = np.stack(list(iter_frames(SAMPLE_CLIP, count=10, options=half)))
    np.testing.assert_array_equal(some, whole.frames[:20:2])


def test_our_own_gif_comes_back_with_all_its_frames(tmp_path: Path) -> None:
    frames = np.zeros((20, 32, 32, 3), np.uint8)
    frames[10:] = 200
    for fps in (3, 15, 24, 50):
        write_video(tmp_path / "a.gif", frames, fps)
        clip = read_clip(tmp_path / "a.gif")
        np.testing.assert_array_equal(clip.frames, frames)
        assert clip.fps == pytest.approx(fps, rel=0.03)
        assert clip.notes == ()


def save_animation(path: Path, delays: list[int]) -> None:
    first, *others = (Image.fromarray(frame) for frame in greys(len(delays)))
    first.save(path, save_all=True, append_images=others, duration=delays, lossless=True)


@pytest.mark.parametrize("name", ["a.gif", "a.png", "a.webp"])
def test_delays_of_animations_are_expanded(tmp_path: Path, name: str) -> None:
    save_animation(tmp_path / name, [50, 50, 200, 50, 500])
    clip = read_clip(tmp_path / name)
    assert numbers(clip.frames) == [0, 1, 2, 2, 2, 2, 3, *[4] * 10]
    assert clip.fps == pytest.approx(20)
    assert count_frames(tmp_path / name) == 17
    (note,) = clip.notes
    assert note.startswith("variable frame rate: frames are shown for 50 to 500 ms")
    at_ten = read_clip(tmp_path / name, options=ReadOptions(fps=10))
    assert numbers(at_ten.frames) == [0, 2, 2, 3, 4, 4, 4, 4, 4]


@pytest.mark.parametrize("name", ["a.gif", "a.png", "a.webp"])
def test_animations_without_delays_are_as_in_browsers(tmp_path: Path, name: str) -> None:
    save_animation(tmp_path / name, [0, 0, 0, 200])
    clip = read_clip(tmp_path / name)
    assert numbers(clip.frames) == [0, 1, 2, 3, 3]
    assert clip.fps == pytest.approx(10)


def test_delays_that_come_to_too_many_frames_are_refused(tmp_path: Path) -> None:
    save_animation(tmp_path / "a.gif", [20, 655_350, 655_350, 655_350, 655_350])
    with pytest.raises(ClipError, match="comes to 131073 frames, expected at most 100000"):
        read_clip(tmp_path / "a.gif", count=2)


def test_the_picture_that_stands_for_an_animation_is_no_frame_of_it(tmp_path: Path) -> None:
    still, *moving = (Image.fromarray(frame) for frame in greys(4))
    still.save(tmp_path / "a.png", save_all=True, append_images=moving, default_image=True)
    assert numbers(read_clip(tmp_path / "a.png").frames) == [1, 2, 3]


def test_pages_of_a_tiff_are_frames_but_not_its_thumbnails(tmp_path: Path) -> None:
    from PIL import TiffImagePlugin

    first, *others = (Image.fromarray(frame) for frame in greys(4))
    first.save(tmp_path / "a.tif", save_all=True, append_images=others)
    assert numbers(read_clip(tmp_path / "a.tif").frames) == [0, 1, 2, 3]
    smaller = TiffImagePlugin.ImageFileDirectory_v2()
    smaller[254] = 1
    others[0].encoderinfo = {"tiffinfo": smaller}
    first.save(tmp_path / "b.tif", save_all=True, append_images=others[:1])
    assert numbers(read_clip(tmp_path / "b.tif").frames) == [0]


def test_an_animation_among_pictures_is_refused(tmp_path: Path) -> None:
    Image.fromarray(greys(1)[0]).save(tmp_path / "0.webp")
    save_animation(tmp_path / "1.webp", [50, 50])
    with pytest.raises(ClipError, match=r"1\.webp: holds 2 frames beside other pictures"):
        read_clip(tmp_path)


def test_animations_in_a_folder_are_clips(tmp_path: Path) -> None:
    from wmdeploy.clips import find_clips

    for index in range(2):
        save_animation(tmp_path / f"{index}.webp", [50, 50, 50])
    assert [path.name for path in find_clips(tmp_path)] == ["0.webp", "1.webp"]
