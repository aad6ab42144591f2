"""Read clips: videos, folders of pictures, .npz files and the clips of a data folder.

    clip = read_clip(Path("pong/clip-00000.mkv"), size=64, start=100, count=8)

Streams: nothing behind the last frame asked for is decoded, and frames are resized one by one.
Does not know models; a size is just a number here.
"""

import math
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from fractions import Fraction
from functools import cached_property
from pathlib import Path

import numpy as np

from wmdeploy.clips.actions import read_actions
from wmdeploy.clips.arrays import ArraySource, array_clips, inside_file
from wmdeploy.clips.clip import Clip, Outcomes, check_outcomes, reason
from wmdeploy.clips.find import actions_beside, find_clips, left_out_line, search
from wmdeploy.clips.fit import area_resize, squeezed
from wmdeploy.clips.folder import (
    INDEX_NAME,
    ClipEntry,
    DataFolder,
    actions_path,
    outcome_paths,
    read_data_folder,
)
from wmdeploy.clips.foreign import foreign
from wmdeploy.clips.images import PictureSource
from wmdeploy.clips.layout import UnusableActions
from wmdeploy.clips.npy import npy_array
from wmdeploy.clips.source import AS_IS, Fit, ReadOptions, Source, Timeline, Wrapped
from wmdeploy.clips.suffixes import CLIP_SUFFIXES, PICTURE_SUFFIXES, VIDEO_SUFFIXES
from wmdeploy.clips.timing import retimed, uneven
from wmdeploy.clips.video import VideoSource
from wmdeploy.errors import ClipError
from wmdeploy.files import refuse_pointer

# 72 frames of Freeway, 256 x 256, with actions 0 to 2: real frames for when none are given
SAMPLE_CLIP = Path(__file__).parent.parent / "sample" / "clip-00000.mkv"
SAMPLE_CLIPS = (SAMPLE_CLIP, SAMPLE_CLIP.with_name("clip-00001.mkv"))


class RecordedSource(VideoSource):
    """A clip of a data folder: its length, rate, actions and what these brought are known."""

    def __init__(self, path: Path, data: DataFolder, entry: ClipEntry) -> None:
        super().__init__(path, recorded=entry.frames)
        self._data = data
        self._length = entry.frames

    @cached_property
    def timeline(self) -> Timeline:
        return Timeline(np.arange(self._length + 1), 1 / Fraction(self._data.fps))

    def fps(self) -> float:
        return self._data.fps

    def actions(self) -> np.ndarray | None:
        if self._data.num_actions == 0:
            return None
        path = actions_path(self.path)
        refuse_pointer(path, ClipError)
        with npy_array(path, "actions") as array:
            if array.dtype != np.int64 or array.shape != (self.count(),):
                raise ClipError(
                    f"{path}: got {array.dtype} {array.shape}, expected int64 ({self.count()},), "
                    "one action for each frame; copy or record it again"
                )
            array.check()
            actions = np.array(list(array.rows(0, self.count())))
        if actions.min() < 0 or actions.max() >= self._data.num_actions:
            raise ClipError(
                f"{path}: got actions {actions.min()} to {actions.max()}, expected "
                f"0 to {self._data.num_actions - 1}; copy or record it again"
            )
        return actions

    def outcomes(self) -> Outcomes:
        length = self.count()
        most = {"rewards": 4 * length, "ends": length, "final": 3 * self._data.size**2}
        found = {}
        for name, path in outcome_paths(self.path).items():
            refuse_pointer(path, ClipError)
            if not path.exists():
                continue
            with npy_array(path, name) as array:
                array.check()
                count = array.shape[0] if array.shape else 0
                if math.prod(array.shape) * array.dtype.itemsize > most[name]:
                    raise ClipError(f"{path}: got {array.dtype} {array.shape}, too many values")
                found[name] = np.array(list(array.rows(0, count)))
        outcomes = Outcomes(**found)
        check_outcomes(outcomes, length, str(self.path))
        return outcomes


