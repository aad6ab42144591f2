"""Many clips in memory as one sequence of frames, numbered through.

Frames are kept at one size, each compressed on its own: pictures of games take a tenth of their
pixels then, and any of them is at hand in a moment.
"""

import hashlib
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from wmdeploy.clips.folder import actions_path
from wmdeploy.clips.read import iter_frames, open_source
from wmdeploy.errors import ClipError
from wmdeploy.files import sha256

MOST_BYTES = 4 * 2**30  # of compressed frames, all clips together
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Spans:
    """Some clips, one after the other, of `lengths` frames each; F frames in all."""

    lengths: tuple[int, ...]
    names: tuple[str, ...]

    @cached_property
    def ends(self) -> np.ndarray:
        """(clips,) int64: the number of the first frame behind each clip."""
        return np.cumsum(self.lengths)

    @cached_property
    def starts(self) -> np.ndarray:
        """(clips,) int64: the number of each clip's first frame."""
        return self.ends - np.array(self.lengths)

    def __len__(self) -> int:
        """F."""
        return int(self.ends[-1])

    def place(self, number: int) -> str:
        """Which frame of which clip a number stands for, for a message."""
        clip = int(np.searchsorted(self.ends, number, side="right"))
        return f"frame {number - self.starts[clip]} of {self.names[clip]}"

    def windows(self, length: int) -> np.ndarray:
        """First frames of all windows of `length` frames: (windows,) int64.

        A clip shorter than that gives one, from its first frame on; see `window_frames`.
        """
        last = np.maximum(self.ends - length, self.starts)
        spans = zip(self.starts, last, strict=True)
        return np.concatenate([np.arange(start, end + 1) for start, end in spans])

    def window_frames(self, firsts: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
        """Frame numbers of windows, and which of them are inside their clip.

        Args:
            firsts: (B,) int64.

        Returns:
            numbers (B, length) int64, behind the end of a short clip its last frame again;
            inside (B, length) bool.
        """
        numbers = firsts[:, None] + np.arange(length)
        ends = self.ends[np.searchsorted(self.ends, firsts, side="right")][:, None]
        return np.minimum(numbers, ends - 1), numbers < ends


@dataclass(frozen=True, eq=False)
class Footage:
    """Some clips as one sequence of F frames, numbered through.

    Attributes:
        spans: where each clip begins and ends.
        size: both sides of a frame, in pixels.
        packed: each frame's pixels, zlib-compressed.
        actions: (F,) int64, or None where not all clips have them.
        groups: for each clip the data folder that it came from, by name.
    """

    spans: Spans
    size: int
    packed: Sequence[bytes]
    actions: np.ndarray | None
    groups: tuple[str, ...]

    def __len__(self) -> int:
        """F, the number of frames."""
        return len(self.packed)

    def frames(self, numbers: np.ndarray) -> np.ndarray:
        """(B,) int64 -> (B, H, W, 3) uint8."""
        pixels = b"".join(zlib.decompress(self.packed[number]) for number in numbers.tolist())
        return np.frombuffer(bytearray(pixels), np.uint8).reshape(-1, self.size, self.size, 3)

    def clip(self, index: int) -> np.ndarray:
        """The frames of one clip, (T, H, W, 3) uint8."""
        return self.frames(np.arange(self.spans.starts[index], self.spans.ends[index]))

    def clip_actions(self, index: int) -> np.ndarray | None:
        """The actions of one clip, (T,) int64, or None."""
        if self.actions is None:
            return None
        return self.actions[self.spans.starts[index] : self.spans.ends[index]]


def read_footage(
    paths: Sequence[Path],
    size: int,
    actions: bool,
    skipped: list[str],
    progress: Progress = lambda done, total: None,
) -> Footage:
    """Read clips frame by frame, resized and compressed.

    Args:
        skipped: clips that cannot be decoded to their end are left out and named here.

    Raises:
        ClipError: no clip can be read, or all need too much memory.
    """
    packed: list[bytes] = []
    read: list[tuple[Path, int]] = []
    taken: list[np.ndarray] = []
    for done, path in enumerate(paths, start=1):
        try:
            frames, known = _packed_frames(path, size)
        except ClipError as error:
            skipped.append(str(error))
            continue
        packed += frames
        if (used := sum(map(len, packed))) > MOST_BYTES:
            raise ClipError(
                f"data: {len(packed)} frames of {size} x {size} need {used / 2**30:.1f} GiB of "
                f"memory, and {len(paths) - done} clips are to come; expected at most "
                f"{MOST_BYTES / 2**30:.1f} GiB: give fewer clips"
            )
        read.append((path, len(frames)))
        if actions and known is not None:
            taken.append(known)
        progress(done, len(paths))
    if not read:
        raise ClipError(f"none of {len(paths)} clips can be read: " + "; ".join(skipped))
    labels = _labels(path.parent for path, _ in read)
    return Footage(
        Spans(
            tuple(length for _, length in read),
            tuple(f"{labels[path.parent]}/{path.stem}" for path, _ in read),
        ),
        size,
        packed,
        np.concatenate(taken) if len(taken) == len(read) else None,
        tuple(labels[path.parent] for path, _ in read),
    )


def _labels(folders: Iterable[Path]) -> dict[Path, str]:
    """A name for each folder: its own, or the whole path where two have the same."""
    different = dict.fromkeys(folders)
    names = [folder.name for folder in different]
    return {f: f.name if names.count(f.name) == 1 else str(f) for f in different}


def _packed_frames(path: Path, size: int) -> tuple[list[bytes], np.ndarray | None]:
    frames = [zlib.compress(frame.tobytes(), level=1) for frame in iter_frames(path, size=size)]
    return frames, open_source(path).actions()


def clip_digest(path: Path) -> str:
    """Hex digest over the bytes of one clip's files, wherever they lie."""
    files = [path]
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.is_file())
    elif actions_path(path).is_file():
        files.append(actions_path(path))
    return hashlib.sha256("".join(map(sha256, files)).encode()).hexdigest()
