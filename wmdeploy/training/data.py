"""The clips of a training: found, split by episodes, and read once, when frames are first needed.

Knows no model.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from wmdeploy.clips.clip import sum_up
from wmdeploy.clips.find import left_out_line, search
from wmdeploy.clips.folder import INDEX_NAME, DataFolder, read_data_folder, split_clips
from wmdeploy.clips.footage import Footage, clip_digest, read_footage
from wmdeploy.clips.read import look, open_source
from wmdeploy.clips.source import AS_IS, ReadOptions
from wmdeploy.errors import ClipError, TrainingError
from wmdeploy.files import real_path
from wmdeploy.progress import Progress, silent


@dataclass(kw_only=True)
class TrainingClips:
    """Both sides of a split, of which frames are read when they are first asked for.

    Attributes:
        paths: of the clips for training and for validation.
        size: both sides of a frame, in pixels.
        num_actions: 0 where actions are not used.
        skipped: what could not be read or used, one line for each file, with its reason.
        roots: the folders that the clips were found in.
        read: how the clips are read.
    """

    paths: tuple[list[Path], list[Path]]
    size: int
    num_actions: int
    skipped: list[str]
    roots: tuple[Path, ...] = ()
    read: ReadOptions = ReadOptions()
    progress: Progress = silent
    _read: dict[int, Footage] = field(default_factory=dict)
    _hashed: dict[int, list[str]] = field(default_factory=dict)

    @property
    def training(self) -> Footage:
        return self._footage(0)

    @property
    def validation(self) -> Footage:
        return self._footage(1)

    def digests(self, side: int) -> list[str]:
        """For each clip of one side (0: training) a hex digest over its files."""
        if side not in self._hashed:
            self._hashed[side] = [clip_digest(path) for path in self.paths[side]]
        return self._hashed[side]

    def sha256(self) -> str:
        """Hex digest over both sides, to tell one set of clips, cut one way, from another."""
        identity = [self.size, self.num_actions, str(self.read), self.digests(0), self.digests(1)]
        return hashlib.sha256(json.dumps(identity).encode()).hexdigest()

    def hold_out(self, seen: Iterable[str]) -> None:
        """Leave out of validation what was trained on: these digests, and copies of training clips.

        Raises:
            ClipError: nothing is left.
        """
        digests = {*seen, *self.digests(0)}
        held_out = list(zip(self.paths[1], self.digests(1), strict=True))
        left = [(path, digest) for path, digest in held_out if digest not in digests]
        if not left:
            raise ClipError(
                f"data: all {len(held_out)} held-out clips were trained on before; give the "
                "options of the first training, the same seed above all, or other clips"
            )
        self.skipped += [
            f"{path}: was trained on before, so it cannot be held out"
            for path, digest in held_out
            if digest in digests
        ]
        self.paths = (self.paths[0], [path for path, _ in left])
        self._hashed[1] = [digest for _, digest in left]

    def _footage(self, side: int) -> Footage:
        if side not in self._read:
            self._read[side] = read_footage(
                self.paths[side],
                self.size,
                actions=self.num_actions > 0,
                skipped=self.skipped,
                progress=self.progress,
                roots=self.roots,
                options=self.read,
            )
        return self._read[side]


def find_data(
    folders: Sequence[Path],
    *,
    size: int,
    validation: float,
    seed: int,
    actions: bool,
    read: ReadOptions = AS_IS,
    progress: Progress = silent,
    tell: Callable[[str], None] = lambda line: None,
) -> TrainingClips:
    """Find, check and split the clips of some folders, decoding one frame of each.

    Args:
        folders: each as `clips.find.search` takes it.
        size: both sides of a frame, in pixels.
        validation: share of the episodes that is held out; see `split_clips`.
        seed: of the split.
        actions: whether to use the actions where clips have them.
        read: how the clips are read.
        progress: called while frames are read.
        tell: called, before anything long begins, with what is not read and how the rest is.

    Raises:
        ClipError: a folder holds no clip, or fewer than two episodes are left.
        TrainingError: only some clips have actions, or they mean different things.
    """
    roots = tuple(real_path(folder) for folder in folders)
    paths: dict[Path, None] = {}
    for root in roots:
        here = search(root, read.series)
        paths.update(dict.fromkeys(here.clips))
        if line := left_out_line(root, here):
            tell(line)
    taken: dict[Path, np.ndarray | None] = {}
    skipped: list[tuple[Path, str]] = []
    notes: list[list[str]] = []
    for path in paths:
        try:
            source = open_source(path, read)
            count = source.count()
            reason = "" if count > 1 else f"has {count} frame, and nothing follows it"
            clip_actions = source.integer_actions() if actions else None
            look(source, size, read.fit)
        except ClipError as error:
            reason = str(error).removeprefix(f"{path}: ")
        if reason:
            skipped.append((path, reason))
        else:
            taken[path] = clip_actions
            notes.append(source.notes)
    for line in sum_up(notes):
        tell(line)
    usable = list(taken)
    if skipped and len(usable) < 2:
        raise ClipError(
            f"{len(usable)} of {len(paths)} clips can be used, expected at least 2; the others: "
            + _alike(skipped)
        )
    num_actions = _num_actions(taken) if actions else 0
    split = split_clips(usable, validation=validation, seed=seed)
    lines = [f"{path}: {reason}" for path, reason in skipped]
    return TrainingClips(
        paths=split,
        size=size,
        num_actions=num_actions,
        skipped=lines,
        roots=roots,
        read=read,
        progress=progress,
    )


def _alike(skipped: Sequence[tuple[Path, str]]) -> str:
    """The first reasons for which clips were left out, each with how many clips it holds for."""
    first: dict[str, Path] = {}
    for path, reason in skipped:
        first.setdefault(reason, path)
    counts = Counter(reason for _, reason in skipped)
    reasons = [
        f"{path}: {reason}" + (f" ({counts[reason] - 1} more alike)" if counts[reason] > 1 else "")
        for reason, path in list(first.items())[:3]
    ]
    rest = len(first) - len(reasons)
    return "; ".join(reasons) + (f"; and {rest} other reasons" if rest else "")


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


def _num_actions(by_clip: Mapping[Path, np.ndarray | None]) -> int:
    """How many actions there are: as the data folders say, elsewhere the highest one and 1."""
    taken = [actions for actions in by_clip.values() if actions is not None]
    if not taken:
        return 0
    if len(taken) < len(by_clip):
        bare = next(path for path, actions in by_clip.items() if actions is None)
        raise TrainingError(
            f"actions: {len(taken)} of {len(by_clip)} clips have them, clip {bare.stem} has none; "
            "expected all or none: train without actions, or leave those clips out"
        )
    folders = dict.fromkeys(path.parent for path in by_clip)
    indexed = [read_data_folder(f) for f in folders if (f / INDEX_NAME).is_file()]
    _check_meanings(indexed)
    return max([*(data.num_actions for data in indexed), *(int(a.max()) + 1 for a in taken)])


def _check_meanings(indexed: Sequence[DataFolder]) -> None:
    for data in indexed[1:]:
        if data.action_meanings != indexed[0].action_meanings:
            raise TrainingError(
                f"actions: {indexed[0].game} has {indexed[0].num_actions}, {data.game} has "
                f"{data.num_actions} or others, and the same number would mean different things; "
                "record all actions of each game, or train without actions"
            )
