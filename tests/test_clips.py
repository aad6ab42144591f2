"""Clips: reading is exact and decodes no more than asked for, bad input is one clear line."""

import json
import os
import random
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from wmdeploy.clips import (
    Clip,
    ClipEntry,
    DataFolder,
    area_resize,
    check_suffix,
    count_frames,
    find_clips,
    iter_frames,
    read_clip,
    read_data_folder,
    side_by_side,
    split_clips,
    write_npz,
    write_video,
)
from wmdeploy.clips.folder import write_index
from wmdeploy.clips.video import _from_key_frame
from wmdeploy.errors import ClipError, WmdeployError


def noise(count: int, height: int = 48, width: int = 64, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def smooth(count: int, height: int = 48, width: int = 64) -> np.ndarray:
    """Frames with a slowly moving gradient, which lossy codecs keep well."""
    t, y, x = np.ogrid[:count, :height, :width]
    channels = [(x * 3 + t) % 256 + 0 * y, y * 4 + 0 * x + 0 * t, 2 * t + 0 * x + 0 * y]
    return np.stack(channels, axis=-1).clip(0, 255).astype(np.uint8)


def make_data_folder(folder: Path, lengths: tuple[int, ...] = (12, 9)) -> list[np.ndarray]:
    folder.mkdir()
    clips = [noise(length, 32, 32, seed=length) for length in lengths]
    entries = []
    for index, frames in enumerate(clips):
        video = folder / f"clip-{index:05}.mkv"
        write_video(video, frames, fps=15)
        np.save(video.with_suffix(".actions.npy"), np.arange(len(frames), dtype=np.int64) % 3)
        entries.append(ClipEntry(video.name, len(frames), episode=index, score=1.5))
    data = DataFolder(
        game="Pong",
        seed=0,
        size=32,
        fps=15.0,
        frame_skip=4,
        policy="random",
        num_actions=3,
        action_meanings=("NOOP", "UP", "DOWN"),
        clips=tuple(entries),
    )
    write_index(data, folder)
    return clips


def change_index(folder: Path, change: Callable[[dict], object]) -> None:
    document = json.loads((folder / "clips.json").read_text())
    change(document)
    (folder / "clips.json").write_text(json.dumps(document))


def change_bytes(path: Path, start: float, end: float) -> None:
    """Overwrite a part of a file, given in shares of its size, with zeros."""
    data = bytearray(path.read_bytes())
    first, last = int(len(data) * start), int(len(data) * end)
    data[first:last] = bytes(last - first)
    path.write_bytes(data)


def truncate(path: Path, share: float) -> None:
    os.truncate(path, int(path.stat().st_size * share))


# Clip


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
    "actions", [np.zeros(3, np.int64), np.zeros(4, np.int32), np.zeros((4, 1), np.int64), [0] * 4]
)
def test_clip_refuses_other_actions(actions: np.ndarray) -> None:
    with pytest.raises(ClipError, match=r"actions: got .*, expected int64 \(4,\); "):
        Clip(noise(4), actions, "one")


def test_clip_refuses_negative_actions_and_bad_rates() -> None:
    with pytest.raises(ClipError, match="got -1 as the lowest, expected 0 or more"):
        Clip(noise(2), np.array([0, -1]), "one")
    for fps in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ClipError, match="fps"):
            Clip(noise(2), None, "one", fps=fps)


# Reading what was written


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


# Sizes


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


# Streaming


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


# Bad input


def assert_refused(path: Path, text: str) -> None:
    """Reading and counting give one line that names the path, and no other kind of error."""
    with pytest.raises(ClipError, match=text) as caught:
        read_clip(path)
    assert path.name in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", [".mkv", ".mp4", ".gif", ".npz", ""])
@pytest.mark.parametrize("content", [b"", b"hello world\n" * 40, bytes(4000)])
def test_unreadable_file_is_refused(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"bad{suffix}"
    path.write_bytes(content)
    assert_refused(path, "cannot be read")
    with pytest.raises(ClipError):
        count_frames(path)


@pytest.mark.parametrize("suffix", [".mkv", ".mp4", ".gif", ".npz"])
def test_damaged_file_gives_one_line_or_frames(tmp_path: Path, suffix: str) -> None:
    good, path = tmp_path / f"good{suffix}", tmp_path / f"bad{suffix}"
    if suffix == ".npz":
        np.savez(good, frames=noise(4, 16, 16), actions=np.arange(4))
    else:
        write_video(good, noise(4, 16, 16), fps=15)
    chance = random.Random(0)
    refused = 0
    for _ in range(120):
        data = bytearray(good.read_bytes())
        for _ in range(3):  # mostly in the head, where the structure is
            data[chance.randrange(len(data) if chance.random() < 0.3 else 400)] ^= 1 << 5
        path.write_bytes(data)
        try:
            read_clip(path)
        except ClipError as error:
            refused += 1
            assert "\n" not in str(error) and "bad" in str(error)
    assert refused > 0


def test_npz_with_a_torn_header_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "bad.npz", frames=noise(4))
    data = (tmp_path / "bad.npz").read_bytes()
    (tmp_path / "bad.npz").write_bytes(data.replace(b"64, 3)", b"64, 3,"))
    assert_refused(tmp_path / "bad.npz", "cannot be read as .npz")


