"""Data folders, and the split of clips into training and validation.

A data folder is what `record` writes: `clips.json`, one lossless video per clip (FFV1, RFC 9043,
in Matroska, RFC 9559; every frame is a key frame) and beside it the actions, and what these
brought (see `clip.Outcomes`; none in older folders), as in

    clips.json  clip-00000.mkv  clip-00000.actions.npy  clip-00000.rewards.npy  clip-00000.ends.npy
    clip-00000.final.npy  clip-00001.mkv  ...

Knows names and the index. Does not decode.
"""

import json
import random
import reprlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from wmdeploy.clips.clip import reason
from wmdeploy.clips.layout import MOST_FRAMES
from wmdeploy.errors import ClipError
from wmdeploy.files import DirectoryKind, read_document, real_path, refuse_pointer

INDEX_NAME = "clips.json"
DATA_KIND = DirectoryKind(INDEX_NAME, "clips", ("clip-*",))
SCHEMA = 1
OUTCOMES = ("rewards", "ends", "final")  # fields of `clip.Outcomes`


@dataclass(frozen=True)
class ClipEntry:
    """One clip of a data folder; `score` is the sum of the rewards inside it."""

    file: str
    frames: int
    episode: int
    score: float


@dataclass(frozen=True, kw_only=True)
class DataFolder:
    """What `clips.json` tells. `action_meanings[a]` names action a; `num_actions` 0: no actions."""

    game: str
    seed: int
    size: int
    fps: float
    frame_skip: int
    policy: str
    num_actions: int
    action_meanings: tuple[str, ...]
    clips: tuple[ClipEntry, ...]


def read_data_folder(folder: Path) -> DataFolder:
    """Read and check the `clips.json` of a data folder.

    Raises:
        ClipError: it is missing, is not valid, is of a newer schema, or names files that are
            missing or lie outside the folder.
    """
    index = folder / INDEX_NAME
    refuse_pointer(index, ClipError)
    try:
        document = json.loads(read_document(index))
    except (OSError, ValueError, RecursionError) as error:
        raise ClipError(f"{index}: cannot be read ({reason(error)})") from error
    if not isinstance(document, dict):
        raise ClipError(f"{index}: got a {type(document).__name__}, expected an object")
    schema = _field(index, document, "schema", int)
    if schema != SCHEMA:
        raise ClipError(f"{index}: has schema {schema}, expected {SCHEMA}; update wmdeploy")
    meanings = _field(index, document, "action_meanings", list)
    clips = tuple(_entry(index, clip) for clip in _field(index, document, "clips", list))
    fps = _field(index, document, "fps", int, float)
    if not 0 < fps < float("inf"):
        raise ClipError(f'{index}: "fps" is {fps}, expected a number above 0')
    return DataFolder(
        game=_field(index, document, "game", str),
        seed=_field(index, document, "seed", int),
        size=_field(index, document, "size", int),
        fps=fps,
        frame_skip=_field(index, document, "frame_skip", int),
        policy=_field(index, document, "policy", str),
        num_actions=_field(index, document, "num_actions", int),
        action_meanings=tuple(str(meaning) for meaning in meanings),
        clips=clips,
    )


def write_index(data: DataFolder, folder: Path) -> None:
    """Write `clips.json`. The caller stages the folder."""
    document = {"schema": SCHEMA, **asdict(data)}
    text = json.dumps(document, indent=1, allow_nan=False) + "\n"
    (folder / INDEX_NAME).write_text(text, encoding="utf-8")


def actions_path(video: Path) -> Path:
    """Where the actions of a data folder's clip lie: clip-00000.mkv -> clip-00000.actions.npy."""
    return video.with_suffix(".actions.npy")


def outcome_paths(video: Path) -> dict[str, Path]:
    """Where what its actions brought lies, by the field of `Outcomes`; any may be missing."""
    return {name: video.with_suffix(f".{name}.npy") for name in OUTCOMES}


