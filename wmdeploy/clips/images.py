"""Frames from pictures: a folder of them, or one file, which may hold many frames.

Pictures are turned upright as their EXIF says. They come in the order of the numbers in their
names: frame-2 before frame-10, 0.5 before 0.75. Knows nothing of videos.
"""

import re
import struct
import warnings
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from wmdeploy.clips.clip import reason
from wmdeploy.clips.source import Source, Timeline
from wmdeploy.clips.suffixes import CLIP_SUFFIXES, PICTURE_FORMATS, PICTURE_SUFFIXES
from wmdeploy.errors import ClipError
from wmdeploy.files import refuse_pointer

if TYPE_CHECKING:
    from PIL.Image import Image

# Modes whose conversion to RGB loses nothing but transparency; 16-bit and float ones would clip.
_EIGHT_BIT_MODES = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"})
# A JPEG of a phone may hold more than its picture, such as a depth map: those are no frames.
_FORMATS_OF_FRAMES = ("PNG", "TIFF", "WEBP")
_NUMBER = r"[0-9]+(?:\.[0-9]+)?"
_TIFF_SUBFILE = 254  # tag; its lowest bit: a smaller copy of another page


def natural_order(path: Path) -> tuple[list[tuple[int, Decimal, str]], str]:
    """A sort key that reads digits as numbers, and capitals as small letters."""
    parts = re.findall(rf"({_NUMBER})|([^0-9]+)", _stem(path))
    keys = [(0, Decimal(n), "") if n else (1, Decimal(0), text.casefold()) for n, text in parts]
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


def one_series(folder: Path, series: str | None) -> list[Path]:
    """The pictures of a folder that belong together, in natural order.

    Names that differ in their numbers alone are one series. Where no two names do, all pictures of
    the folder are one.

    Args:
        series: the name of one as the error tells it, or a part of the name that only one has.

    Raises:
        ClipError: there are several series, and `series` does not pick one.
    """
    groups = _series(list_pictures(folder))
    listing = ", ".join(f"{name}: {len(pictures)}" for name, pictures in list(groups.items())[:4])
    listing += ", ..." if len(groups) > 4 else ""
    if series is None:
        several = len(groups) > 1 and max(map(len, groups.values())) > 1
        if several:
            raise ClipError(
                f"{folder}: holds {len(groups)} series of pictures ({listing}), expected one; "
                f"choose it by its name, such as series={next(iter(groups))}"
            )
        return sorted((p for pictures in groups.values() for p in pictures), key=natural_order)
    wanted = series.casefold()
    fitting = [name for name in groups if name.casefold() == wanted] or [
        name for name in groups if wanted in name.casefold()
    ]
    if len(fitting) != 1:
        raise ClipError(
            f"{folder}: series: got {series!r}, which is {len(fitting) or 'none'} of its series "
            f"({listing}); name one of them"
        )
    return groups[fitting[0]]


class PictureSource(Source):
    """A picture, an animated or many-paged one, or the pictures of a folder, as one clip."""

    def __init__(self, path: Path, series: str | None = None) -> None:
        super().__init__(path)
        self._folder = one_series(path, series) if path.is_dir() else None
        self.is_animation = self._folder is None

    def count(self) -> int:
        if self._folder is not None:
            return len(self._folder)
        with _opened(self.path, self.notes) as picture:
            return len(_pages(picture))

    def frames(self, start: int) -> Generator[np.ndarray, None, None]:
        if self._folder is None:
            with _opened(self.path, self.notes) as picture:
                for page in _pages(picture)[start:]:
                    picture.seek(page)
                    yield _pixels(picture, self.path, self.notes)
            return
        for path in self._folder[start:]:
            with _opened(path, self.notes) as picture:
                if len(pages := _pages(picture)) > 1:
                    raise ClipError(
                        f"{path}: holds {len(pages)} frames beside other pictures, expected one in "
                        "each; give it by itself"
                    )
                yield _pixels(picture, path, self.notes)

    @cached_property
    def timeline(self) -> Timeline | None:
        """Of an animation; None for pictures and pages, which have no times."""
        if self._folder is not None:
            return None
        with _opened(self.path, self.notes) as picture:
            delays = []
            for page in _pages(picture):
                picture.seek(page)
                picture.load()  # a WebP tells it only now
                delays.append(round(picture.info.get("duration", 0)))
        if not any(delays):
            return None
        # as browsers do: 10 ms and less stand for 100
        shown = [100 if delay <= 10 else delay for delay in delays]
        return Timeline(np.cumsum([0, *shown], dtype=np.int64), Fraction(1, 1000))