@pytest.mark.parametrize("suffix", [".mkv", ".mp4", ".gif", ".npz"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.9])
def test_truncated_file_is_refused(tmp_path: Path, suffix: str, share: float) -> None:
    path, frames = tmp_path / f"bad{suffix}", noise(40)
    write_npz(path, frames) if suffix == ".npz" else write_video(path, frames, fps=15)
    truncate(path, share)
    assert_refused(path, "cannot be read|cut short")


def test_truncated_mp4_with_its_index_in_front_is_refused(tmp_path: Path) -> None:
    import av

    write_video(tmp_path / "a.mp4", noise(40), fps=15)
    with av.open(str(tmp_path / "a.mp4")) as source:
        options = {"movflags": "faststart"}
        with av.open(str(tmp_path / "bad.mp4"), "w", options=options) as target:
            stream = target.add_stream_from_template(source.streams.video[0])
            for packet in source.demux(source.streams.video[0]):
                if packet.dts is not None:
                    packet.stream = stream
                    target.mux(packet)
    assert len(read_clip(tmp_path / "bad.mp4")) == 40
    truncate(tmp_path / "bad.mp4", 0.8)
    assert_refused(tmp_path / "bad.mp4", r"cut short: it has \d+ bytes of at least \d+")


def test_truncated_own_clip_is_refused_by_its_recorded_length(tmp_path: Path) -> None:
    clips = make_data_folder(tmp_path / "data")
    write_video(tmp_path / "data" / "clip-00000.mkv", clips[0][:10], fps=15)
    assert_refused(tmp_path / "data" / "clip-00000.mkv", "it has 10 frames of 12 recorded")


def test_missing_path_and_missing_permission_are_refused(tmp_path: Path) -> None:
    assert_refused(tmp_path / "none.mp4", "does not exist")
    assert_refused(tmp_path / ("x" * 300), "cannot be read|does not exist")


def test_audio_is_refused(tmp_path: Path) -> None:
    import av

    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), "fltp", "mono")
        frame.rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    assert_refused(tmp_path / "a.mp4", "has no video stream")