def split_clips(
    paths: Sequence[Path], *, validation: float = 0.1, seed: int = 0
) -> tuple[list[Path], list[Path]]:
    """Split clips into (training, validation) by whole episodes.

    An episode is all clips of one in a data folder; elsewhere each clip is one. Every data folder
    with two or more episodes gives at least one to each side, and so do all other clips together.
    The same clips and seed give the same split in whatever order they come. Each side is sorted.

    Args:
        paths: clips, as `find_clips` gives them; a path given twice counts once.
        validation: share of the episodes for validation, between 0 and 1.
        seed: which split of the possible ones.

    Raises:
        ClipError: nowhere are there two episodes, or a share outside (0, 1).
    """
    if not 0 < validation < 1:
        raise ClipError(f"validation: got {validation}, expected a share between 0 and 1")
    clips = sorted(set(paths))
    held_out: set[Path] = set()
    for episodes in _episodes(clips):
        count = min(max(1, round(len(episodes) * validation)), len(episodes) - 1)
        for episode in random.Random(seed).sample(episodes, count):
            held_out.update(episode)
    if not held_out:
        raise ClipError(
            f"got {len(clips)} clip{'s' * (len(clips) != 1)} of one episode, expected 2 episodes "
            "or more to keep one for validation; record more frames or add clips"
        )
    return [clip for clip in clips if clip not in held_out], sorted(held_out)


def _episodes(clips: Sequence[Path]) -> list[list[list[Path]]]:
    """For each data folder, and for all other clips together: the clips of each episode."""
    numbers: dict[Path, dict[str, int]] = {}  # data folder -> file -> episode
    groups: dict[Path | None, dict[object, list[Path]]] = {}
    for clip in clips:
        folder = clip.parent
        if folder not in numbers:
            data = read_data_folder(folder) if (folder / INDEX_NAME).is_file() else None
            numbers[folder] = {entry.file: entry.episode for entry in data.clips} if data else {}
        episode = numbers[folder].get(clip.name)
        group = groups.setdefault(None if episode is None else folder, {})
        group.setdefault(clip if episode is None else episode, []).append(clip)
    return [list(group.values()) for group in groups.values()]


def _entry(index: Path, clip: object) -> ClipEntry:
    if not isinstance(clip, dict):
        raise ClipError(f'{index}: "clips" holds a {type(clip).__name__}, expected objects')
    entry = ClipEntry(
        file=_field(index, clip, "file", str),
        frames=_field(index, clip, "frames", int),
        episode=_field(index, clip, "episode", int),
        score=_field(index, clip, "score", int, float),
    )
    if not 1 <= entry.frames <= MOST_FRAMES:
        raise ClipError(
            f"{index}: {entry.file} has {entry.frames} frames, expected 1 to {MOST_FRAMES}"
        )
    _check_inside(index, entry.file)
    return entry


def _check_inside(index: Path, name: str) -> None:
    """Refuse a file name that leaves the folder, by itself or through a link, or is not there.

    In the cache of a download all names are links, and the files lie beside the index's own.
    """
    plain = name not in ("", ".", "..") and not any(mark in name for mark in "/\\:\0")
    folder = index.parent
    places = real_path(folder), real_path(index).parent
    if not plain or real_path(folder / name).parent not in places:
        raise ClipError(
            f"{index}: got the file name {reprlib.repr(name)}, expected a plain name of a file "
            "inside the folder"
        )
    if not (folder / name).is_file():
        raise ClipError(f"{index}: lists {name}, which is not there; record or copy it again")


def _field(index: Path, document: dict[str, Any], key: str, *types: type) -> Any:
    value = document.get(key)
    if not isinstance(value, types) or isinstance(value, bool):
        names = " or ".join(kind.__name__ for kind in types)
        got = reprlib.repr(value) if key in document else "missing"
        raise ClipError(f'{index}: "{key}" is {got}, expected {names}; is it a data folder?')
    return value
