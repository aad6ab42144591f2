"""Frames from a folder of pictures, and the exact area resize every reader uses.

Pictures come in the order a person would give them: frame-2 before frame-10. They are taken as
stored: rotation tags are not applied. Knows nothing of videos.
"""

import re
from collections.abc import Generator
from pathlib import Path

import numpy as np

from wmdeploy.clips.clip import reason
from wmdeploy.errors import ClipError
from wmdeploy.files import refuse_pointer

PICTURE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})
# Modes whose conversion to RGB loses nothing but transparency; 16-bit and float ones would clip.
_EIGHT_BIT_MODES = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"})


def natural_order(path: Path) -> tuple[list[tuple[int, int, str]], str]:
    """A sort key that reads digits as numbers."""
    parts = re.findall(r"([0-9]+)|([^0-9]+)", path.name)
    keys = [(0, int(digits), "") if digits else (1, 0, text) for digits, text in parts]
    return keys, path.name


def list_pictures(folder: Path) -> list[Path]:
    """The pictures directly in a folder, in natural order; hidden files are left out."""
    return sorted(
        (
            path
            for path in folder.iterdir()
            if path.suffix.lower() in PICTURE_SUFFIXES and not path.name.startswith(".")
        ),
        key=natural_order,
    )


class PictureSource:
    """A picture, or the pictures of a folder, as one clip. See `read.Source`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._pictures = list_pictures(path) if path.is_dir() else [path]

    def count(self) -> int:
        return len(self._pictures)

    def fps(self) -> float:
        return 30.0

    def frames(self, start: int) -> Generator[np.ndarray, None, None]:
        return (_read_picture(path) for path in self._pictures[start:])

    def actions(self) -> None:
        return None


def _read_picture(path: Path) -> np.ndarray:
    from PIL import Image

    refuse_pointer(path, ClipError)
    try:
        with Image.open(path) as picture:
            if picture.mode not in _EIGHT_BIT_MODES:
                raise ClipError(
                    f"{path}: got a picture of mode {picture.mode}, expected 8 bits per channel; "
                    "convert it to an 8-bit PNG"
                )
            return np.array(picture.convert("RGB"))
    # Pillow's decoders raise SyntaxError and ValueError for some damaged files.
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise ClipError(f"{path}: cannot be read as a picture ({reason(error)})") from error


def area_resize(frame: np.ndarray, size: int) -> np.ndarray:
    """Resize one frame to `size` x `size` by exact area interpolation.

    Each new pixel is the mean of the area it covers, to within one level (Pillow rounds after each
    axis), so nothing smaller than a pixel is lost, as a ball of two pixels would be with other
    filters. A frame of that size already comes back as is.

    Args:
        frame: (H, W, 3) uint8.
        size: both sides of the result, at least 1.
    """
    from PIL import Image

    if frame.shape[:2] == (size, size):
        return frame
    return np.array(Image.fromarray(frame).resize((size, size), Image.Resampling.BOX))