def test_too_few_frames_tells_how_many_there_are(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mkv", noise(6), fps=15)
    write_npz(tmp_path / "a.npz", noise(6))
    (tmp_path / "folder").mkdir()
    for index in range(6):
        Image.fromarray(noise(1)[0]).save(tmp_path / "folder" / f"{index}.png")
    for path in (tmp_path / "a.mkv", tmp_path / "a.npz", tmp_path / "folder"):
        with pytest.raises(ClipError, match="has 6 frames, asked for 8 from frame 0 on"):
            read_clip(path, count=8)
        with pytest.raises(ClipError, match="has 6 frames, asked for 3 from frame 9 on"):
            read_clip(path, start=9, count=3)
        with pytest.raises(ClipError, match="has 6 frames, asked for those from frame 6 on"):
            read_clip(path, start=6)


@pytest.mark.parametrize("span", [{"size": 0}, {"start": -1}, {"count": 0}])
def test_impossible_span_is_refused(tmp_path: Path, span: dict[str, Any]) -> None:
    write_npz(tmp_path / "a.npz", noise(2))
    with pytest.raises(ClipError, match=rf"{next(iter(span))}: got"):
        iter_frames(tmp_path / "a.npz", **span)


@pytest.mark.parametrize(
    ("arrays", "text"),
    [
        (
            {"frames": noise(3).astype(np.float32)},
            "got float32 values from 0 to 255, expected 0 to 1",
        ),
        ({"frames": noise(3)[..., :2]}, r"got uint8 \(3, 48, 64, 2\)"),
        ({"frames": noise(3)[0]}, r"got uint8 \(48, 64, 3\)"),
        ({"frames": noise(3)[:0]}, r"got uint8 \(0, 48, 64, 3\)"),
        ({"frames": np.asfortranarray(noise(3))}, "Fortran order"),
        ({"frames": np.array([{}, {}])}, "got object"),
        ({"rewards": np.zeros(3)}, r"holds rewards float64 \(3,\); expected an array named frames"),
        ({"frames": noise(3), "actions": np.arange(1)}, r"actions: got int64 \(1,\), expected"),
        ({"frames": noise(3), "actions": np.full(3, "up")}, r"actions: got <U2 \(3,\), expected"),
        ({"frames": noise(3), "actions": np.array([0, -2, 1])}, "actions: got -2 as the lowest"),
    ],
)
def test_npz_of_other_content_is_refused(
    tmp_path: Path, arrays: dict[str, np.ndarray], text: str
) -> None:
    np.savez(tmp_path / "bad.npz", **arrays)  # type: ignore[arg-type]
    with pytest.raises(ClipError, match=text):
        read_clip(tmp_path / "bad.npz")


def test_npz_with_a_header_that_promises_too_much_is_refused(tmp_path: Path) -> None:
    import zipfile

    header = "{'descr': '|u1', 'fortran_order': False, 'shape': (999999, 4096, 4096, 3)}"
    header = header.ljust(117) + "\n"
    with zipfile.ZipFile(tmp_path / "bad.npz", "w") as archive:
        magic = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little")
        archive.writestr("frames.npy", magic + header.encode() + bytes(64))
    assert_refused(tmp_path / "bad.npz", "holds 192 bytes, expected 50331")


def test_pictures_of_different_sizes_need_a_size(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "0.png")
    Image.new("RGB", (9, 8)).save(tmp_path / "1.png")
    assert_refused(tmp_path, r"frame 1 is \(8, 9, 3\), the first was \(8, 8, 3\); give a size")
    assert read_clip(tmp_path, size=8).frames.shape == (2, 8, 8, 3)


def test_picture_of_16_bits_is_refused_not_clipped(tmp_path: Path) -> None:
    Image.fromarray(np.full((8, 8), 40000, np.uint16)).save(tmp_path / "0.png")
    with pytest.raises(ClipError, match="mode I;16, expected 8 bits"):
        read_clip(tmp_path)


def test_picture_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "0.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(ClipError, match=r"0\.png: cannot be read as a picture"):
        read_clip(tmp_path)


def test_folder_of_nothing_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no clips")
    assert_refused(tmp_path, "holds no clips; expected videos, .npz files, pictures or a data")
    with pytest.raises(ClipError, match="does not exist, expected a folder"):
        find_clips(tmp_path / "none")
    with pytest.raises(ClipError, match="is a file, expected a folder"):
        find_clips(tmp_path / "notes.txt")


def test_folder_of_several_clips_is_refused_and_lists_them(tmp_path: Path) -> None:
    make_data_folder(tmp_path / "data")
    text = r"holds 2 clips \(clip-00000.mkv, clip-00001.mkv\), expected one; name it: .*00000.mkv"
    assert_refused(tmp_path / "data", text)
    with pytest.raises(ClipError, match=text):
        count_frames(tmp_path / "data")


# Data folders


@pytest.mark.parametrize(
    "name", ["../out.mkv", "/etc/passwd", "sub/clip.mkv", "a\\b.mkv", "..", "", "c:x.mkv"]
)
def test_data_folder_names_stay_inside(tmp_path: Path, name: str) -> None:
    make_data_folder(tmp_path / "data")
    write_video(tmp_path / "out.mkv", noise(12), fps=15)
    change_index(tmp_path / "data", lambda document: document["clips"][0].update(file=name))
    with pytest.raises(ClipError, match="expected a plain name of a file inside the folder"):
        find_clips(tmp_path / "data")


def test_data_folder_links_stay_inside(tmp_path: Path) -> None:
    make_data_folder(tmp_path / "data")
    clip = tmp_path / "data" / "clip-00000.mkv"
    clip.rename(tmp_path / "out.mkv")
    clip.symlink_to(tmp_path / "out.mkv")
    with pytest.raises(ClipError, match="inside the folder"):
        read_clip(clip)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda d: d.update(schema=2), "has schema 2, expected 1"),
        (lambda d: d.pop("schema"), '"schema" is missing, expected int'),
        (lambda d: d.update(num_actions=True), '"num_actions" is True, expected int'),
        (lambda d: d.update(fps=0), '"fps" is 0, expected a number above 0'),
        (lambda d: d.update(clips={}), '"clips" is {}, expected list'),
        (lambda d: d.update(clips=[3]), '"clips" holds a int, expected objects'),
        (lambda d: d["clips"][0].update(frames=0), "has 0 frames"),
        (lambda d: d["clips"][0].update(file="gone.mkv"), "lists gone.mkv, which is not there"),
        (lambda d: d.update(clips=[]), "holds no clips"),
    ],
)
def test_data_folder_with_an_invalid_index_is_refused(
    tmp_path: Path, change: Callable[[dict], object], text: str
) -> None:
    make_data_folder(tmp_path / "data")
    change_index(tmp_path / "data", change)
    with pytest.raises(ClipError, match=text):
        find_clips(tmp_path / "data")


