"""Clips as they are written and read again, whole and in part."""

import os
import tracemalloc
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.clips.made_clips import (
    change_bytes,
    make_data_folder,
    noise,
    smooth,
)
from wmdeploy.clips import (
    Clip,
    area_resize,
    count_frames,
    iter_frames,
    read_clip,
    read_data_folder,
    write_npz,
    write_video,
)
from wmdeploy.clips.video import _from_key_frame
from wmdeploy.errors import ClipError


def test_clip_keeps_frames_and_actions() -> None:
    frames, actions = noise(4), np.arange(4)
    clip = Clip(frames, actions, "one")
    assert clip.frames is frames and clip.actions is actions and len(clip) == 4 and clip.fps == 30


@pytest.mark.parametrize(
    ("frames", "got"),
    [
        (np.zeros((8, 64, 64), np.float32), r"float32 \(8, 64, 64\)"),
        (np.zeros((8, 3, 64, 64), np.uint8), r"uint8 \(8, 3, 64, 64\)"),
        (np.zeros((8, 64, 64, 3), np.int64), r"int64 \(8, 64, 64, 3\)"),
        (np.zeros((0, 64, 64, 3), np.uint8), r"uint8 \(0, 64, 64, 3\)"),
        ([1, 2], "list"),
    ],
)
def test_clip_refuses_other_frames(frames: np.ndarray, got: str) -> None:
    with pytest.raises(ClipError, match=rf"frames: got {got}, expected uint8 \(T, H, W, 3\); "):
        Clip(frames, None, "one")


@pytest.mark.parametrize(
    "actions",
    [
        *(np.zeros(3, np.int64), np.zeros(4, np.int32), np.zeros((4, 1), np.int64), [0] * 4),
        *(np.zeros((size, 2), np.float32) for size in (3, 5)),
        *(np.zeros(4, np.float32), np.zeros((4, 0), np.float32), np.zeros((4, 2))),
    ],
)
def test_clip_refuses_other_actions(actions: np.ndarray) -> None:
    with pytest.raises(
        ClipError, match=r"actions: got .*, expected int64 \(4,\) or float32 \(4, n\); "
    ):
        Clip(noise(4), actions, "one")


def test_clip_refuses_negative_or_infinite_actions_and_bad_rates() -> None:
    with pytest.raises(ClipError, match="actions: got values that are not finite"):
        Clip(noise(2), np.array([[0, 1], [0, np.nan]], np.float32), "one")
    with pytest.raises(ClipError, match="got -1 as the lowest, expected 0 or more"):
        Clip(noise(2), np.array([0, -1]), "one")
    for fps in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ClipError, match="fps"):
            Clip(noise(2), None, "one", fps=fps)


def test_mkv_round_trip_is_exact_also_for_odd_sizes(tmp_path: Path) -> None:
    frames = noise(7, 37, 51)
    write_video(tmp_path / "a.mkv", iter(frames), fps=12.5)
    clip = read_clip(tmp_path / "a.mkv")
    np.testing.assert_array_equal(clip.frames, frames)
    assert (clip.actions, clip.name, clip.fps) == (None, "a", 12.5)


def test_mkv_bytes_are_the_same_for_the_same_frames(tmp_path: Path) -> None:
    for name in ("a.mkv", "b.mkv"):
        write_video(tmp_path / name, noise(5), fps=15)
    assert (tmp_path / "a.mkv").read_bytes() == (tmp_path / "b.mkv").read_bytes()


@pytest.mark.parametrize(("height", "width"), [(48, 64), (37, 51)])
def test_mp4_is_close_and_pads_odd_sides(tmp_path: Path, height: int, width: int) -> None:
    frames = smooth(12, height, width)
    write_video(tmp_path / "a.mp4", frames, fps=30)
    clip = read_clip(tmp_path / "a.mp4")
    assert clip.frames.shape == (12, height + height % 2, width + width % 2, 3)
    difference = clip.frames[:, :height, :width].astype(int) - frames
    assert np.abs(difference).mean() < 4
    assert clip.fps == 30


def test_gif_of_few_colours_is_exact_and_loops(tmp_path: Path) -> None:
    colours = np.stack([np.arange(200), np.arange(200)[::-1], np.full(200, 7)], axis=1)
    indices = np.random.default_rng(0).integers(0, 200, (6, 40, 40))
    frames = colours.astype(np.uint8)[indices]
    write_video(tmp_path / "a.gif", frames, fps=15)
    np.testing.assert_array_equal(read_clip(tmp_path / "a.gif").frames, frames)
    with Image.open(tmp_path / "a.gif") as picture:
        assert picture.info["loop"] == 0


