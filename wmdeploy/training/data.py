"""The clips of a training: read once, split, and drawn from at random but repeatably.

Frames are kept as uint8 in memory at the model's size. Knows no model.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from wmdeploy.clips.clip import Clip
from wmdeploy.clips.folder import INDEX_NAME, find_clips, read_data_folder, split_clips
from wmdeploy.clips.read import count_frames, read_clip
from wmdeploy.errors import TrainingError

MOST_BYTES = 4 * 2**30  # of uint8 pixels, all clips together


@dataclass(frozen=True, eq=False)
class Footage:
    """Some clips as one sequence of F frames, numbered through."""

    clips: tuple[Clip, ...]

    @cached_property
    def ends(self) -> np.ndarray:
        """(clips,) int64: the number of the first frame behind each clip."""
        return np.cumsum([len(clip) for clip in self.clips])

    @cached_property
    def starts(self) -> np.ndarray:
        """(clips,) int64: the number of each clip's first frame."""
        return self.ends - [len(clip) for clip in self.clips]

    def __len__(self) -> int:
        """F, the number of frames."""
        return int(self.ends[-1])

    def frames(self, numbers: np.ndarray) -> np.ndarray:
        """(B,) int64 -> (B, H, W, 3) uint8."""
        owners = np.searchsorted(self.ends, numbers, side="right")
        offsets = numbers - self.starts[owners]
        pairs = zip(owners, offsets, strict=True)
        return np.stack([self.clips[owner].frames[offset] for owner, offset in pairs])

    def neighbours(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The frames before and after each, in the same clip; at its ends the frame itself."""
        owners = np.searchsorted(self.ends, numbers, side="right")
        before = np.maximum(numbers - 1, self.starts[owners])
        after = np.minimum(numbers + 1, self.ends[owners] - 1)
        return before, after

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

    @cached_property
    def actions(self) -> np.ndarray:
        """(F,) int64. Only for clips that all have actions."""
        return np.concatenate([clip.actions for clip in self.clips if clip.actions is not None])


@dataclass(frozen=True, eq=False)
class TrainingData:
    """Both sides of the split; `num_actions` is 0 where actions are not used."""

    training: Footage
    validation: Footage
    num_actions: int

    def sha256(self) -> str:
        """Hex digest over frames, actions and the split, to tell one set of data from another."""
        digest = hashlib.sha256()
        for footage in (self.training, self.validation):
            for clip in footage.clips:
                digest.update(f"{clip.frames.shape}{clip.actions is not None}".encode())
                digest.update(np.ascontiguousarray(clip.frames).data)
                if clip.actions is not None:
                    digest.update(np.ascontiguousarray(clip.actions).data)
            digest.update(b"|")
        return digest.hexdigest()


def load_data(
    folders: Sequence[Path],
    *,
    size: int,
    validation: float,
    seed: int,
    actions: bool,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> TrainingData:
    """Find, check, split and read the clips of some folders.

    Args:
        folders: each as `find_clips` takes it.
        size: both sides of a frame, in pixels.
        validation: share of the clips that is held out; clips are never cut for it.
        seed: of the split.
        actions: whether to use the actions where clips have them.
        progress: called with the clips read so far and their number.

    Raises:
        ClipError: a clip cannot be read, or there are fewer than two.
        TrainingError: a clip has a single frame, only some have actions, or all need too much
            memory.
    """
    paths = [path for folder in folders for path in find_clips(folder.resolve())]
    split = split_clips(paths, validation=validation, seed=seed)
    total = sum(len(part) for part in split)
    _check_size([path for part in split for path in part], size)
    read: list[Clip] = []
    for path in (path for part in split for path in part):
        read.append(read_clip(path, size=size))
        progress(len(read), total)
    num_actions = _num_actions(read, folders) if actions else 0
    held_in = len(split[0])
    return TrainingData(Footage(tuple(read[:held_in])), Footage(tuple(read[held_in:])), num_actions)


def epoch_batch(numbers: np.ndarray, batch: int, key: Sequence[int], step: int) -> np.ndarray:
    """What a step trains on: every number once per epoch, in an order drawn from (key, epoch).

    Depends on nothing but its arguments, so that a resumed training goes on as if never stopped.

    Args:
        numbers: (M,) int64. Of each epoch the last M % batch are left out.
        key: whole numbers, at least 0.

    Returns:
        (min(batch, M),) int64.
    """
    per_epoch = max(1, len(numbers) // batch)
    epoch, index = divmod(step, per_epoch)
    order = np.random.default_rng([*key, epoch]).permutation(len(numbers))
    return numbers[order[index * batch : (index + 1) * batch]]


def _check_size(paths: Sequence[Path], size: int) -> None:
    counts = [count_frames(path) for path in paths]
    for path, count in zip(paths, counts, strict=True):
        if count < 2:
            raise TrainingError(
                f"{path}: has 1 frame, expected 2 or more to learn what follows; leave it out"
            )
    needed = sum(counts) * size * size * 3
    if needed > MOST_BYTES:
        raise TrainingError(
            f"data: {sum(counts)} frames of {size} x {size} need {needed / 2**30:.1f} GiB of "
            f"memory, expected at most {MOST_BYTES / 2**30:.1f} GiB; give fewer clips"
        )


def _num_actions(clips: Sequence[Clip], folders: Sequence[Path]) -> int:
    """How many actions there are: as the data folders say, elsewhere the highest one and 1."""
    known = [clip.actions for clip in clips if clip.actions is not None]
    if not known:
        return 0
    if len(known) < len(clips):
        bare = next(clip.name for clip in clips if clip.actions is None)
        raise TrainingError(
            f"actions: {len(known)} of {len(clips)} clips have them, clip {bare} has none; "
            "expected all or none: train without actions, or leave those clips out"
        )
    declared = [
        read_data_folder(folder).num_actions
        for folder in folders
        if (folder / INDEX_NAME).is_file()
    ]
    return max([*declared, *(int(actions.max()) + 1 for actions in known)])