def is_animation(path: Path) -> bool:
    """Whether a picture holds several frames; False for what cannot be read."""
    try:
        with _opened(path, []) as picture:
            return len(_pages(picture)) > 1
    except ClipError:
        return False


def _stem(path: Path) -> str:
    return path.stem if path.suffix.lower() in CLIP_SUFFIXES else path.name


def _series(pictures: Sequence[Path]) -> dict[str, list[Path]]:
    """Pictures by their names without numbers, such as rgb_%d."""
    stems = [_stem(path).casefold() for path in pictures]
    twice = len(set(stems)) < len(stems)  # 0.jpg and 0.png: each kind is one
    groups: dict[str, list[Path]] = {}
    names: dict[str, str] = {}
    for path in pictures:
        name = re.sub(_NUMBER, "%d", _stem(path)) + (path.suffix.lower() if twice else "")
        groups.setdefault(names.setdefault(name.casefold(), name), []).append(path)
    return groups


@contextmanager
def _noted(notes: list[str]) -> Iterator[None]:
    """Pillow's warnings become notes, such as one on EXIF data that are damaged."""
    from PIL.Image import DecompressionBombWarning

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        # phones make pictures of as many pixels; Pillow refuses twice as many
        warnings.simplefilter("ignore", DecompressionBombWarning)
        yield
    remarks = [f"Pillow warns: {' '.join(str(warning.message).split())}" for warning in caught]
    notes += [note for note in dict.fromkeys(remarks) if note not in notes]


@contextmanager
def _opened(path: Path, notes: list[str]) -> "Iterator[Image]":
    """A picture, read as the format that its suffix promises and as no other."""
    from PIL import Image, UnidentifiedImageError

    if not path.is_file():  # a pipe would be waited for, a device read for ever
        raise ClipError(f"{path}: is not a regular file; give a picture")
    refuse_pointer(path, ClipError)
    promised = PICTURE_FORMATS[path.suffix.lower()]
    try:
        with _noted(notes):
            opened = Image.open(path, formats=(promised,))
        with opened as picture:
            yield picture
    except UnidentifiedImageError as error:
        raise ClipError(
            f"{path}: cannot be read as a picture: it is damaged, or no {promised} as "
            f"{path.suffix} promises; give it the suffix of its format, or convert it"
        ) from error
    # Pillow's decoders raise any of these for damaged files.
    except (
        OSError,
        ValueError,
        SyntaxError,
        EOFError,
        KeyError,
        IndexError,
        TypeError,
        struct.error,
        Image.DecompressionBombError,
    ) as error:
        raise ClipError(f"{path}: cannot be read as a picture ({reason(error)})") from error


def _pages(picture: "Image") -> Sequence[int]:
    """The numbers, for `seek`, of what a viewer shows one after the other."""
    if picture.format not in _FORMATS_OF_FRAMES:
        return [0]
    pages = range(getattr(picture, "n_frames", 1))
    if picture.format == "TIFF":
        return [page for page in pages if page == 0 or not _is_smaller_copy(picture, page)]
    # the first picture of a PNG may stand for it where animations are not known
    return pages[1:] if picture.info.get("default_image") and len(pages) > 1 else pages


def _is_smaller_copy(picture: "Image", page: int) -> bool:
    picture.seek(page)
    return bool(picture.tag_v2.get(_TIFF_SUBFILE, 0) & 1)  # type: ignore[attr-defined]


def _pixels(picture: "Image", path: Path, notes: list[str]) -> np.ndarray:
    """(H, W, 3) uint8 of the page that is open, turned upright."""
    from PIL import ImageOps

    if picture.mode not in _EIGHT_BIT_MODES:
        raise ClipError(
            f"{path}: got a picture of mode {picture.mode}, expected 8 bits per channel; "
            "convert it to an 8-bit PNG"
        )
    with _noted(notes):
        return np.array(ImageOps.exif_transpose(picture).convert("RGB"))
