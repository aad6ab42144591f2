"""Files that cannot be clips are refused in one line, and never half read."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.clips.made_clips import (
    make_data_folder,
    noise,
    truncate,
)
from wmdeploy.clips import (
    count_frames,
    find_clips,
    iter_frames,
    read_clip,
    write_npz,
    write_video,
)
from wmdeploy.errors import ClipError


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