class PairedSource(Wrapped):
    """A clip whose actions lie in a file beside it. See `find.actions_beside`."""

    def __init__(self, frames: Source, actions: Path) -> None:
        super().__init__(frames)
        self._actions = actions

    def actions(self) -> np.ndarray | None:
        length = self.count()
        with npy_array(self._actions, "actions") as array:
            place = str(self._actions.parent)
            actions, note, _ = read_actions(
                {self._actions.stem: array},
                self._actions.stem,
                first=0,
                last=length,
                length=length,
                place=place,
            )
        self.notes.append(note or f"actions are read from {self._actions.name}")
        return actions


def read_clip(
    path: Path,
    *,
    size: int | None = None,
    start: int = 0,
    count: int | None = None,
    fewest: int | None = None,
    options: ReadOptions = AS_IS,
) -> Clip:
    """Read frames, and their actions where there are some.

    Args:
        path: a video, a picture (of one frame or many), a file of arrays (see arrays.py) or a clip
            inside one, a clip of a data folder, or a folder of pictures (or of exactly one clip).
        size: resize both sides to this many pixels by area; None keeps them as they are.
        start: first frame.
        count: how many frames; None for all from `start` on.
        fewest: how many will do where there are not `count`; None: no fewer.
        options: rate, shape of the squares, series of pictures; see `ReadOptions`.

    Returns:
        frames (T, H, W, 3) uint8, RGB in 0..255, upright; actions (T,) int64 or (T, n) float32, or
        None where there are none or unusable ones; what they brought, where it is known; and notes,
        where something of this should be known.

    Raises:
        ClipError: the path cannot be read as one clip, is damaged, or has too few frames.
    """
    source = open_source(path, options)
    if count is not None and fewest is not None:
        available = source.count() - start
        if available < fewest:
            raise ClipError(f"{path}: has {available} frames, expected {fewest} or more")
        count = min(count, available)
    frames = np.stack(list(read_frames(source, size, start, count, options.fit)))
    actions, notes = None, source.notes
    try:
        actions = source.actions()
    except UnusableActions as error:
        notes = [*notes, str(error).removeprefix(f"{source.path}: ")]
    read = slice(start, start + len(frames))
    outcomes = resized_outcomes(source, size, options.fit)
    # counted only where it matters: of a video that reads the whole file
    whole = outcomes.final is not None and read.stop == source.count()
    if path.is_dir() and (line := left_out_line(path, search(path))):
        notes = [*notes, line.removeprefix(f"{path}: ")]
    return Clip(
        frames=frames,
        actions=None if actions is None else actions[read],
        rewards=None if outcomes.rewards is None else outcomes.rewards[read],
        ends=None if outcomes.ends is None else outcomes.ends[read],
        final=outcomes.final if whole else None,
        name=source.path.stem,
        fps=source.fps(),
        notes=tuple(dict.fromkeys(notes)),
    )


def iter_frames(
    path: Path,
    *,
    size: int | None = None,
    start: int = 0,
    count: int | None = None,
    options: ReadOptions = AS_IS,
) -> Iterator[np.ndarray]:
    """Yield frames (H, W, 3) uint8, each decoded when it is asked for. Arguments as `read_clip`.

    Raises:
        ClipError: as `read_clip`; for what only decoding shows, while iterating.
    """
    return read_frames(open_source(path, options), size, start, count, options.fit)


def count_frames(path: Path, options: ReadOptions = AS_IS) -> int:
    """How many frames a clip has, without decoding any.

    Raises:
        ClipError: the path cannot be read as one clip.
    """
    source = open_source(path, options)
    length = source.count()
    if length == 0:
        raise ClipError(f"{source.path}: has no frames")
    return length


def open_source(path: Path, options: ReadOptions = AS_IS) -> Source:
    """Find out what kind of clip a path is, at the rate and of the series asked for.

    Raises:
        ClipError: nothing is there, a folder of several clips or series, or no rate can be had.
    """
    return retimed(_found(path, options), options.fps)


def _found(path: Path, options: ReadOptions) -> Source:
    try:
        source = _open_source(path, options)
        actions = None if isinstance(source, RecordedSource) else actions_beside(source.path)
    except OSError as error:
        raise ClipError(f"{path}: cannot be read ({reason(error)})") from error
    return source if actions is None else PairedSource(source, actions)


