"""Clips in files of arrays: .npy, .npz and HDF5, of which a file may hold one episode or many.

A path may lead into such a file, as if it were a folder:

    pong.npz                             the only clip of a file
    pong.npz/episode-00003               one of several, separated by `is_first`, `dones` or alike
    demos.hdf5/data/demo_0               a group that holds an episode

Streams: no more than the rows that are asked for is read. Knows what layout.py and actions.py make
of arrays, not how they are stored.
"""

from collections.abc import Container, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np

from wmdeploy.clips.actions import ReadActions, read_actions
from wmdeploy.clips.clip import Outcomes
from wmdeploy.clips.hdf5 import episode_groups, hdf5_arrays, root_names
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
from wmdeploy.clips.outcomes import FINAL, find_outcomes, read_outcomes
from wmdeploy.clips.source import Source
from wmdeploy.clips.suffixes import ARRAY_SUFFIXES
from wmdeploy.errors import ClipError

MOST_EPISODES = 100_000  # of one file
_EPISODE = "episode-"
HDF5_SUFFIXES = (".hdf5", ".h5")


@dataclass(frozen=True, kw_only=True)
class _Series:
    """What of a group is read: its array of frames, how to read it, and its actions.

    Attributes:
        cuts: frames at which an episode begins, and behind the last of them the end.
        outcomes: of its rewards, ends and final picture the arrays that are there.
        unread: arrays that are not read.
    """

    frames: str
    actions: str | None
    layout: FramesLayout
    cuts: np.ndarray
    outcomes: tuple[str, ...]
    unread: tuple[str, ...]


class ArraySource(Source):
    """One clip in a file of arrays. `series` names its frames where it has several, as cameras."""

    def __init__(self, path: Path, series: str | None = None) -> None:
        super().__init__(path)
        location = inside_file(path)
        assert location is not None, path
        self._file = location[0]
        self._group, self._number = _located(*location)
        self._chosen = series

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
        actions, note, moved = self._read_actions()
        brought = self._series.outcomes
        if moved and (alike := [name for name in brought if name != FINAL]):
            note += f", {' and '.join(alike)} with them"
        if moved and FINAL in brought:
            note += f", {FINAL} is not read"
        if note and note not in self.notes:
            self.notes.append(note)
        return actions

    def outcomes(self) -> Outcomes:
        series = self._series
        if not series.outcomes:
            return Outcomes()
        try:
            moved = self._read_actions().moved
        except ClipError:
            moved = False  # actions that are not read say nothing of the rest
        (first, last), length = self._span, series.layout.shape[0]
        with self._arrays() as arrays:
            found = {name: arrays[name] for name in series.outcomes}
            return read_outcomes(found, first=first, last=last, length=length, moved=moved)

    def _read_actions(self) -> ReadActions:
        series = self._series
        if series.actions is None:
            return ReadActions(None, "")
        (first, last), length = self._span, series.layout.shape[0]
        with self._arrays() as arrays:
            return read_actions(
                arrays, series.actions, first=first, last=last, length=length, place=str(self.path)
            )

    @cached_property
    def _series(self) -> _Series:
        series = _series(self._file, self._group, self._chosen)
        if series.layout.note:
            self.notes.append(series.layout.note)
        if series.unread:
            self.notes.append(f"not read: {listed(series.unread)}")
        return series

    @property
    def _span(self) -> tuple[int, int]:
        """The rows of this clip: its first, and the one behind its last."""
        cuts, number = self._series.cuts, self._number
        if number is None:
            return 0, int(cuts[-1])
        if number >= len(cuts) - 1:
            raise ClipError(f"{self.path}: there are {len(cuts) - 1} episodes, counted from 0")
        return int(cuts[number]), int(cuts[number + 1])

    @contextmanager
    def _arrays(self) -> Iterator[Mapping[str, Stored]]:
        with _open_arrays(self._file, self._group) as arrays:
            yield arrays


def inside_file(path: Path) -> tuple[Path, tuple[str, ...]] | None:
    """The file of arrays that a path is or leads into, and the names inside it; None for others."""
    for file in (path, *path.parents):
        if file.suffix.lower() in ARRAY_SUFFIXES and file.is_file():
            return file, path.relative_to(file).parts
    return None


def array_clips(path: Path, series: str | None = None) -> list[Path]:
    """The clips of a file of arrays, or of what lies beneath a name in it, each a path.

    Of a file with several groups those that cannot be read are among them, and tell why when read.

    Raises:
        ClipError: it cannot be read, or holds no frames.
    """
    location = inside_file(path)
    assert location is not None, path
    file, inside = location
    if file.suffix.lower() in HDF5_SUFFIXES and _owner(episode_groups(file), inside) is None:
        place = "".join(f"{part}/" for part in inside)
        groups = [group for group in episode_groups(file) if group.startswith(place)]
        if not groups:
            raise ClipError(
                f"{path}: holds {listed(root_names(file)) or 'nothing'}; expected data sets of "
                "frames (T, H, W, 3) and actions, or groups of them as in Minari and robomimic"
            )
        if len(groups) > 1:
            return [clip for group in groups for clip in _episodes_or_group(file, group, series)]
        path = file / groups[0]
        inside = path.relative_to(file).parts
    group, number = _located(file, inside)
    return [path] if number is not None else _episodes(file, group, series)


def _episodes_or_group(file: Path, group: str, series: str | None) -> list[Path]:
    try:
        return _episodes(file, group, series)
    except ClipError:
        return [file / group]


def _episodes(file: Path, group: str, series: str | None) -> list[Path]:
    cuts = _series(file, group, series).cuts
    if len(cuts) == 2:
        return [file / group]
    return [file / group / f"{_EPISODE}{index:05}" for index in range(len(cuts) - 1)]


def _located(file: Path, inside: tuple[str, ...]) -> tuple[str, int | None]:
    """The group that a path inside a file leads to, and the number of an episode in it."""
    group = ""
    if file.suffix.lower() in HDF5_SUFFIXES:
        group = _owner(episode_groups(file), inside) or ""
    rest = "/".join(inside).removeprefix(group).lstrip("/")
    number = rest.removeprefix(_EPISODE)
    if rest and not (rest.startswith(_EPISODE) and number.isdecimal() and len(number) < 9):
        raise ClipError(f"{file}: holds no {rest} with an episode; give the file to see its clips")
    return group, int(number) if rest else None


def _owner(groups: Container[str], inside: tuple[str, ...]) -> str | None:
    """The group with an episode that a path leads to or through."""
    names = ("/".join(inside[:length]) for length in range(len(inside) + 1))
    return next((name for name in names if name in groups), None)


def _series(file: Path, group: str, chosen: str | None) -> _Series:
    status = file.stat()
    return _read_series(file, group, chosen, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=4096)
def _read_series(file: Path, group: str, chosen: str | None, changed: int, size: int) -> _Series:
    place = str(file / group)
    with _open_arrays(file, group) as arrays:
        frames = find_frames(arrays, place, chosen)
        layout = frames_layout(frames, arrays[frames], place)
        arrays[frames].check()
        actions = find_actions(arrays, place)
        used, cuts = _cuts(arrays, layout.shape[0], place)
        outcomes = find_outcomes(arrays, layout.shape)
        known = {frames, actions, *used, *outcomes}
        unread = tuple(name for name in arrays if name not in known)
    return _Series(
        frames=frames,
        actions=actions,
        layout=layout,
        cuts=cuts,
        outcomes=outcomes,
        unread=unread,
    )


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
