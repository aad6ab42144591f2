"""Write frames as a video, a GIF or an .npz, and put two clips side by side.

Frames are taken one by one, so a long file needs no more memory than a short one. Every file exists
whole or not at all.
"""

import math
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from fractions import Fraction
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

from wmdeploy.clips.clip import Clip, described, reason
from wmdeploy.clips.gif_writer import write_gif
from wmdeploy.errors import ClipError
from wmdeploy.files import staged_file

_CODECS: dict[str, tuple[str, str, dict[str, str]]] = {
    ".gif": ("gif", "pal8", {}),
    # What x264 writes depends on its number of threads, by default on the CPUs that are free to it.
    ".mp4": ("libx264", "yuv420p", {"crf": "18", "threads": "1"}),
    # FFV1 version 3; g=1 makes every frame a key frame, so that any one can be decoded alone.
    ".mkv": ("ffv1", "bgr0", {"level": "3", "g": "1", "slices": "1", "slicecrc": "1"}),
}
_VIDEO_SUFFIXES = tuple(sorted(_CODECS))
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
    ones. `.mkv` is FFV1 (RFC 9043) and exact. Equal frames give equal bytes. `.gif` loops, has one
    palette of 256 colours, exact for frames with no more, and plays at 50 frames per second at
    most: viewers slow anything faster down; until it is done, its frames wait on the disk, H·W·3
    bytes each.

    Args:
        path: the file to write; an older one is replaced.
        frames: each (H, W, 3) uint8, RGB in 0..255, all of one shape, at least one.
        fps: frames per second, 0.1 to 1000.

    Raises:
        ClipError: another suffix, frame or rate, no frames, or no H.264 encoder.
        WmdeployError: the place cannot be written.
    """
    import av

    check_suffix(path, _VIDEO_SUFFIXES)
    codec = _CODECS[path.suffix.lower()][0]
    if codec not in av.codecs_available:
        raise ClipError(
            f"{path}: this PyAV has no {codec} encoder; install PyAV from PyPI (pip install av) "
            "or write .gif or .mkv"
        )
    if not (math.isfinite(fps) and 0.1 <= fps <= 1000):
        raise ClipError(f"{path}: got {fps} frames per second, expected 0.1 to 1000")
    checked = _checked(path, frames)
    first = next(checked, None)
    if first is None:
        raise ClipError(f"{path}: got no frames, expected at least one")
    write = write_gif if path.suffix.lower() == ".gif" else _encode
    with staged_file(path) as staged, _told(path, first.shape):
        write(staged, first.shape, chain([first], checked), fps)


def write_npz(
    path: Path,
    frames: np.ndarray,
    actions: np.ndarray | None = None,
    rewards: np.ndarray | None = None,
    ends: np.ndarray | None = None,
    *,
    final: np.ndarray | None = None,
) -> None:
    """Write frames (T, H, W, 3) uint8, and what is known beside them, compressed.

    Args:
        actions: (T,) int64 or (T, n) float32.
        rewards: (T,) float32; ends: (T,) bool; final: (H, W, 3) uint8. See `clip.Outcomes`.

    Raises:
        ClipError: another suffix, type or shape.
        WmdeployError: the place cannot be written.
    """
    check_suffix(path, (".npz",))
    beside = {"actions": actions, "rewards": rewards, "ends": ends, "final": final}
    clip = Clip(
        frames=frames, actions=actions, name=path.stem, rewards=rewards, ends=ends, final=final
    )
    if final is not None and final.shape != clip.frames.shape[1:]:
        raise ClipError(
            f"{path}: final: got {described(final)}, expected uint8 {clip.frames.shape[1:]} as "
            "the frames are"
        )
    _save(path, clip.frames, len(clip), {k: v for k, v in beside.items() if v is not None})


def write_npz_frames(path: Path, frames: Iterable[np.ndarray], length: int) -> None:
    """Write frames as `write_npz` does, each when it comes.

    Args:
        frames: each (H, W, 3) uint8, all of one shape.
        length: how many there will be, at least 1.

    Raises:
        ClipError: another suffix, frame or number of them.
        WmdeployError: the place cannot be written.
    """
    check_suffix(path, (".npz",))
    _save(path, _checked(path, frames), length, {})


def _save(
    path: Path, frames: Iterable[np.ndarray], length: int, beside: Mapping[str, np.ndarray]
) -> None:
    """What np.savez_compressed writes, of which no more than a frame is in memory."""
    incoming = iter(frames)
    first = next(incoming, None)
    if first is None:
        raise ClipError(f"{path}: got 0 frames, expected {length}")
    header = {"descr": "|u1", "fortran_order": False, "shape": (length, *first.shape)}
    with (
        staged_file(path) as staged,
        zipfile.ZipFile(staged, "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        with archive.open("frames.npy", "w", force_zip64=True) as file:
            npy.write_array_header_1_0(file, header)
            count = 0
            for frame in chain([first], incoming):
                file.write(np.ascontiguousarray(frame).data)
                count += 1
        if count != length:
            raise ClipError(f"{path}: got {count} frames, expected {length}")
        for name, values in beside.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                npy.write_array(file, np.ascontiguousarray(values), allow_pickle=False)


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