def test_gif_keeps_the_pace_though_it_counts_hundredths(tmp_path: Path) -> None:
    write_video(tmp_path / "a.gif", smooth(15), fps=15)  # 66.7 ms, which a GIF cannot say
    with Image.open(tmp_path / "a.gif") as picture:
        assert isinstance(picture, Image.Image)
        durations = []
        for index in range(15):
            picture.seek(index)
            durations.append(picture.info["duration"])
    assert sum(durations) == 1000 and set(durations) == {60, 70}


def test_gif_of_many_colours_adapts_its_palette(tmp_path: Path) -> None:
    frames = smooth(6)
    assert len(np.unique(frames.reshape(-1, 3), axis=0)) > 256
    write_video(tmp_path / "a.gif", frames, fps=60)
    assert np.abs(read_clip(tmp_path / "a.gif").frames.astype(int) - frames).mean() < 8


def test_npz_round_trip_is_exact_with_actions(tmp_path: Path) -> None:
    frames, actions = noise(9), np.arange(9)
    write_npz(tmp_path / "a.npz", frames, actions)
    clip = read_clip(tmp_path / "a.npz", start=2, count=5)
    np.testing.assert_array_equal(clip.frames, frames[2:7])
    np.testing.assert_array_equal(clip.actions, actions[2:7])
    assert clip.frames.flags.writeable
    assert count_frames(tmp_path / "a.npz") == 9


