"""Many clips in memory as one sequence of frames, numbered through.

Frames are kept at one size, each compressed on its own: pictures of games take a tenth of their
pixels then, and any of them is at hand in a moment.
"""

import hashlib
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np

from wmdeploy.clips.arrays import inside_file
from wmdeploy.clips.clip import Outcomes
from wmdeploy.clips.find import actions_beside
from wmdeploy.clips.folder import INDEX_NAME, outcome_paths
from wmdeploy.clips.read import iter_frames, open_source, resized_outcomes
from wmdeploy.clips.source import AS_IS, ReadOptions
from wmdeploy.errors import ClipError
from wmdeploy.files import sha256
from wmdeploy.progress import Progress, silent

MOST_BYTES = 4 * 2**30  # of compressed frames, all clips together


class _TooLarge(ClipError):
    """Not this clip alone is at fault, so that it is not skipped."""


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


@dataclass(frozen=True, eq=False, kw_only=True)
class Footage:
    """Some clips as one sequence of F frames, numbered through.

    Attributes:
        spans: where each clip begins and ends.
        size: both sides of a frame, in pixels.
        packed: each frame's pixels, zlib-compressed.
        actions: (F,) int64 or (F, n) float32, or None where not all clips have them.
        groups: for each clip the data folder that it came from, by name.
        rewards, ends: (F,) float32 and (F,) bool, or None where not all clips have both.
        finals: final pictures, packed, by the number of the frame before. See `clip.Outcomes`.
    """

    spans: Spans
    size: int
    packed: Sequence[bytes]
    actions: np.ndarray | None
    groups: tuple[str, ...]
    rewards: np.ndarray | None = None
    ends: np.ndarray | None = None
    finals: Mapping[int, bytes] = field(default_factory=dict)

    def __len__(self) -> int:
        """F, the number of frames."""
        return len(self.packed)

    def frames(self, numbers: np.ndarray) -> np.ndarray:
        """(B,) int64 -> (B, H, W, 3) uint8."""
        frames = np.empty((len(numbers), self.size, self.size, 3), np.uint8)
        for frame, number in zip(frames, numbers.tolist(), strict=True):
            frame[:] = self._frame(number)
        return frames

    def clip(self, index: int, first: int = 0, last: int | None = None) -> np.ndarray:
        """The frames `first` to `last` of one clip, (T, H, W, 3) uint8; by default all."""
        start, end = self.spans.starts[index], self.spans.ends[index]
        return self.frames(np.arange(start + first, end if last is None else start + last))

    def iter_clip(self, index: int) -> Iterator[np.ndarray]:
        """The frames of one clip one by one, each (H, W, 3) uint8."""
        return map(self._frame, range(self.spans.starts[index], self.spans.ends[index]))

    def clip_actions(self, index: int) -> np.ndarray | None:
        """The actions of one clip, (T,) int64 or (T, n) float32, or None."""
        if self.actions is None:
            return None
        return self.actions[self.spans.starts[index] : self.spans.ends[index]]

    def final(self, number: int) -> np.ndarray:
        """The picture behind a frame of `finals`, (H, W, 3) uint8."""
        return self._unpacked(self.finals[number])

    def _frame(self, number: int) -> np.ndarray:
        return self._unpacked(self.packed[number])

    def _unpacked(self, packed: bytes) -> np.ndarray:
        return np.frombuffer(zlib.decompress(packed), np.uint8).reshape(self.size, self.size, 3)


