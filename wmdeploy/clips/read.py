"""Read clips: videos, folders of pictures, .npz files and the clips of a data folder.

    clip = read_clip(Path("pong/clip-00000.mkv"), size=64, start=100, count=8)

Streams: nothing behind the last frame asked for is decoded, and frames are resized one by one.
Does not know models; a size is just a number here.
"""

from collections.abc import Generator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Protocol

import numpy as np

from wmdeploy.clips.arrays import ARRAY_DAMAGE, ArraySource
from wmdeploy.clips.clip import Clip, described, reason
from wmdeploy.clips.folder import (
    INDEX_NAME,
    ClipEntry,
    DataFolder,
    actions_path,
    find_clips,
    read_data_folder,
)
from wmdeploy.clips.pictures import PICTURE_SUFFIXES, PictureSource, area_resize
from wmdeploy.clips.video import VideoSource
from wmdeploy.errors import ClipError
from wmdeploy.files import refuse_pointer

# 72 frames of Freeway, 256 x 256, with actions 0 to 2: real frames for when none are given
SAMPLE_CLIP = Path(__file__).parent.parent / "sample" / "clip-00000.mkv"
SAMPLE_CLIPS = (SAMPLE_CLIP, SAMPLE_CLIP.with_name("clip-00001.mkv"))


class Source(Protocol):
    """One clip on disk. Every method may raise ClipError."""

    path: Path

    def count(self) -> int:
        """How many frames there are."""

    def fps(self) -> float:
        """Frames per second; 30 where nothing tells."""

    def frames(self, start: int) -> Generator[np.ndarray, None, None]:
        """The frames from `start` on, (H, W, 3) uint8, decoded as they are taken."""

    def actions(self) -> np.ndarray | None:
        """The actions of all frames, (T,) int64, or None."""


class RecordedSource(VideoSource):
    """A clip of a data folder: its length, rate and actions are known."""

    def __init__(self, path: Path, data: DataFolder, entry: ClipEntry) -> None:
        super().__init__(path, recorded=entry.frames)
        self._data = data

    def fps(self) -> float:
        return self._data.fps

    def actions(self) -> np.ndarray | None:
        if self._data.num_actions == 0:
            return None
        path = actions_path(self.path)
        refuse_pointer(path, ClipError)
        try:
            # Mapped, so that a header which claims a huge array allocates nothing.
            actions = np.load(path, mmap_mode="r", allow_pickle=False)
        except OSError as error:
            raise ClipError(f"{path}: cannot be read as actions ({reason(error)})") from error
        except ARRAY_DAMAGE as error:  # numpy's text would advise to unpickle it
            raise ClipError(f"{path}: cannot be read as actions, expected int64 .npy") from error
        if (
            not isinstance(actions, np.ndarray)
            or actions.dtype != np.int64
            or actions.shape != (self.count(),)
        ):
            raise ClipError(
                f"{path}: got {described(actions)}, expected int64 ({self.count()},), "
                "one action for each frame; copy or record it again"
            )
        if actions.min() < 0 or actions.max() >= self._data.num_actions:
            raise ClipError(
                f"{path}: got actions {actions.min()} to {actions.max()}, expected "
                f"0 to {self._data.num_actions - 1}; copy or record it again"
            )
        return np.array(actions)


def read_clip(
    path: Path, *, size: int | None = None, start: int = 0, count: int | None = None
) -> Clip:
    """Read frames, and their actions where there are some.

    Args:
        path: a video, a picture, an .npz with `frames` (and perhaps `actions`), a clip of a data
            folder, or a folder of pictures (or of exactly one clip).
        size: resize both sides to this many pixels by area; None keeps them as they are.
        start: first frame.
        count: how many frames; None for all from `start` on.

    Returns:
        frames (T, H, W, 3) uint8, RGB in 0..255, and actions (T,) int64 or None.

    Raises:
        ClipError: the path cannot be read as one clip, is damaged, or has too few frames.
    """
    source = open_source(path)
    _check_span(size, start, count)
    frames = np.stack(list(_frames(source, size, start, count)))
    actions = source.actions()
    if actions is not None:
        actions = actions[start : start + len(frames)]
    return Clip(frames=frames, actions=actions, name=source.path.stem, fps=source.fps())


def iter_frames(
    path: Path, *, size: int | None = None, start: int = 0, count: int | None = None
) -> Iterator[np.ndarray]:
    """Yield frames (H, W, 3) uint8, each decoded when it is asked for. Arguments as `read_clip`.

    Raises:
        ClipError: as `read_clip`; for what only decoding shows, while iterating.
    """
    source = open_source(path)
    _check_span(size, start, count)
    return _frames(source, size, start, count)


def count_frames(path: Path) -> int:
    """How many frames a clip has, without decoding any.

    Raises:
        ClipError: the path cannot be read as one clip.
    """
    source = open_source(path)
    length = source.count()
    if length == 0:
        raise ClipError(f"{source.path}: has no frames")
    return length


def open_source(path: Path) -> Source:
    """Find out what kind of clip a path is.

    Raises:
        ClipError: nothing is there, or a folder of several clips.
    """
    try:
        found = path.exists()
    except OSError as error:
        raise ClipError(f"{path}: cannot be read ({reason(error)})") from error
    if not found:
        raise ClipError(f"{path}: does not exist; give a video, a folder of pictures or an .npz")
    if path.is_dir():
        clips = find_clips(path)
        if len(clips) > 1:
            names = ", ".join(clip.name for clip in clips[:3]) + (", ..." if clips[3:] else "")
            raise ClipError(
                f"{path}: holds {len(clips)} clips ({names}), expected one; name it: {clips[0]}"
            )
        return PictureSource(path) if clips[0] == path else open_source(clips[0])
    if not path.is_file():
        raise ClipError(
            f"{path}: is no regular file; give a video, a folder of pictures or an .npz"
        )
    refuse_pointer(path, ClipError)
    if path.suffix.lower() == ".npz":
        return ArraySource(path)
    if path.suffix.lower() in PICTURE_SUFFIXES:
        return PictureSource(path)
    if (path.parent / INDEX_NAME).is_file():
        data = read_data_folder(path.parent)
        for entry in data.clips:
            if entry.file == path.name:
                return RecordedSource(path, data, entry)
    return VideoSource(path)


def _frames(
    source: Source, size: int | None, start: int, count: int | None
) -> Iterator[np.ndarray]:
    taken = 0
    shape = None
    with closing(source.frames(start)) as frames:
        for frame in frames:
            if size is not None:
                frame = area_resize(frame, size)
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
