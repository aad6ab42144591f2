"""Which stream of a video is read, what is lost in a damaged one, and how frames become squares."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.clips.made_media import encode, greys, numbers, set_display_matrix
from wmdeploy.clips import ReadOptions, area_resize, count_frames, read_clip, write_video
from wmdeploy.errors import ClipError


def noise(count: int, height: int = 64, width: int = 64) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


# Streams


def join(path: Path, *videos: tuple[Path, int]) -> Path:
    """Put the video streams of some files into one, each with its disposition."""
    import av

    options = {"default_mode": "passthrough"} if path.suffix == ".mkv" else {}
    with av.open(str(path), "w", container_options=options) as target:
        sources = [av.open(str(video)) for video, _ in videos]
        streams: list[Any] = []
        for source, (_, disposition) in zip(sources, videos, strict=True):
            stream: Any = target.add_stream_from_template(source.streams.video[0])
            stream.disposition = disposition
            streams.append(stream)
        for source, stream in zip(sources, streams, strict=True):
            for packet in source.demux(video=0):
                if packet.dts is not None:
                    packet.stream = stream
                    target.mux(packet)
            source.close()
    return path


def test_the_default_stream_is_read_else_the_largest(tmp_path: Path) -> None:
    small = encode(tmp_path / "small.mp4", greys(4, 32, 32))
    large = encode(tmp_path / "large.mp4", greys(6, 64, 64))
    clip = read_clip(join(tmp_path / "a.mkv", (small, 0), (large, 0)))
    assert clip.frames.shape == (6, 64, 64, 3)
    assert clip.notes == ("of 2 video streams (0: 32x32, 1: 64x64) number 1 is used",)
    clip = read_clip(join(tmp_path / "b.mkv", (large, 0), (small, 1)))
    assert clip.frames.shape == (4, 32, 32, 3)
    assert count_frames(tmp_path / "b.mkv") == 4
    assert clip.notes == ("of 2 video streams (0: 64x64, 1: 32x32) number 1 is used",)


def test_a_cover_picture_is_no_video(tmp_path: Path) -> None:
    cover = encode(tmp_path / "cover.mov", greys(1, 256, 256), "mjpeg", pixel_format="yuvj420p")
    video = encode(tmp_path / "video.mp4", greys(5, 32, 32))
    clip = read_clip(join(tmp_path / "a.mp4", (video, 1), (cover, 1024)))
    assert numbers(clip.frames) == [0, 1, 2, 3, 4]
    (note,) = clip.notes
    assert "1: 256x256 cover picture" in note and note.endswith("number 0 is used")


# Damage


@pytest.mark.parametrize(
    ("name", "codec", "pixel_format"),
    [
        ("a.ts", "libx264", "yuv420p"),
        ("a.avi", "mjpeg", "yuvj420p"),
        ("b.ts", "mpeg2video", "yuv420p"),
    ],
)
def test_damage_in_the_middle_is_found(
    tmp_path: Path, name: str, codec: str, pixel_format: str
) -> None:
    path = encode(tmp_path / name, noise(40), codec, pixel_format=pixel_format)
    whole = path.read_bytes()
    before = read_clip(path).frames
    assert len(before) == count_frames(path) == 40
    for seed in range(8):
        random = np.random.default_rng(seed)
        data, place = bytearray(whole), int(random.integers(len(whole) // 4, len(whole) // 2))
        size = 64 * 188 if seed % 2 else 9000  # MPEG-TS counts packets in 4 bits
        data[place : place + size] = random.bytes(size)
        path.write_bytes(data)
        with pytest.raises(ClipError, match="damaged|cannot be read") as error:
            read_clip(path)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["a.avi", "a.mov", "a.mkv"])
def test_a_motion_jpeg_never_shows_what_is_left_of_a_frame(tmp_path: Path, name: str) -> None:
    path = encode(tmp_path / name, noise(6, 128, 128), "mjpeg", pixel_format="yuvj420p")
    whole = path.read_bytes()
    assert len(read_clip(path)) == 6
    for seed in range(8):
        data, place = bytearray(whole), len(whole) // 3 + 500 * seed
        data[place : place + 1500] = np.random.default_rng(seed).bytes(1500)
        path.write_bytes(data)
        with pytest.raises(ClipError, match="damaged|cannot be read"):
            read_clip(path)


def test_a_gif_damaged_in_the_middle_is_nearly_always_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.gif"
    write_video(path, noise(12), fps=10)
    whole = path.read_bytes()
    assert len(read_clip(path)) == 12
    refused = 0
    for seed in range(20):
        data, place = bytearray(whole), len(whole) // 4 + 3000 * seed
        data[place : place + 1500] = np.random.default_rng(seed).bytes(1500)
        path.write_bytes(data)
        try:
            read_clip(path)
        except ClipError as error:
            refused += "damaged or cut short" in str(error)
    assert refused >= 15  # a chain of blocks may fall into step again, and has no sums


def test_a_broadcast_that_begins_between_key_frames_is_read_from_the_first_one(
    tmp_path: Path,
) -> None:
    path = encode(tmp_path / "a.ts", greys(20), options={"g": "5", "sc_threshold": "0"})
    data = path.read_bytes()
    starts = [i for i in range(0, len(data), 188) if data[i + 3] & 0x20 and data[i + 5] & 0x40]
    path.write_bytes(data[starts[0] + 188 * 2 :])  # behind the first key frame's beginning
    clip = read_clip(path)
    assert numbers(clip.frames) == list(range(5, 20))
    assert count_frames(path) == 15


# Containers


PLAYLISTS = {
    "ffconcat": b"ffconcat version 1.0\nfile 'real.mkv'\n",
    "hls": b"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\nreal.mkv\n#EXT-X-ENDLIST\n",
    "text": b"hello world\n" * 40,
    "subtitles": b"1\n00:00:00,000 --> 00:00:01,000\nhello\n" * 20,
}


@pytest.mark.parametrize("suffix", [".mkv", ".mp4", ".ts", ".avi", ".gif", ".ogv", ".mpg"])
@pytest.mark.parametrize("content", PLAYLISTS)
def test_a_list_named_as_a_video_is_refused(tmp_path: Path, content: str, suffix: str) -> None:
    encode(tmp_path / "real.mkv", greys(3))
    path = tmp_path / f"x{suffix}"
    path.write_bytes(PLAYLISTS[content])
    with pytest.raises(ClipError, match="cannot be read as a video") as error:
        read_clip(path)
    assert "\n" not in str(error.value)


def test_another_container_than_the_suffix_promises_is_refused(tmp_path: Path) -> None:
    encode(tmp_path / "a.mkv", greys(3)).rename(tmp_path / "a.mp4")
    with pytest.raises(ClipError, match=r"not what \.mp4 promises"):
        read_clip(tmp_path / "a.mp4")
    (tmp_path / "a.mp4").rename(tmp_path / "a.qqq")
    with pytest.raises(ClipError, match=r"got \.qqq, expected one of \.3g2, "):
        read_clip(tmp_path / "a.qqq")
    (tmp_path / "a.qqq").rename(tmp_path / "a.MKV")
    assert count_frames(tmp_path / "a.MKV") == 3


# Squares


def wide() -> np.ndarray:
    """(20, 40, 3): black, in the middle a white square of 20 pixels."""
    frame = np.zeros((20, 40, 3), np.uint8)
    frame[:, 10:30] = 255
    return frame


def test_frames_are_squeezed_cropped_or_padded() -> None:
    assert (area_resize(wide(), 8, "crop") == 255).all()
    assert (area_resize(wide().swapaxes(0, 1), 8, "crop") == 255).all()
    squeezed = area_resize(wide(), 8)
    assert (squeezed[:, 2:6] == 255).all() and (squeezed[:, :2] == 0).all()
    padded = area_resize(wide(), 8, "pad")
    assert (padded[2:6, 2:6] == 255).all() and padded.sum() == 16 * 3 * 255
    np.testing.assert_array_equal(
        area_resize(wide().swapaxes(0, 1), 8, "pad"), padded.swapaxes(0, 1)
    )


def test_wide_pixels_count() -> None:
    square = wide()[:, 10:30]  # white
    assert (area_resize(square, 8, "pad", pixel_aspect=2.0)[2:6] == 255).all()
    assert area_resize(square, 8, "pad", pixel_aspect=2.0).sum() == 32 * 3 * 255
    assert (area_resize(wide(), 8, "pad", pixel_aspect=0.5)[:, 2:6] == 255).all()
    assert area_resize(wide(), 8, "pad", pixel_aspect=0.5)[:, :2].sum() == 0
    np.testing.assert_array_equal(
        area_resize(wide(), 8, "crop", pixel_aspect=0.5), area_resize(wide(), 8)
    )


@pytest.mark.parametrize(
    ("shape", "aspect", "told"),
    [
        ((64, 64), None, ""),
        ((48, 64), None, "frames of 64x48 are squeezed to 16x16"),
        ((64, 36), None, "frames of 36x64 are squeezed to 16x16"),
        ((64, 64), Fraction(4, 3), "frames of 64x64 with pixels 1.333 times as wide as high"),
        ((64, 48), Fraction(4, 3), ""),
    ],
)
def test_squeezed_frames_are_told(
    tmp_path: Path, shape: tuple[int, int], aspect: Fraction | None, told: str
) -> None:
    path = encode(tmp_path / "a.mkv", greys(3, *shape), pixel_aspect=aspect)
    notes = read_clip(path, size=16).notes
    assert len(notes) == (told != "") and "".join(notes).startswith(told)
    assert read_clip(path).notes == ()  # as they are
    for fit in ("crop", "pad"):
        assert read_clip(path, size=16, options=ReadOptions(fit=fit)).notes == ()


def test_the_pixels_of_a_turned_video_are_turned_too(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mp4", greys(2, 64, 48), pixel_aspect=Fraction(8, 3))
    set_display_matrix(path, (0, 1, -1, 0))  # 96 x 64 square pixels, shown as 64 x 96
    padded = read_clip(path, size=48, options=ReadOptions(fit="pad")).frames[1]
    columns = padded.mean(axis=(0, 2)) > 10
    assert columns.sum() == pytest.approx(48 * 1 / 2, abs=1)
    (note,) = read_clip(path, size=48).notes
    assert "frames of 64x48 with pixels 0.375 times as wide as high" in note


def test_an_unknown_fit_is_refused() -> None:
    with pytest.raises(ClipError, match="fit: got 'stretch', expected squeeze, crop, pad"):
        ReadOptions(fit="stretch")  # type: ignore[arg-type]


def test_pictures_of_two_shapes_are_each_told(tmp_path: Path) -> None:
    for index, size in enumerate(((64, 36), (36, 64))):
        Image.new("RGB", size).save(tmp_path / f"{index}.png")
    notes = read_clip(tmp_path, size=16).notes
    assert [note.split(" are")[0] for note in notes] == ["frames of 64x36", "frames of 36x64"]
