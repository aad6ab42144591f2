"""Arrays of HDF5 files: those beneath one group, and the groups that hold an episode each.

Knows the layouts of Minari (`episode_0/observations`), robomimic (`data/demo_0/obs/image`) and flat
files (D4RL, ALOHA), which differ in where the groups are only. What a file refers to outside of
itself (external links, external or virtual storage) is not read.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wmdeploy.clips.clip import reason
from wmdeploy.clips.images import natural_order
from wmdeploy.clips.layout import ACTION_NAMES, FRAME_NAMES, MOST_PIXELS, is_named
from wmdeploy.clips.npy import MOST_ARRAYS, Stored
from wmdeploy.errors import ClipError, require

if TYPE_CHECKING:
    from h5py import Dataset, Group

MOST_GROUPS = 200_000
_MOST_BLOCK = 2**28  # bytes of rows read at once
_MOST_DEPTH = 8


class Hdf5Array:
    """A data set. See `npy.Stored`."""

    def __init__(self, place: str, dataset: "Dataset", lead: tuple[int, ...] = ()) -> None:
        self._place, self._dataset, self._lead = place, dataset, lead
        self.shape: tuple[int, ...] = (dataset.shape or ())[len(lead) :]
        self.dtype: np.dtype = dataset.dtype

    def rows(self, first: int, last: int) -> Iterator[np.ndarray]:
        row_bytes = int(np.prod(self.shape[1:], dtype=object)) * self.dtype.itemsize
        # by whole chunks, as each one is decompressed whole for any row in it
        chunk = (self._dataset.chunks or (1,) * self._dataset.ndim)[len(self._lead)]
        block = max(1, min(chunk, _MOST_BLOCK // max(1, row_bytes)))
        while first < last:
            end = min(last, (first // block + 1) * block)
            yield from self._dataset[(*self._lead, slice(first, end))]
            first = end

    def check(self) -> None:
        if storage := _storage(self._dataset):
            raise ClipError(f"{self._place}: {storage}")

    def unbatched(self) -> "Hdf5Array":
        return Hdf5Array(self._place, self._dataset, (*self._lead, 0))


class EncodedPictures:
    """A data set of JPEG or PNG pictures, as Minari stores frames: rows (H, W, 3) or (H, W)."""

    def __init__(self, place: str, dataset: "Dataset") -> None:
        self._place, self._dataset = place, dataset
        self.dtype = np.dtype(np.uint8)
        self.shape = (dataset.shape[0], *self._decoded(0).shape)

    def rows(self, first: int, last: int) -> Iterator[np.ndarray]:
        for index in range(first, last):
            picture = self._decoded(index)
            if picture.shape != self.shape[1:]:
                raise ClipError(
                    f"{self._place}: picture {index} is {picture.shape}, the first was "
                    f"{self.shape[1:]}; save pictures of one size"
                )
            yield picture

    def check(self) -> None:
        pass  # was checked before its first picture was decoded

    def unbatched(self) -> "EncodedPictures":
        return self  # has no axis before its rows

    def _decoded(self, index: int) -> np.ndarray:
        from PIL import Image

        data = self._dataset[index].tobytes()
        try:
            with Image.open(BytesIO(data), formats=("JPEG", "PNG")) as picture:
                if picture.width * picture.height > MOST_PIXELS:
                    raise ValueError(f"{picture.width} x {picture.height} pixels are too many")
                return np.array(picture if picture.mode == "L" else picture.convert("RGB"))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise ClipError(
                f"{self._place}: picture {index} cannot be read ({reason(error)})"
            ) from error


@contextmanager
def hdf5_arrays(path: Path, group: str) -> Iterator[dict[str, Stored]]:
    """The arrays beneath a group, named by their place in it: "obs/agentview_image".

    Raises:
        ClipError: it is no HDF5 file, is damaged, or has no such group.
    """
    with _opened(path) as file:
        inside = file[group] if group else file
        arrays: dict[str, Stored] = {}
        for name, dataset in _datasets(inside, "", 0):
            if len(arrays) == MOST_ARRAYS:
                raise ClipError(
                    f"{path}: {group or 'it'} holds more than {MOST_ARRAYS} arrays, expected the "
                    "frames of an episode as one; save numpy.stack of them"
                )
            place = f"{path}: {name}"
            encoded = _is_encoded(dataset)
            arrays[name] = (EncodedPictures if encoded else Hdf5Array)(place, dataset)
        yield arrays


def episode_groups(path: Path) -> dict[str, None]:
    """The groups that hold frames or actions themselves, "" being the file: one for each episode.

    In natural order, as the keys of a dict, since a file may have thousands.

    Raises:
        ClipError: it is no HDF5 file, is damaged, or has more than `MOST_GROUPS` groups.
    """
    status = path.stat()
    return _episode_groups(path, status.st_mtime_ns, status.st_size)


def root_names(path: Path) -> list[str]:
    """What a file holds, for messages."""
    with _opened(path) as file:
        return list(file)


@lru_cache(maxsize=16)
def _episode_groups(path: Path, changed: int, size: int) -> dict[str, None]:
    with _opened(path) as file:
        groups: list[str] = []
        seen: set[Any] = set()
        _walk(file, "", groups, seen, path)
        return dict.fromkeys(groups)


def _walk(group: "Group", name: str, groups: list[str], seen: set[Any], path: Path) -> None:
    import h5py

    address = h5py.h5o.get_info(group.id).addr
    if address in seen or name.count("/") > _MOST_DEPTH:
        return
    seen.add(address)
    if len(seen) > MOST_GROUPS:
        raise ClipError(f"{path}: holds more than {MOST_GROUPS} groups; save it in parts")
    kinds = {key: _kind(group, key) for key in group}
    names = (*FRAME_NAMES, *ACTION_NAMES)
    if any(kind is h5py.Dataset and is_named(key, names) for key, kind in kinds.items()):
        groups.append(name)
        return
    for key in sorted(kinds, key=lambda key: natural_order(Path(key))):
        if kinds[key] is h5py.Group:
            _walk(group[key], f"{name}/{key}".lstrip("/"), groups, seen, path)


def _kind(group: "Group", key: str) -> type | None:
    """What a name stands for; None for links, which may lead anywhere."""
    import h5py

    if group.get(key, getlink=True, getclass=True) is not h5py.HardLink:
        return None
    kind: type | None = group.get(key, getclass=True)
    return kind


def _datasets(group: "Group", name: str, depth: int) -> "Iterator[tuple[str, Dataset]]":
    import h5py

    for key in group:
        kind, inner = _kind(group, key), f"{name}/{key}".lstrip("/")
        if kind is h5py.Dataset:
            yield inner, group[key]
        elif kind is h5py.Group and depth < _MOST_DEPTH:
            yield from _datasets(group[key], inner, depth + 1)


def _is_encoded(dataset: "Dataset") -> bool:
    """Whether each row is a JPEG or PNG file: uint8 (T, bytes), or (T,) of different lengths."""
    import h5py

    various = h5py.check_vlen_dtype(dataset.dtype) == np.uint8 and dataset.ndim == 1
    padded = dataset.dtype == np.uint8 and dataset.ndim == 2
    if not (various or padded) or 0 in dataset.shape or _storage(dataset):
        return False
    return dataset[0].tobytes().startswith((b"\xff\xd8\xff", b"\x89PNG"))


def _storage(dataset: "Dataset") -> str:
    """What speaks against reading a data set; "" if nothing does."""
    if dataset.external or dataset.is_virtual:
        return "its data lie in other files, which are not read; copy them into this one"
    chunk = int(np.prod(dataset.chunks or (0,), dtype=object)) * dataset.dtype.itemsize
    if chunk > _MOST_BLOCK * 4:
        return f"its chunks have {chunk / 2**30:.1f} GiB each, expected at most 1; save it again"
    return ""


@contextmanager
def _opened(path: Path) -> "Iterator[Group]":
    h5py = require("h5py", extra="data", purpose="reading HDF5")
    try:
        with h5py.File(path, "r") as file:
            yield file
    # KeyError, RuntimeError: what h5py raises where the structure is damaged
    except (OSError, KeyError, RuntimeError, ValueError, TypeError) as error:
        raise ClipError(f"{path}: cannot be read as HDF5 ({reason(error)})") from error