@pytest.mark.parametrize("content", ["", "[1, 2]", "{", "[" * 100_000, "\x00"])
def test_data_folder_with_broken_json_is_refused(tmp_path: Path, content: str) -> None:
    make_data_folder(tmp_path / "data")
    (tmp_path / "data" / "clips.json").write_text(content)
    with pytest.raises(ClipError, match="clips.json: "):
        read_clip(tmp_path / "data" / "clip-00000.mkv")


@pytest.mark.parametrize(
    ("actions", "text"),
    [
        (np.arange(5) % 3, r"got int64 \(5,\), expected int64 \(12,\)"),
        (np.zeros(12), r"got float64 \(12,\), expected"),
        (np.full(12, 3), "got actions 3 to 3, expected 0 to 2"),
        (np.full(12, -1), "got actions -1 to -1, expected 0 to 2"),
        (np.array([None] * 12), r"got object \(12,\), expected int64 \(12,\)"),
        (None, "cannot be read as actions"),
    ],
)
def test_data_folder_actions_must_fit(
    tmp_path: Path, actions: np.ndarray | None, text: str
) -> None:
    make_data_folder(tmp_path / "data")
    path = tmp_path / "data" / "clip-00000.actions.npy"
    if actions is None:
        path.unlink()
    else:
        np.save(path, actions)
    with pytest.raises(ClipError, match=text):
        read_clip(tmp_path / "data" / "clip-00000.mkv")


# Finding and splitting


def test_find_clips_lists_a_data_folder_in_its_order(tmp_path: Path) -> None:
    make_data_folder(tmp_path / "data")
    change_index(tmp_path / "data", lambda document: document["clips"].reverse())
    write_video(tmp_path / "data" / "another.mkv", noise(2), fps=15)
    names = [path.name for path in find_clips(tmp_path / "data")]
    assert names == ["clip-00001.mkv", "clip-00000.mkv"]


def test_find_clips_lists_videos_and_arrays_of_any_folder(tmp_path: Path) -> None:
    for name in ("b.MP4", "a10.npz", "a9.webm", ".hidden.mp4", "picture.png", "readme.txt"):
        (tmp_path / name).touch()
    (tmp_path / "folder.mp4").mkdir()
    assert [path.name for path in find_clips(tmp_path)] == ["a9.webm", "a10.npz", "b.MP4"]


def test_find_clips_takes_pictures_as_one_clip(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    assert find_clips(tmp_path) == [tmp_path]


@pytest.mark.parametrize("count", [2, 3, 10, 57])
@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.99])
def test_split_keeps_every_clip_once_and_both_sides_filled(count: int, share: float) -> None:
    clips = [Path(f"clip-{index}.mkv") for index in range(count)]
    training, validation = split_clips(clips, validation=share)
    assert training and validation
    assert sorted(training + validation) == sorted(clips)
    assert abs(len(validation) - share * count) <= 1


def test_split_depends_on_the_seed_and_not_on_the_order() -> None:
    clips = [Path(f"clip-{index}.mkv") for index in range(40)]
    shuffled = random.Random(5).sample(clips, len(clips))
    assert split_clips(clips, seed=1) == split_clips(shuffled, seed=1)
    assert split_clips(clips, seed=1) != split_clips(clips, seed=2)


def test_split_never_puts_one_clip_on_both_sides() -> None:
    training, validation = split_clips([Path("a"), Path("b"), Path("a")], validation=0.5)
    assert not set(training) & set(validation)


