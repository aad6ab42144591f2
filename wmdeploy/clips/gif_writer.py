"""Write a GIF of any length: its palette depends on all of its frames, so these wait on the disk.

They wait in a file without a name beside the GIF: a killed process leaves nothing of it.
"""

from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

import numpy as np

MOST_COLOURS = 256
SAMPLED = 16  # frames, at least, that a palette of many colours is made of
FASTEST = 50  # frames per second; viewers slow down what is faster


def write_gif(path: Path, shape: tuple[int, ...], frames: Iterable[np.ndarray], fps: float) -> None:
    """Write frames with one palette, so that nothing flickers.

    Args:
        frames: each (H, W, 3) uint8 of `shape`, at least one.

    Raises:
        OSError: the disk is full, of which the waiting frames need H·W·3 bytes each.
        av.FFmpegError: it cannot be encoded.
    """
    with TemporaryFile(dir=path.parent) as file:
        waiting = _Waiting(file, shape)
        colours = waiting.fill(frames)
        if len(colours) > MOST_COLOURS:
            palette, indexed = _quantized(waiting)
        else:
            palette, indexed = _exact(waiting, colours)
        # A GIF counts in hundredths of a second: round times, not durations, to keep the pace.
        times = [round(100 * i / min(fps, FASTEST)) for i in range(len(waiting) + 1)]
        _encode(path, shape, palette, indexed, times)


class _Waiting:
    """Frames in a file."""

    def __init__(self, file: IO[bytes], shape: tuple[int, ...]) -> None:
        self._file, self._shape, self._count = file, shape, 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[np.ndarray]:
        for index in range(self._count):
            yield self.frame(index)

    def fill(self, frames: Iterable[np.ndarray]) -> set[int]:
        """Keep frames; gives all of their colours, or some if they are more than a palette has."""
        colours: set[int] = set()
        for frame in frames:
            self._file.write(np.ascontiguousarray(frame).data)
            self._count += 1
            if len(colours) <= MOST_COLOURS:
                colours.update(np.unique(_packed(frame)).tolist())
        return colours

    def frame(self, index: int) -> np.ndarray:
        size = int(np.prod(self._shape))
        self._file.seek(index * size)
        return np.frombuffer(self._file.read(size), np.uint8).reshape(self._shape)


def _exact(waiting: _Waiting, colours: set[int]) -> tuple[np.ndarray, Iterable[np.ndarray]]:
    """A palette (N, 3) of at most 256 colours, and each frame (H, W) as indices into it."""
    packed = np.array(sorted(colours))
    palette = np.stack([packed >> 16, packed >> 8 & 255, packed & 255], axis=1)
    return palette, (np.searchsorted(packed, _packed(frame)) for frame in waiting)


def _quantized(waiting: _Waiting) -> tuple[np.ndarray, Iterable[np.ndarray]]:
    """As `_exact`, for more colours: the nearest of a palette that fits frames of all times."""
    from PIL import Image

    places = range(0, len(waiting), max(1, len(waiting) // SAMPLED))
    sampled = Image.fromarray(np.concatenate([waiting.frame(place) for place in places]))
    chosen = sampled.quantize(MOST_COLOURS)
    pictures = (Image.fromarray(frame) for frame in waiting)
    indexed = (one.quantize(palette=chosen, dither=Image.Dither.NONE) for one in pictures)
    palette = np.array(chosen.getpalette("RGB")).reshape(-1, 3)
    return palette, (np.asarray(picture) for picture in indexed)


def _encode(
    path: Path,
    shape: tuple[int, ...],
    palette: np.ndarray,
    indexed: Iterable[np.ndarray],
    times: list[int],
) -> None:
    """Encode frames (H, W) of indices; `times` in hundredths of a second, with the end's."""
    import av

    opaque = np.zeros((MOST_COLOURS, 4), np.uint8)  # alpha, red, green, blue
    opaque[:, 0] = 255
    opaque[: len(palette), 1:] = palette
    options = {"fflags": "+bitexact", "final_delay": str(times[-1] - times[-2]), "loop": "0"}
    with av.open(str(path), "w", container_options=options) as container:
        stream = container.add_stream("gif", 100)
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width, stream.pix_fmt = shape[0], shape[1], "pal8"
        for time, indices in zip(times[:-1], indexed, strict=True):
            # PyAV's annotations know no palettes
            pair: Any = (indices.astype(np.uint8), opaque)
            picture = av.VideoFrame.from_ndarray(pair, format="pal8")
            picture.pts, picture.time_base = time, Fraction(1, 100)
            container.mux(stream.encode(picture))
        container.mux(stream.encode())


def _packed(frame: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 -> (H, W) int64, one number per colour."""
    red, green, blue = np.moveaxis(frame.astype(np.int64), 2, 0)
    return red << 16 | green << 8 | blue
