"""Clips in files of arrays: .npy, .npz and HDF5, of which a file may hold one episode or many.

A path may lead into such a file, as if it were a folder:

    pong.npz                             the only clip of a file
    pong.npz/episode-00003               one of several, told apart by `is_first`, `dones` and such
    demos.hdf5/data/demo_0               a group that holds an episode
    demos.hdf5/data/demo_0/obs/wrist     one of its series of frames, where it has several

Streams: no more than the rows that are asked for is read. Knows what layout.py and actions.py make
of arrays, not how they are stored.
"""

from collections.abc import Container, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np

from wmdeploy.clips.actions import read_actions
from wmdeploy.clips.hdf5 import episode_groups, hdf5_arrays
from wmdeploy.clips.layout import (
    END_NAMES,
    START_NAMES,
    FramesLayout,
    find_actions,
    find_frames,
    frames_layout,
    is_named,
    listed,
)
from wmdeploy.clips.npy import Stored, npy_array, npz_arrays
from wmdeploy.clips.source import Source
from wmdeploy.clips.suffixes import ARRAY_SUFFIXES
from wmdeploy.errors import ClipError

MOST_EPISODES = 100_000  # of one file
_EPISODE = "episode-"
HDF5_SUFFIXES = (".hdf5", ".h5")


@dataclass(frozen=True)
class _Series:
    """Where a clip lies in its file: a group, its array of frames, and how to read it.

    Attributes:
        cuts: frames at which an episode begins, and behind the last of them the end.
        unread: arrays that are not read.
    """

    group: str
    frames: str
    actions: str | None
    layout: FramesLayout
    cuts: np.ndarray
    unread: tuple[str, ...]


class ArraySource(Source):
    """One clip in a file of arrays."""

    def count(self) -> int:
        first, last = self._span
        return last - first

    def frames(self, start: int) -> Generator[np.ndarray, None, None]:
        (first, last), series = self._span, self._series
        layout = series.layout
        with self._arrays() as arrays:
            array = arrays[series.frames]
            rows = (array.unbatched() if layout.batch else array).rows
            for index, row in enumerate(rows(min(first + start, last), last), start):
                yield layout.frame(row, f"{self.path}: {series.frames}: frame {index}")

    def actions(self) -> np.ndarray | None:
        series = self._series
        if series.actions is None:
            return None
        first, last = self._span
        length = series.layout.shape[0]
        with self._arrays() as arrays:
            found, note = read_actions(arrays, series.actions, first, last, length, str(self.path))
        if note and note not in self.notes:
            self.notes.append(note)
        return found

    @cached_property
    def _series(self) -> _Series:
        file, inside = self._file
        series, _ = _find_series(file, inside)
        if series.layout.note:
            self.notes.append(series.layout.note)
        if series.unread:
            self.notes.append(f"not read: {listed(series.unread)}")
        return series

    @cached_property
    def _file(self) -> tuple[Path, tuple[str, ...]]:
        found = inside_file(self.path)
        assert found is not None, self.path
        return found

    @property
    def _span(self) -> tuple[int, int]:
        """The rows of this clip: its first, and the one behind its last."""
        series = self._series
        _, number = _find_series(*self._file)
        if number is None:
            return 0, int(series.cuts[-1])
        return int(series.cuts[number]), int(series.cuts[number + 1])

    @contextmanager
    def _arrays(self) -> Iterator[Mapping[str, Stored]]:
        with _open_arrays(self._file[0], self._series.group) as arrays:
            yield arrays


def inside_file(path: Path) -> tuple[Path, tuple[str, ...]] | None:
    """The file of arrays that a path is or leads into, and the names inside it; None for others."""
    for file in (path, *path.parents):
        if file.suffix.lower() in ARRAY_SUFFIXES and file.is_file():
            return file, path.relative_to(file).parts
    return None


def array_clips(path: Path) -> list[Path]:
    """The clips of a file of arrays, or of what lies beneath a name in it, each a path.

    Raises:
        ClipError: it cannot be read, or holds no frames.
    """
    found = inside_file(path)
    assert found is not None, path
    file, inside = found
    if file.suffix.lower() not in HDF5_SUFFIXES:
        return _episodes(file, inside)
    groups = episode_groups(file)
    if not groups:
        raise ClipError(
            f"{file}: holds no data sets with the names of frames or actions; expected groups as "
            "of Minari or robomimic, or frames (T, H, W, 3)"
        )
    if _owner(groups, inside) is not None:
        return _episodes(file, inside)
    place = "".join(f"{part}/" for part in inside)
    below = [tuple(group.split("/")) for group in groups if group.startswith(place)]
    return [clip for group in below or [inside] for clip in _episodes(file, group)]