def read_footage(
    paths: Sequence[Path],
    size: int,
    actions: bool,
    skipped: list[str],
    *,
    vectors: bool = False,
    progress: Progress = silent,
    roots: Sequence[Path] = (),
    options: ReadOptions = AS_IS,
) -> Footage:
    """Read clips frame by frame, resized and compressed.

    Args:
        actions: whether to read them; `vectors`: as they are, and not integers alone.
        skipped: clips that cannot be decoded to their end are left out and named here.
        roots: the folders that the clips were found in, which group them; by default the folder of
            each clip.
        options: how the clips are read.

    Raises:
        ClipError: no clip can be read, or all need too much memory.
    """
    packed: list[bytes] = []
    read: list[tuple[Path, int]] = []
    taken: list[np.ndarray] = []
    brought: list[Outcomes] = []
    finals: dict[int, bytes] = {}
    for done, path in enumerate(paths, start=1):
        before = len(packed)
        try:
            _pack(path, size, options, packed, len(paths) - done)
            source = open_source(path, options)
            read_actions = source.actions if vectors else source.integer_actions
            clip_actions = read_actions() if actions else None
            outcomes = resized_outcomes(source, size, options.fit)
        except _TooLarge:
            raise
        except ClipError as error:
            del packed[before:]
            skipped.append(str(error))
            continue
        read.append((path, len(packed) - before))
        if clip_actions is not None:
            taken.append(clip_actions)
        brought.append(outcomes)
        if outcomes.final is not None:
            finals[len(packed) - 1] = _packed(outcomes.final)
        progress("read", done, len(paths), path.name)
    if not read:
        raise ClipError(f"none of {len(paths)} clips can be read: " + "; ".join(skipped))
    places = [_root(path, roots) for path, _ in read]
    labels = _labels(places)
    rewards = [clip.rewards for clip in brought if clip.rewards is not None]
    ends = [clip.ends for clip in brought if clip.ends is not None]
    known = len(rewards) == len(ends) == len(read)
    return Footage(
        spans=Spans(
            tuple(length for _, length in read),
            tuple(
                f"{labels[place]}/{path.relative_to(place).with_suffix('')}"
                for (path, _), place in zip(read, places, strict=True)
            ),
        ),
        size=size,
        packed=packed,
        actions=np.concatenate(taken) if len(taken) == len(read) else None,
        groups=tuple(labels[place] for place in places),
        rewards=np.concatenate(rewards) if known else None,
        ends=np.concatenate(ends) if known else None,
        finals=finals if known else {},
    )


def _root(path: Path, roots: Sequence[Path]) -> Path:
    """The one of some folders that a clip was found in, else the folder that it lies in."""
    return next((root for root in roots if root in path.parents), path.parent)


def _labels(folders: Iterable[Path]) -> dict[Path, str]:
    """A name for each folder: its own, or the whole path where two have the same."""
    different = dict.fromkeys(folders)
    names = [folder.name for folder in different]
    return {f: f.name if names.count(f.name) == 1 else str(f) for f in different}


def _pack(path: Path, size: int, options: ReadOptions, packed: list[bytes], more: int) -> None:
    """Compress the frames of a clip behind those of others.

    Raises:
        _TooLarge: all together need more than `MOST_BYTES`.
        ClipError: the clip cannot be read.
    """
    used = sum(map(len, packed))
    for frame in iter_frames(path, size=size, options=options):
        packed.append(_packed(frame))
        used += len(packed[-1])
        if used > MOST_BYTES:
            raise _TooLarge(
                f"data: {len(packed)} frames of {size} x {size} need {used / 2**30:.1f} GiB of "
                f"memory, and {more} clips remain; expected at most "
                f"{MOST_BYTES / 2**30:.1f} GiB: give fewer clips"
            )


def _packed(frame: np.ndarray) -> bytes:
    return zlib.compress(frame.tobytes(), level=1)


def clip_digest(path: Path) -> str:
    """Hex digest over the bytes of one clip's files, wherever they lie."""
    if location := inside_file(path):
        file, inside = location
        digests = [_file_digest(file), *inside]
    elif path.is_dir():
        digests = [sha256(file) for file in sorted(path.iterdir()) if file.is_file()]
    else:
        digests = [sha256(path)]
    if not path.is_dir() and (actions := actions_beside(path)):
        digests.append(sha256(actions))
    if (path.parent / INDEX_NAME).is_file():
        digests += [sha256(file) for file in outcome_paths(path).values() if file.is_file()]
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def _file_digest(file: Path) -> str:
    """The hash of a file that holds many clips, computed once."""
    status = file.stat()
    return _hashed(file, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=1024)
def _hashed(file: Path, changed: int, size: int) -> str:
    return sha256(file)
