"""Write frames as a video, a GIF or an .npz, and put two clips side by side.

Frames are taken one by one, so a long video needs no more memory than a short one (a GIF is held
whole: its palette depends on all of its frames). Every file exists whole or not at all.
"""

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from itertools import chain
from pathlib import Path

import numpy as np

from wmdeploy.clips.clip import Clip, described, reason
from wmdeploy.errors import ClipError
from wmdeploy.files import staged_file

_CODECS = {
    ".gif": ("gif", "pal8", {}),
    ".mp4": ("libx264", "yuv420p", {"crf": "18"}),
    # FFV1 version 3; g=1 makes every frame a key frame, so that any one can be decoded alone.
    ".mkv": ("ffv1", "bgr0", {"level": "3", "g": "1", "slices": "1", "slicecrc": "1"}),
}
_VIDEO_SUFFIXES = (".gif", ".mkv", ".mp4")
_GAP_GREY = 128


def check_suffix(path: Path, suffixes: tuple[str, ...] = (*_VIDEO_SUFFIXES, ".npz")) -> None:
    """Refuse a file name that no writer here knows, before the work that would fill the file.

    Raises:
        ClipError: another suffix.
    """
    if path.suffix.lower() not in suffixes:
        raise ClipError(
            f"{path}: cannot write {path.suffix or 'a file without suffix'}; "
            f"name it {', '.join(suffixes)}"
        )


def write_video(path: Path, frames: Iterable[np.ndarray], fps: float) -> None:
    """Write frames as the suffix says.

    `.mp4` is H.264 and loses a little; a side of odd length grows by one pixel, as 4:2:0 needs even
    ones. `.mkv` is FFV1 (RFC 9043) and exact; equal frames give equal bytes. `.gif` loops, has one
    palette of 256 colours, exact for frames with no more, and plays at 50 frames per second at
    most: viewers slow anything faster down.

    Args:
        path: the file to write; an older one is replaced.
        frames: each (H, W, 3) uint8, RGB in 0..255, all of one shape, at least one.
        fps: frames per second, 0.1 to 1000.

    Raises:
        ClipError: another suffix, frame or rate, no frames, or no H.264 encoder.
        WmdeployError: the place cannot be written.
    """
    check_suffix(path, _VIDEO_SUFFIXES)
    if not (math.isfinite(fps) and 0.1 <= fps <= 1000):
        raise ClipError(f"{path}: got {fps} frames per second, expected 0.1 to 1000")
    checked = _checked(path, frames)
    first = next(checked, None)
    if first is None:
        raise ClipError(f"{path}: got no frames, expected at least one")
    with staged_file(path) as staged, _told(path, first.shape):
        if path.suffix.lower() == ".gif":
            _write_gif(staged, [first, *checked], fps)
        else:
            _encode(staged, first.shape, chain([first], checked), fps)


