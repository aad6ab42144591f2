"""Small videos and pictures for tests, made with PyAV and Pillow."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np

TICK = Fraction(1, 9000)  # of `times`

# the colours of four corners: red, green, blue, white
CORNERS = {"R": (255, 0, 0), "G": (0, 255, 0), "B": (0, 0, 255), "W": (255, 255, 255)}


def quarters(height: int = 48, width: int = 64) -> np.ndarray:
    """(H, W, 3): red and green above, blue and white below."""
    frame = np.empty((height, width, 3), np.uint8)
    for name, y, x in (("R", 0, 0), ("G", 0, 1), ("B", 1, 0), ("W", 1, 1)):
        rows = slice(y * height // 2, (y + 1) * height // 2)
        frame[rows, x * width // 2 : (x + 1) * width // 2] = CORNERS[name]
    return frame


def corners(frame: np.ndarray) -> str:
    """The nearest colours of the corners: upper left, upper right, lower left, lower right."""
    height, width = frame.shape[:2]
    told = ""
    for y in (height // 4, height - height // 4):
        for x in (width // 4, width - width // 4):
            pixel = frame[y, x].astype(int)
            told += min(CORNERS, key=lambda name: int(np.abs(pixel - CORNERS[name]).sum()))
    return told


def greys(count: int, height: int = 32, width: int = 32) -> np.ndarray:
    """(T, H, W, 3): frame t is all of the level 10·t + 20, which lossy codecs keep to within 4."""
    levels = 10 * np.arange(count) + 20
    return np.broadcast_to(levels[:, None, None, None], (count, height, width, 3)).astype(np.uint8)


def numbers(frames: np.ndarray) -> list[int]:
    """Which frame of `greys` each one is."""
    means = frames.reshape(len(frames), -1).mean(axis=1)
    return [round((mean - 20) / 10) for mean in means]


def encode(
    path: Path,
    frames: np.ndarray,
    codec: str = "libx264",
    times: Sequence[int] | None = None,
    pixel_format: str = "yuv420p",
    pixel_aspect: Fraction | None = None,
    options: dict[str, str] | None = None,
) -> Path:
    """Write a video; `times` say when each frame is shown, in 9000ths of a second."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=30, options=options or {})
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pixel_format
        if pixel_aspect:
            stream.codec_context.sample_aspect_ratio = pixel_aspect
        stream.codec_context.time_base = TICK if times else Fraction(1, 30)
        for index, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, 30)
            if times:
                frame.pts, frame.time_base = times[index], TICK
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def set_display_matrix(path: Path, matrix: tuple[int, int, int, int]) -> None:
    """Write a, b, c and d of a display matrix into the track header of an mp4 or mov."""
    data = bytearray(path.read_bytes())
    place = data.index(b"tkhd") + 44
    a, b, c, d = (value * 65536 for value in matrix)
    whole = np.array([a, b, 0, c, d, 0, 0, 0, 1 << 30], ">i4").tobytes()
    assert (
        data[place : place + 36]
        == np.array([65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30], ">i4").tobytes()
    )
    data[place : place + 36] = whole
    path.write_bytes(data)