def test_npz_accepts_any_integer_actions_and_no_actions(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", frames=noise(3), actions=np.array([0, 1, 2], np.uint8))
    clip = read_clip(tmp_path / "a.npz")
    assert clip.actions is not None and clip.actions.dtype == np.int64
    write_npz(tmp_path / "b.npz", noise(3))
    assert read_clip(tmp_path / "b.npz").actions is None


def test_pictures_come_in_natural_order(tmp_path: Path) -> None:
    frames = noise(11)
    for index, frame in enumerate(frames):
        Image.fromarray(frame).save(tmp_path / f"frame-{index}.png")
    (tmp_path / "notes.txt").write_text("not a picture")
    np.testing.assert_array_equal(read_clip(tmp_path).frames, frames)
    assert count_frames(tmp_path) == 11
    assert len(read_clip(tmp_path / "frame-3.png")) == 1


def test_data_folder_clip_has_its_actions_and_rate(tmp_path: Path) -> None:
    clips = make_data_folder(tmp_path / "data")
    clip = read_clip(tmp_path / "data" / "clip-00000.mkv", start=4, count=5)
    np.testing.assert_array_equal(clip.frames, clips[0][4:9])
    assert clip.actions is not None and clip.actions.tolist() == [1, 2, 0, 1, 2]
    assert clip.actions.dtype == np.int64 and type(clip.actions) is np.ndarray
    assert clip.fps == 15
    assert read_data_folder(tmp_path / "data").action_meanings == ("NOOP", "UP", "DOWN")


def test_data_folder_of_one_clip_is_that_clip(tmp_path: Path) -> None:
    clips = make_data_folder(tmp_path / "data", (5,))
    np.testing.assert_array_equal(read_clip(tmp_path / "data").frames, clips[0])


@pytest.mark.parametrize("suffix", [".mkv", ".mp4", ".gif"])
def test_video_part_equals_the_part_of_the_whole(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    write_video(path, smooth(40), fps=25)
    whole = read_clip(path).frames
    assert len(whole) == count_frames(path) == 40
    for start, count in ((0, 1), (13, 8), (39, 1)):
        part = read_clip(path, start=start, count=count).frames
        np.testing.assert_array_equal(part, whole[start : start + count])
    np.testing.assert_array_equal(read_clip(path, start=30).frames, whole[30:])


def encode(path: Path, codec: str, frames: np.ndarray) -> None:
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, 15)
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


@pytest.mark.parametrize(("name", "codec"), [("a.avi", "mpeg4"), ("a.webm", "libvpx-vp9")])
def test_other_containers_are_read_whole_and_known_when_cut(
    tmp_path: Path, name: str, codec: str
) -> None:
    import av

    encode(tmp_path / name, codec, noise(30))
    assert count_frames(tmp_path / name) == len(read_clip(tmp_path / name)) == 30
    with av.open(str(tmp_path / name)) as container:
        positions = [packet.pos for packet in container.demux(video=0) if packet.pos]
    os.truncate(tmp_path / name, positions[18])  # between two packets: all that is left decodes
    with pytest.raises(ClipError, match=r"cut short: it ends at 1\.2. s of 2\.0. s"):
        read_clip(tmp_path / name)


def test_mp4_with_an_edit_list_counts_what_it_shows(tmp_path: Path) -> None:
    """A trimmed mp4 still holds the frames before its start; they are neither shown nor missing."""
    import av

    encode(tmp_path / "whole.mp4", "libx264", smooth(60))
    with av.open(str(tmp_path / "whole.mp4")) as whole:
        with av.open(str(tmp_path / "trimmed.mp4"), "w") as trimmed:
            template = whole.streams.video[0]
            stream = trimmed.add_stream_from_template(template)
            assert template.time_base is not None
            shift = int(20 / 15 / template.time_base)
            for packet in whole.demux(template):
                if packet.dts is not None and packet.pts is not None:
                    packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
                    packet.stream = stream
                    trimmed.mux(packet)
    path = tmp_path / "trimmed.mp4"
    assert count_frames(path) == len(read_clip(path)) == 40


def test_size_is_the_mean_of_the_area(tmp_path: Path) -> None:
    frames = noise(2, 64, 96)
    write_video(tmp_path / "a.mkv", frames, fps=15)
    mean = frames.reshape(2, 32, 2, 32, 3, 3).mean(axis=(2, 4))
    got = read_clip(tmp_path / "a.mkv", size=32).frames
    assert got.shape == (2, 32, 32, 3)
    assert np.abs(got - mean).max() < 1


def test_size_already_there_changes_nothing() -> None:
    frame = noise(1, 32, 32)[0]
    assert area_resize(frame, 32) is frame


@pytest.mark.parametrize("suffix", [".mkv", ".mp4", ".npz"])
def test_reading_eight_frames_decodes_nothing_behind_them(tmp_path: Path, suffix: str) -> None:
    path, frames = tmp_path / f"a{suffix}", noise(200)
    if suffix == ".npz":
        write_npz(path, frames)
    else:
        write_video(path, frames, fps=15)
    change_bytes(path, 0.4, 0.9)
    assert len(read_clip(path, count=8)) == 8
    with pytest.raises(ClipError):
        read_clip(path)


def test_pictures_behind_the_last_are_not_opened(tmp_path: Path) -> None:
    for index, frame in enumerate(noise(4)):
        Image.fromarray(frame).save(tmp_path / f"{index}.png")
    (tmp_path / "4.png").write_bytes(b"broken")
    assert len(read_clip(tmp_path, count=4)) == 4
    with pytest.raises(ClipError, match=r"4\.png: cannot be read as a picture"):
        read_clip(tmp_path)


def test_iter_frames_takes_frames_as_they_are_asked_for(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mkv", noise(200), fps=15)
    change_bytes(tmp_path / "a.mkv", 0.5, 1)
    frames = iter_frames(tmp_path / "a.mkv", size=16)
    assert [next(frames).shape for _ in range(8)] == [(16, 16, 3)] * 8


def test_npz_part_needs_little_memory(tmp_path: Path) -> None:
    write_npz(tmp_path / "a.npz", np.zeros((2000, 64, 64, 3), np.uint8))  # 24.6 MB
    tracemalloc.start()
    try:
        read_clip(tmp_path / "a.npz", start=1900, count=8)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4e6


def test_own_clips_skip_to_a_frame_without_decoding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    firsts = []

    def spy(packets: Any, start: int) -> Any:
        first, rest = _from_key_frame(packets, start)
        firsts.append(first)
        return first, rest

    monkeypatch.setattr("wmdeploy.clips.video._from_key_frame", spy)
    frames = noise(30)
    write_video(tmp_path / "a.mkv", frames, fps=15)
    np.testing.assert_array_equal(read_clip(tmp_path / "a.mkv", start=20).frames, frames[20:])
    assert firsts == [20]  # the first packet that is decoded


def test_skipping_keeps_the_key_frame_that_a_frame_needs() -> None:
    packets: list[Any] = [SimpleNamespace(is_keyframe=index % 4 == 0) for index in range(12)]
    first, rest = _from_key_frame(iter(packets), 6)
    assert first == 4
    assert list(rest) == packets[4:]
    assert _from_key_frame(iter(packets), 8)[0] == 8
