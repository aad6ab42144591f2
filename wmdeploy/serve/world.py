"""What is played: where dreams begin, the real game, and what its actions are called."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from wmdeploy.bundle import Bundle
from wmdeploy.clips.find import find_clips, spread
from wmdeploy.clips.folder import INDEX_NAME, read_data_folder
from wmdeploy.clips.read import SAMPLE_CLIP, count_frames, read_clip
from wmdeploy.clips.source import ReadOptions
from wmdeploy.errors import BackendError
from wmdeploy.manifest import Play
from wmdeploy.programs.contract import Programs
from wmdeploy.programs.engine import Backend
from wmdeploy.serve.game import Game
from wmdeploy.serve.starts import Start, start_of

MOST = 12  # starts to choose from


@dataclass(frozen=True)
class World:
    """Attributes:
    meanings: of actions, by number; empty where nobody knows them.
    game: makes the real game; None for none.
    """

    starts: list[Start]
    meanings: tuple[str, ...]
    game: Callable[[], Game] | None


def find_world(
    backend: Backend,
    places: Sequence[Path],
    read: ReadOptions,
    game: str | None,
    *,
    bundle: Bundle | None,
    most: int,
    remarks: list[str],
) -> World:
    """The world of a model.

    Args:
        places: clips, and folders of them; none: the starts of the bundle, or the built-in clip.
        game: its name; None: no real game.
        bundle: of the model, which may know what it is played as.
        most: real frames that a dream begins with, at most.
        remarks: gets what a user should know.

    Raises:
        BackendError: the model cannot be played by keys.
        BundleError: the bundle's starts were altered.
        ClipError: clips or game do not fit the model.
    """
    programs, size = backend.programs, backend.image_size
    if not programs.render:
        raise BackendError("the model has no program to render with; there is nothing to see")
    if programs.action is not None and not programs.num_actions:
        raise BackendError(
            "the model's actions are vectors of numbers, and keys are not; use rollout, or "
            "wmdeploy.envs in a program"
        )
    play = None if bundle is None else bundle.manifest.play
    paths: list[Path] = []
    if bundle is not None and play is not None and not places:
        starts = _starts_of_bundle(bundle, play, programs, size)
    else:
        paths = [path for place in places or [SAMPLE_CLIP] for path in _clips(place)]
        paths = [paths[index] for index in spread(len(paths), MOST)]
        context = max(programs.least, min(most, programs.context))
        starts = _starts_of_clips(paths, read, programs, size, context=context, remarks=remarks)
    meanings = _meanings(paths, programs.num_actions) if play is None else play.actions
    if game is None:
        return World(starts, meanings, None)
    skip = _frame_skip(paths) if play is None else play.frame_skip

    def begin() -> Game:
        return Game(game, size, skip, programs.num_actions)

    trial = begin()  # so that a wrong name is refused at once
    meanings = trial.meanings
    trial.close()
    return World(starts, meanings, begin)


def _starts_of_bundle(bundle: Bundle, play: Play, programs: Programs, size: int) -> list[Start]:
    starts = []
    with bundle.starts_to_load() as path:
        for number in range(play.starts):
            first = number * play.context
            clip = read_clip(path, size=size, start=first, count=play.context)
            starts.append(start_of(clip, programs, f"{play.game}, {number + 1}"))
    return starts


def _starts_of_clips(
    paths: Sequence[Path],
    read: ReadOptions,
    programs: Programs,
    size: int,
    *,
    context: int,
    remarks: list[str],
) -> list[Start]:
    starts = []
    for path in paths:
        room = max(0, count_frames(path, read) - context)
        for first in spread(room + 1, MOST // len(paths)):
            clip = read_clip(path, size=size, start=first, count=context, options=read)
            title = f"{clip.name}, frame {first + context - 1}"
            starts.append(start_of(clip, programs, title))
        remarks += clip.remarks
    return starts


def _clips(place: Path) -> list[Path]:
    """One clip, or those of a folder of clips; a folder of pictures is one."""
    if not place.is_dir():
        return [place]
    return find_clips(place)


def _meanings(clips: Sequence[Path], count: int) -> tuple[str, ...]:
    """Of the actions of recorded clips, where they are as many as the model's."""
    for clip in clips:
        if (clip.parent / INDEX_NAME).is_file():
            meanings = read_data_folder(clip.parent).action_meanings
            if len(meanings) == count:
                return meanings
    return ()


def _frame_skip(clips: Sequence[Path]) -> int:
    """That of recorded clips; else that of `wmdeploy record`."""
    for clip in clips:
        if (clip.parent / INDEX_NAME).is_file():
            return read_data_folder(clip.parent).frame_skip
    return 4