def _open_source(path: Path, options: ReadOptions) -> Source:
    refuse_pointer(path, ClipError)
    if inside_file(path):
        return ArraySource(_only(path, array_clips(path, options.series)), options.series)
    if not path.exists() and path.is_symlink():
        raise ClipError(f"{path}: is a broken link; give the file itself")
    if not path.exists():
        raise ClipError(f"{path}: does not exist; give a video, a folder of pictures or an .npz")
    if path.is_dir():
        clip = _only(path, find_clips(path, options.series))
        if clip == path:
            return PictureSource(path, options.series)
        return _open_source(clip, options)
    if not path.is_file():
        raise ClipError(
            f"{path}: is not a regular file; give a video, a folder of pictures or an .npz"
        )
    if path.suffix.lower() in PICTURE_SUFFIXES:
        return PictureSource(path)
    if path.suffix.lower() not in VIDEO_SUFFIXES and (reason := foreign(path)):
        raise ClipError(f"{path}: {reason}")
    if (path.parent / INDEX_NAME).is_file():
        data = read_data_folder(path.parent)
        for entry in data.clips:
            if entry.file == path.name:
                return RecordedSource(path, data, entry)
    if path.suffix.lower() in VIDEO_SUFFIXES:
        return VideoSource(path)
    raise ClipError(
        f"{path}: cannot be read: got {path.suffix or 'no suffix'}, expected one of "
        f"{', '.join(sorted(CLIP_SUFFIXES))}; give the file the suffix of its format, or convert it"
    )


def resized_outcomes(source: Source, size: int | None, fit: Fit) -> Outcomes:
    """What the actions of a source brought, the final picture resized as its frames are."""
    outcomes = source.outcomes()
    if outcomes.final is None or size is None:
        return outcomes
    return replace(outcomes, final=area_resize(outcomes.final, size, fit, source.pixel_aspect))


def look(source: Source, size: int, fit: Fit) -> None:
    """Decode one frame, so that the notes of a source tell how its frames will be taken."""
    for _ in read_frames(source, size, 0, 1, fit):
        pass


def read_frames(
    source: Source, size: int | None, start: int, count: int | None, fit: Fit
) -> Iterator[np.ndarray]:
    """The frames of a source, as `iter_frames` does; what is to be known goes into its notes."""
    _check_span(size, start, count)
    return _frames(source, size, start, count, fit)


def _only(path: Path, clips: list[Path]) -> Path:
    if len(clips) > 1:
        names = ", ".join(clip.name for clip in clips[:3]) + (", ..." if clips[3:] else "")
        raise ClipError(
            f"{path}: holds {len(clips)} clips ({names}), expected one; name it: {clips[0]}"
        )
    return clips[0]


def _frames(
    source: Source, size: int | None, start: int, count: int | None, fit: Fit
) -> Iterator[np.ndarray]:
    if source.timeline and (note := uneven(source.timeline)):
        source.notes.append(note)
    taken = 0
    shape = None
    with closing(source.frames(start)) as frames:
        for frame in frames:
            if size is not None:
                note = squeezed(frame, size, source.pixel_aspect) if fit == "squeeze" else None
                if note and note not in source.notes:
                    source.notes.append(note)
                frame = area_resize(frame, size, fit, source.pixel_aspect)
            shape = shape or frame.shape
            if frame.shape != shape:
                raise ClipError(
                    f"{source.path}: frame {start + taken} is {frame.shape}, the first was {shape};"
                    " give a size, and all frames are resized to it"
                )
            yield frame
            taken += 1
            if taken == count:
                return
    if taken == 0 or count is not None:
        available = start + taken if taken else source.count()
        wanted = f"{count} from frame {start} on" if count else f"those from frame {start} on"
        raise ClipError(f"{source.path}: has {available} frames, asked for {wanted}")


def _check_span(size: int | None, start: int, count: int | None) -> None:
    for name, value, least in (("size", size, 1), ("start", start, 0), ("count", count, 1)):
        if value is not None and value < least:
            raise ClipError(f"{name}: got {value}, expected {least} or more")