def write_npz(path: Path, frames: np.ndarray, actions: np.ndarray | None = None) -> None:
    """Write frames (T, H, W, 3) uint8 and actions (T,) int64, compressed.

    Raises:
        ClipError: another suffix, type or shape.
        WmdeployError: the place cannot be written.
    """
    check_suffix(path, (".npz",))
    clip = Clip(frames=frames, actions=actions, name=path.stem)
    arrays = {"frames": np.ascontiguousarray(clip.frames)}
    if clip.actions is not None:
        arrays["actions"] = clip.actions
    with staged_file(path) as staged, staged.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def side_by_side(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Join two clips, the second to the right of the first behind a small grey gap.

    Args:
        left: (T, H, W, 3) uint8.
        right: (T, H, W', 3) uint8.

    Returns:
        (T, H, W + gap + W', 3) uint8, the gap a 32nd of H and at least 2.

    Raises:
        ClipError: the types differ from this, or the lengths or heights from each other.
    """
    Clip(frames=left, actions=None, name="left")
    Clip(frames=right, actions=None, name="right")
    if left.shape[:2] != right.shape[:2]:
        raise ClipError(
            f"side by side: got {described(left)} and {described(right)}, expected the same "
            "number of frames and the same height; cut or resize one of them"
        )
    length, height = left.shape[:2]
    gap = np.full((length, height, max(2, height // 32), 3), _GAP_GREY, np.uint8)
    return np.concatenate([left, gap, right], axis=2)


def _checked(path: Path, frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    shape = None
    for index, frame in enumerate(frames):
        fits = isinstance(frame, np.ndarray) and frame.dtype == np.uint8 and frame.ndim == 3
        if not fits or frame.shape[2] != 3 or frame.size == 0:
            raise ClipError(
                f"{path}: frame {index}: got {described(frame)}, expected uint8 (H, W, 3)"
            )
        shape = shape or frame.shape
        if frame.shape != shape:
            raise ClipError(f"{path}: frame {index}: got {frame.shape}, the first was {shape}")
        yield frame


@contextmanager
def _told(path: Path, shape: tuple[int, ...]) -> Iterator[None]:
    """An error of an encoder, in one line."""
    import av

    try:
        yield
    except av.FFmpegError as error:
        if isinstance(error, OSError):  # a full disk: staged_file knows what to say
            raise
        codec = _CODECS[path.suffix.lower()][0]
        raise ClipError(f"{path.name}: {codec} cannot encode {shape} ({reason(error)})") from error


def _encode(path: Path, shape: tuple[int, ...], frames: Iterable[np.ndarray], fps: float) -> None:
    import av

    codec, pixel_format, options = _CODECS[path.suffix.lower()]
    if codec not in av.codecs_available:
        raise ClipError(
            f"{path}: this PyAV has no {codec} encoder; install PyAV from PyPI (pip install av) "
            "or write .gif or .mkv"
        )
    even = 2 if pixel_format == "yuv420p" else 1
    pad = ((0, -shape[0] % even), (0, -shape[1] % even), (0, 0))
    # Without bitexact the file would hold a random id, and differ from run to run.
    with av.open(str(path), "w", container_options={"fflags": "+bitexact"}) as container:
        rate = Fraction(fps).limit_denominator(1001)
        stream = container.add_stream(codec, rate, options=options)
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width = shape[0] + pad[0][1], shape[1] + pad[1][1]
        stream.pix_fmt = pixel_format
        for frame in frames:
            if even > 1:
                frame = np.pad(frame, pad, mode="edge")
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode())


def _write_gif(path: Path, frames: list[np.ndarray], fps: float) -> None:
    """Pillow would merge equal neighbours into one frame; FFmpeg writes each."""
    import av

    # A GIF counts in hundredths of a second: round the times, not the durations, to keep the pace.
    times = [round(100 * index / min(fps, 50)) for index in range(len(frames) + 1)]
    colours, indices = _with_one_palette(frames)
    palette = np.zeros((256, 4), np.uint8)
    palette[: len(colours)] = np.insert(colours, 0, 255, axis=1)  # alpha, red, green, blue
    options = {"fflags": "+bitexact", "final_delay": str(times[-1] - times[-2])}
    with av.open(str(path), "w", container_options=options) as container:
        stream = container.add_stream("gif", rate=100)
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "pal8"
        for picture, time in zip(indices, times, strict=False):
            # PyAV's annotations know no palettes
            frame = av.VideoFrame.from_ndarray((picture, palette), format="pal8")  # type: ignore[arg-type]
            frame.pts, frame.time_base = time, Fraction(1, 100)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def _with_one_palette(frames: list[np.ndarray]) -> tuple[np.ndarray, Iterator[np.ndarray]]:
    """The same colours for all frames, so that nothing flickers: (C, 3), and (H, W) for each."""
    from PIL import Image

    colours: set[int] = set()
    for frame in frames:
        colours.update(np.unique(_packed(frame)).tolist())
        if len(colours) > 256:
            sampled = frames[:: max(1, len(frames) // 16)]
            palette = Image.fromarray(np.concatenate(sampled)).quantize(256)
            none = Image.Dither.NONE
            return np.array(palette.getpalette(), np.uint8).reshape(-1, 3), (
                np.array(Image.fromarray(frame).quantize(palette=palette, dither=none))
                for frame in frames
            )
    # exactly these; Pillow's own mapping joins near ones
    known = np.array(sorted(colours))
    rows = np.stack([known >> 16, known >> 8 & 255, known & 255], axis=1).astype(np.uint8)
    return rows, (np.searchsorted(known, _packed(frame)).astype(np.uint8) for frame in frames)


def _packed(frame: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 -> (H, W) int64, one number per colour."""
    red, green, blue = np.moveaxis(frame.astype(np.int64), 2, 0)
    return red << 16 | green << 8 | blue