def _owner(groups: Container[str], inside: tuple[str, ...]) -> str | None:
    """The group with an episode that a path leads to or through."""
    names = ("/".join(inside[:length]) for length in range(len(inside) + 1))
    return next((name for name in names if name in groups), None)


def _episodes(file: Path, inside: tuple[str, ...]) -> list[Path]:
    place = file.joinpath(*inside)
    series, number = _find_series(file, inside)
    if number is not None or len(series.cuts) == 2:
        return [place]
    return [place / f"{_EPISODE}{index:05}" for index in range(len(series.cuts) - 1)]


def _find_series(file: Path, inside: tuple[str, ...]) -> tuple[_Series, int | None]:
    """What a path inside a file stands for, and the number of its episode if it names one."""
    number = None
    if inside and inside[-1].startswith(_EPISODE) and inside[-1][len(_EPISODE) :].isdecimal():
        number, inside = int(inside[-1][len(_EPISODE) :]), inside[:-1]
    status = file.stat()
    try:
        series = _series(file, inside, status.st_mtime_ns, status.st_size)
    except ClipError:
        if number is None or file.suffix.lower() not in HDF5_SUFFIXES:
            raise
        # a group that somebody named as we name episodes
        whole = (*inside, f"{_EPISODE}{number}")
        return _series(file, whole, status.st_mtime_ns, status.st_size), None
    if number is not None and number >= len(series.cuts) - 1:
        raise ClipError(
            f"{file.joinpath(*inside)}: has {len(series.cuts) - 1} episodes, asked for {number}"
        )
    return series, number


@lru_cache(maxsize=4096)
def _series(file: Path, inside: tuple[str, ...], changed: int, size: int) -> _Series:
    group, chosen = "", "/".join(inside)
    if file.suffix.lower() in HDF5_SUFFIXES:
        owner = _owner(episode_groups(file), inside)
        group = chosen if owner is None else owner
        chosen = chosen.removeprefix(group).lstrip("/")
    place = str(file.joinpath(group))
    with _open_arrays(file, group) as arrays:
        if chosen and chosen not in arrays:
            raise ClipError(f"{place}: holds {listed(arrays) or 'nothing'}, and no {chosen}")
        frames = chosen or find_frames(arrays, place)
        layout = frames_layout(frames, arrays[frames], place)
        arrays[frames].check()
        actions = find_actions(arrays, place)
        used, cuts = _cuts(arrays, layout.shape[0], place)
        unread = tuple(name for name in arrays if name not in {frames, actions, *used})
    return _Series(group, frames, actions, layout, cuts, unread)


def _cuts(arrays: Mapping[str, Stored], length: int, place: str) -> tuple[list[str], np.ndarray]:
    """The arrays that tell where episodes begin and end, and the frames at which they do."""
    marks = np.zeros(length + 1, bool)
    used = []
    for name, array in arrays.items():
        starts = "/" not in name and is_named(name, START_NAMES)
        ends = "/" not in name and is_named(name, END_NAMES)
        if not (starts or ends) or array.dtype.kind not in "biuf":
            continue
        if array.shape not in ((length,), (length, 1)):
            continue
        array.check()
        values = np.fromiter((row.item() for row in array.rows(0, length)), float, length)
        first = values == 0 if is_named(name, ("step_type",)) else values != 0
        marks[:-1] |= first if starts else False
        marks[1:] |= first if ends else False
        used.append(name)
    marks[[0, -1]] = True
    cuts = np.flatnonzero(marks)
    if len(cuts) > MOST_EPISODES:
        raise ClipError(
            f"{place}: holds {len(cuts) - 1} episodes, expected at most {MOST_EPISODES}"
        )
    return used, cuts


@contextmanager
def _open_arrays(file: Path, group: str) -> Iterator[Mapping[str, Stored]]:
    suffix = file.suffix.lower()
    if suffix in HDF5_SUFFIXES:
        with hdf5_arrays(file, group) as arrays:
            yield arrays
    elif suffix == ".npz":
        with npz_arrays(file) as arrays:
            yield arrays
    else:
        with npy_array(file) as array:
            yield {"frames": array}
