"""The clips of a folder, and what in it is none.

    result = search(Path("data"))
    result.clips, result.left_out

Knows names and suffixes. Decodes nothing; of files of arrays it reads where their episodes begin.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from wmdeploy.clips.arrays import array_clips, inside_file
from wmdeploy.clips.clip import reason
from wmdeploy.clips.folder import (
    INDEX_NAME,
    OUTCOMES,
    actions_path,
    outcome_paths,
    read_data_folder,
)
from wmdeploy.clips.foreign import foreign
from wmdeploy.clips.images import is_animation, list_pictures, natural_order
from wmdeploy.clips.layout import ACTION_NAMES, listed
from wmdeploy.clips.suffixes import ARRAY_SUFFIXES, VIDEO_SUFFIXES
from wmdeploy.errors import ClipError

_MOST_DEPTH = 10  # folders in folders
_BESIDE = ("actions", *OUTCOMES)  # `a.actions.npy` is no clip


@dataclass(frozen=True)
class Found:
    """What lies in a folder.

    Attributes:
        clips: each a path for `read_clip`.
        left_out: files and folders that are no clips; hidden ones are not among them.
    """

    clips: list[Path] = field(default_factory=list)
    left_out: list[Path] = field(default_factory=list)


def find_clips(place: Path, series: str | None = None) -> list[Path]:
    """The clips of a folder or of a file of arrays; see `search`."""
    return search(place, series).clips


def search(place: Path, series: str | None = None) -> Found:
    """The clips of a folder, in natural order, or of a file of arrays.

    For a data folder the clips that it lists, in its order. In any other folder every video and
    every clip in a file of arrays, its folders included; a folder that holds pictures, but neither
    of these, is one clip itself.

    Args:
        series: which frames of a file of arrays that holds several series; see `ReadOptions`.

    Raises:
        ClipError: no such folder, nothing in it, data of another tool, or an invalid data folder.
    """
    result = Found()
    try:
        if inside_file(place):
            return Found(array_clips(place, series))
        if not place.is_dir():
            what = "is a file" if place.exists() else "does not exist"
            raise ClipError(f"{place}: {what}, expected a folder of clips")
        if explanation := foreign(place):
            raise ClipError(f"{place}: {explanation}")
        _search(place, result, series, 0)
    except OSError as error:
        raise ClipError(f"{place}: cannot be read ({reason(error)})") from error
    if not result.clips:
        explanation = next((f"{p.name} {t}" for p in result.left_out if (t := foreign(p))), "")
        raise ClipError(
            f"{place}: holds no clips; expected videos, .npz files, pictures or a data folder"
            + (f"; {explanation}" if explanation else "")
        )
    return result


def left_out_line(place: Path, result: Found) -> str:
    """What in a folder is not read, on one line; "" if all of it is."""
    if not result.left_out:
        return ""
    names = listed(str(path.relative_to(place)) for path in result.left_out)
    count = len(result.left_out)
    return f"{place}: {count} {'entry is' if count == 1 else 'entries are'} not read: {names}"


def actions_beside(clip: Path) -> Path | None:
    """The .npy of a clip's actions: `a.actions.npy` for `a.mkv`, `actions.npy` in a folder of
    pictures or beside `frames.npy`; None if there is none."""
    named = [actions_path(clip)]
    if clip.is_dir():
        named = [clip / "actions.npy"]
    elif clip.name == "frames.npy":
        named.append(clip.with_name("actions.npy"))
    return next((path for path in named if path.exists()), None)


def spread(length: int, count: int) -> list[int]:
    """So many of the places 0 to length - 1, evenly spread; all of them where there are fewer."""
    last, taken = length - 1, min(count, max(0, length))
    return sorted({round(last * at / max(1, taken - 1)) for at in range(taken)})


def _search(folder: Path, result: Found, series: str | None, depth: int) -> None:
    entries = sorted((p for p in folder.iterdir() if not p.name.startswith(".")), key=natural_order)
    if (folder / INDEX_NAME).exists():
        clips = [folder / clip.file for clip in read_data_folder(folder).clips]
        own = {folder / INDEX_NAME, *clips, *map(actions_path, clips)}
        own.update(path for clip in clips for path in outcome_paths(clip).values())
        result.clips.extend(clips)
        result.left_out.extend(path for path in entries if path not in own)
        return
    taken = [path for path in entries if _is_clip_file(path)]
    pictures = list_pictures(folder)
    if pictures and is_animation(pictures[0]):  # each is a clip, not a frame
        taken += filter(is_animation, pictures)
    if pictures and not taken:
        own = {folder / "actions.npy", *pictures}
        result.clips.append(folder)
        result.left_out.extend(path for path in entries if path not in own)
        return
    companions = {actions_beside(path) for path in taken}
    for path in entries:
        if path in taken:
            result.clips.extend(_clips_of(path, series))
        elif path.is_dir() and not path.is_symlink() and depth < _MOST_DEPTH and not foreign(path):
            _search(path, result, series, depth + 1)
        elif path not in companions:
            result.left_out.append(path)


def _is_clip_file(path: Path) -> bool:
    if path.suffix.lower() not in VIDEO_SUFFIXES | ARRAY_SUFFIXES or not path.is_file():
        return False
    if path.suffix.lower() != ".npy":
        return True
    kind = path.stem.rpartition(".")[2]
    return path.stem not in ACTION_NAMES and (kind == path.stem or kind not in _BESIDE)


def _clips_of(file: Path, series: str | None) -> Iterator[Path]:
    """The clips of a file; the file itself if it cannot be read, which its reader will tell."""
    if file.suffix.lower() not in ARRAY_SUFFIXES:
        yield file
        return
    try:
        yield from array_clips(file, series)
    except ClipError:
        yield file
