"""Arrays of .npy and .npz files, of which only the rows that are asked for are read.

Knows the format (numpy.lib.format), not what an array means. Python objects are never unpickled:
that could run code.
"""

import os
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import copy
from functools import partial
from lzma import LZMAError
from pathlib import Path
from tokenize import TokenError
from typing import IO, Protocol

import numpy as np
from numpy.lib import format as npy

from wmdeploy.clips.clip import reason
from wmdeploy.errors import ClipError

# What numpy raises for a damaged header or body of an array.
ARRAY_DAMAGE = (ValueError, EOFError, SyntaxError, TypeError, TokenError, OverflowError)
# RuntimeError: encrypted members, and (as NotImplementedError) unknown compressions.
_ZIP_DAMAGE = (OSError, RuntimeError, zipfile.BadZipFile, zlib.error, LZMAError)
MOST_ARRAYS = 1000  # of one file
_PIECE = 2**20  # bytes


class Stored(Protocol):
    """An array in a file, of which nothing is in memory."""

    shape: tuple[int, ...]
    dtype: np.dtype

    def rows(self, first: int, last: int) -> Iterator[np.ndarray]:
        """array[first], ..., array[last - 1], each read when it is asked for."""

    def check(self) -> None:
        """Refuse what cannot be read, before any memory is taken.

        Raises:
            ClipError: it holds Python objects, is in another order than C's, is damaged, or lies in
                other files.
        """

    def unbatched(self) -> "Stored":
        """array[0] of an array (1, ...)."""


class NpyArray:
    """One array of a file or archive. See `Stored`."""

    def __init__(self, place: str, opened: Callable[[], IO[bytes]], size: int) -> None:
        """`opened` opens the bytes at their start, of which there are `size`."""
        self._place, self._opened = place, opened
        with opened() as file:
            major, _ = npy.read_magic(file)
            read = npy.read_array_header_1_0 if major == 1 else npy.read_array_header_2_0
            self.shape, self._fortran_order, self.dtype = read(file)
            self._start = file.tell()
        self._size = size

    def rows(self, first: int, last: int) -> Iterator[np.ndarray]:
        row_bytes = self._row_bytes()
        with self._opened() as file:
            _skip(file, self._start + first * row_bytes)
            for _ in range(first, last):
                data = _read_exactly(file, row_bytes)
                yield np.frombuffer(data, self.dtype).reshape(self.shape[1:])

    def unbatched(self) -> "NpyArray":
        inner = copy(self)
        inner.shape = self.shape[1:]
        return inner

    def pickled(self, most: int) -> bytes:
        """The bytes behind the header of an array of objects; b"" if they are more than `most`."""
        if self._size - self._start > most:
            return b""
        with self._opened() as file:
            _skip(file, self._start)
            return file.read(most)

    def _row_bytes(self) -> int:
        return int(np.prod(self.shape[1:], dtype=object)) * self.dtype.itemsize

    def check(self) -> None:
        if self.dtype.hasobject:
            raise ClipError(
                f"{self._place}: holds Python objects, which are not read, as they could run code; "
                "save numbers, each clip in its own file if they differ in length"
            )
        if self._fortran_order and len(self.shape) > 1:
            raise ClipError(
                f"{self._place}: is stored in Fortran order, expected C order; "
                "save numpy.ascontiguousarray of it"
            )
        expected = self._start + self.shape[0] * self._row_bytes()
        if self._size != expected:
            raise ClipError(
                f"{self._place}: holds {self._size} bytes, expected {expected} for "
                f"{self.dtype} {self.shape}; the file is damaged"
            )


@contextmanager
def npz_arrays(path: Path) -> Iterator[dict[str, Stored]]:
    """The arrays of an .npz by name.

    Raises:
        ClipError: it is no .npz, damaged, or has more than `MOST_ARRAYS` arrays.
    """
    try:
        with open_regular(path) as file, zipfile.ZipFile(file) as archive:
            members = [info for info in archive.infolist() if info.filename.endswith(".npy")]
            if len(members) > MOST_ARRAYS:
                raise ClipError(
                    f"{path}: holds {len(members)} arrays, expected frames (T, H, W, 3) as one; "
                    "save numpy.stack of them"
                )
            arrays: dict[str, Stored] = {}
            for info in members:
                name = info.filename.removesuffix(".npy")
                opened = partial(archive.open, info)
                arrays[name] = NpyArray(f"{path}: {name}", opened, info.file_size)
            yield arrays
    except (*_ZIP_DAMAGE, *ARRAY_DAMAGE) as error:
        raise ClipError(f"{path}: cannot be read as .npz ({reason(error)})") from error


@contextmanager
def npy_array(path: Path, what: str = ".npy") -> Iterator[NpyArray]:
    """The array of an .npy; `what` it should be is for messages.

    Raises:
        ClipError: it is no .npy, or damaged.
    """
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
        yield NpyArray(str(path), partial(open_regular, path), size)
    except (*_ZIP_DAMAGE, *ARRAY_DAMAGE) as error:
        raise ClipError(f"{path}: cannot be read as {what} ({reason(error)})") from error


def open_regular(path: Path) -> IO[bytes]:
    """Open a file, but never wait for one that is a pipe, and read no device.

    Raises:
        OSError: it cannot be opened or is not a regular file.
    """
    number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise OSError(f"{path.name} is not a regular file")
    return os.fdopen(number, "rb")


def _skip(file: IO[bytes], count: int) -> None:
    if not isinstance(file, zipfile.ZipExtFile):
        file.seek(count)
        return
    while count > 0:  # seek would read 16 MB at a time
        count -= len(_read_exactly(file, min(count, _PIECE)))


def _read_exactly(file: IO[bytes], count: int) -> bytes:
    data = file.read(count)
    if len(data) != count:
        raise EOFError(f"{len(data)} bytes where {count} were expected")
    return data