def test_split_holds_out_whole_episodes_of_every_data_folder(tmp_path: Path) -> None:
    for game, episodes in (("a", 2), ("b", 5)):
        folder = tmp_path / game
        folder.mkdir()
        entries = []
        for index in range(3 * episodes):
            (folder / f"clip-{index}.mkv").touch()
            entries.append(ClipEntry(f"clip-{index}.mkv", 9, episode=index // 3, score=0))
        write_index(DataFolder(game, 0, 8, 15, 4, "random", 0, (), tuple(entries)), folder)
    clips = [clip for game in "ab" for clip in find_clips(tmp_path / game)]
    _, validation = split_clips(clips)
    numbers = {
        game: [int(c.stem[5:]) for c in validation if c.parent.name == game] for game in "ab"
    }
    for found in numbers.values():  # one episode each, and all three clips of it
        assert sorted(found) == [min(found), min(found) + 1, min(found) + 2]
        assert min(found) % 3 == 0
    with pytest.raises(ClipError, match="3 clips of one episode, expected 2"):
        split_clips(clips[:3])


def test_split_refuses_a_single_clip_and_impossible_shares() -> None:
    with pytest.raises(ClipError, match="got 1 clip of one episode, expected 2 .* record more"):
        split_clips([Path("a"), Path("a")])
    for share in (0, 1, -0.5, float("nan")):
        with pytest.raises(ClipError, match="expected a share between 0 and 1"):
            split_clips([Path("a"), Path("b")], validation=share)


# Writing


def test_write_refuses_other_suffixes_and_lists_the_valid(tmp_path: Path) -> None:
    for name in ("a.mov", "a"):
        with pytest.raises(ClipError, match=r"name it .gif, .mkv, .mp4"):
            write_video(tmp_path / name, noise(2), fps=15)
    with pytest.raises(ClipError, match=r"name it .npz"):
        write_npz(tmp_path / "a.mp4", noise(2))
    with pytest.raises(ClipError, match=r"name it .gif, .mkv, .mp4, .npz"):
        check_suffix(tmp_path / "a.txt")
    check_suffix(tmp_path / "a.GIF")
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".gif"])
def test_write_refuses_bad_frames_and_leaves_nothing(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    with pytest.raises(ClipError, match="got no frames"):
        write_video(path, [], fps=15)
    with pytest.raises(ClipError, match=r"frame 1: got float64 \(48, 64, 3\), expected uint8"):
        write_video(path, [noise(1)[0], noise(1)[0] / 255], fps=15)
    with pytest.raises(ClipError, match=r"frame 1: got \(8, 8, 3\), the first was \(48, 64, 3\)"):
        write_video(path, [noise(1)[0], noise(1, 8, 8)[0]], fps=15)
    for fps in (0, -1, float("nan"), float("inf"), 1e6):
        with pytest.raises(ClipError, match="frames per second, expected"):
            write_video(path, noise(2), fps=fps)
    assert not any(tmp_path.iterdir())


def test_write_keeps_the_older_file_when_frames_break_off(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mkv", noise(3), fps=15)
    with pytest.raises(ClipError):
        write_video(tmp_path / "a.mkv", [noise(1)[0], np.zeros(3)], fps=15)
    assert [path.name for path in tmp_path.iterdir()] == ["a.mkv"]
    assert len(read_clip(tmp_path / "a.mkv")) == 3


def test_write_to_an_impossible_place_is_our_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(WmdeployError, match="cannot be written"):
        write_video(tmp_path / "file" / "a.mkv", noise(2), fps=15)


def test_write_says_when_h264_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import av

    monkeypatch.setattr(av, "codecs_available", {"ffv1"})
    with pytest.raises(ClipError, match="has no libx264 encoder; .* or write .gif or .mkv"):
        write_video(tmp_path / "a.mp4", noise(2), fps=15)


def test_side_by_side_joins_with_a_gap() -> None:
    left, right = noise(3, 64, 40), noise(3, 64, 50, seed=1)
    joined = side_by_side(left, right)
    assert joined.shape == (3, 64, 40 + 2 + 50, 3)
    np.testing.assert_array_equal(joined[:, :, :40], left)
    np.testing.assert_array_equal(joined[:, :, -50:], right)


def test_side_by_side_refuses_what_does_not_fit() -> None:
    for right in (noise(2), noise(3, 32, 64)):
        with pytest.raises(ClipError, match="expected the same number of frames and the same"):
            side_by_side(noise(3), right)
    with pytest.raises(ClipError, match="float64"):
        side_by_side(noise(3), noise(3) / 255)


# Imports


def modules_after(statement: str) -> set[str]:
    code = f"{statement}\nimport sys\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_import_loads_no_framework_and_no_decoder() -> None:
    heavy = {"torch", "onnx", "onnxruntime", "av", "PIL", "gymnasium", "ale_py"}
    assert not heavy & modules_after("import wmdeploy.clips")
    assert "av" in modules_after("import wmdeploy.clips, av")  # the check itself can fail
