"""Frames and actions from an .npz file, without loading the whole array.

Reads the array's header inside the archive and streams the frames that are asked for. Pickled
(object) arrays are refused: reading them could run code.
"""

import zipfile
import zlib
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from lzma import LZMAError
from tokenize import TokenError
from typing import IO

import numpy as np
from numpy.lib import format as npy

from wmdeploy.clips.clip import reason
from wmdeploy.clips.source import Source
from wmdeploy.errors import ClipError

# What numpy raises for a damaged header or body of an array.
ARRAY_DAMAGE = (ValueError, EOFError, SyntaxError, TypeError, TokenError)
# RuntimeError: encrypted members, and (as NotImplementedError) unknown compressions.
_ZIP_DAMAGE = (OSError, RuntimeError, zipfile.BadZipFile, zlib.error, LZMAError)


class ArraySource(Source):
    """`frames` (T, H, W, 3) uint8 and perhaps `actions` (T,) of an .npz."""

    def count(self) -> int:
        with self._array("frames") as (_, shape, dtype):
            return self._checked(shape, dtype)[0]

    def frames(self, start: int) -> Generator[np.ndarray, None, None]:
        with self._array("frames") as (file, shape, dtype):
            length, height, width, _ = self._checked(shape, dtype)
            frame_bytes = height * width * 3
            for index in range(length if start < length else 0):
                data = _read_exactly(file, frame_bytes)  # seek would read 16 MB at a time
                if index >= start:
                    yield np.frombuffer(data, np.uint8).reshape(height, width, 3).copy()

    def actions(self) -> np.ndarray | None:
        with self._archive() as archive:
            if "actions.npy" not in archive.namelist():
                return None
        length = self.count()
        with self._array("actions") as (file, shape, dtype):
            if shape != (length,) or dtype.kind not in "iu":
                raise ClipError(
                    f"{self.path}: actions: got {dtype} {shape}, expected int64 ({length},); "
                    "give one action index for each frame"
                )
            data = _read_exactly(file, length * dtype.itemsize)
            return np.frombuffer(data, dtype).astype(np.int64)

    def _checked(self, shape: tuple[int, ...], dtype: np.dtype) -> tuple[int, ...]:
        if dtype != np.uint8 or len(shape) != 4 or shape[3] != 3 or 0 in shape:
            raise ClipError(
                f"{self.path}: frames: got {dtype} {shape}, expected uint8 (T, H, W, 3); "
                "save RGB pixels in 0..255, at least one frame"
            )
        return shape

    @contextmanager
    def _archive(self) -> Iterator[zipfile.ZipFile]:
        try:
            with zipfile.ZipFile(self.path) as archive:
                yield archive
        except (*_ZIP_DAMAGE, *ARRAY_DAMAGE) as error:
            raise ClipError(f"{self.path}: cannot be read as .npz ({reason(error)})") from error

    @contextmanager
    def _array(self, key: str) -> Iterator[tuple[IO[bytes], tuple[int, ...], np.dtype]]:
        """One array of the archive, open behind its header: (file, shape, dtype)."""
        member = f"{key}.npy"
        with self._archive() as archive:
            if member not in archive.namelist():
                found = ", ".join(name.removesuffix(".npy") for name in archive.namelist()[:8])
                raise ClipError(
                    f"{self.path}: holds {found or 'nothing'}, expected an array named {key}; "
                    f"save it with numpy.savez_compressed(path, {key}=...)"
                )
            with archive.open(member) as file:
                shape, dtype = self._header(file, key)
                expected = file.tell() + int(np.prod(shape, dtype=object)) * dtype.itemsize
                size = archive.getinfo(member).file_size
                if size != expected and not dtype.hasobject:
                    raise ClipError(
                        f"{self.path}: {key}: holds {size} bytes, expected {expected} for "
                        f"{dtype} {shape}; the file is damaged"
                    )
                yield file, shape, dtype

    def _header(self, file: IO[bytes], key: str) -> tuple[tuple[int, ...], np.dtype]:
        version = npy.read_magic(file)
        if version == (1, 0):
            shape, fortran_order, dtype = npy.read_array_header_1_0(file)
        else:
            shape, fortran_order, dtype = npy.read_array_header_2_0(file)
        if fortran_order and len(shape) > 1:
            raise ClipError(
                f"{self.path}: {key}: is stored in Fortran order, expected C order; "
                "save numpy.ascontiguousarray of it"
            )
        return shape, dtype


def _read_exactly(file: IO[bytes], count: int) -> bytes:
    data = file.read(count)
    if len(data) != count:
        raise EOFError(f"{len(data)} bytes where {count} were expected")
    return data
