"""What is played: where dreams begin, the real game, and what its actions are called."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from wmdeploy.bundle import Bundle
from wmdeploy.clips.find import find_clips, spread
from wmdeploy.clips.folder import INDEX_NAME, DataFolder, read_data_folder
from wmdeploy.clips.read import SAMPLE_CLIP, count_frames, read_clip
from wmdeploy.clips.source import ReadOptions
from wmdeploy.errors import BackendError
from wmdeploy.manifest import Play, start_length
from wmdeploy.programs.contract import Programs
from wmdeploy.programs.engine import Backend
from wmdeploy.serve.game import Game
from wmdeploy.serve.starts import Start, start_of

MOST = 12  # starts to choose from
FRAME_SKIP = 4  # of `wmdeploy record`, where nobody knows another


@dataclass(frozen=True)
class World:
    """What players find.

    Attributes:
        meanings: of actions, by number; empty where nobody knows them.
        game: makes the real game; None for none.
        about: the model, what and how well, for the page.
    """

    starts: list[Start]
    meanings: tuple[str, ...]
    game: Callable[[], Game] | None
    about: tuple[tuple[str, str], ...] = ()


def find_world(
    backend: Backend,
    places: Sequence[Path],
    read: ReadOptions,
    game: str | None,
    *,
    bundle: Bundle | None,
    remarks: list[str],
) -> World:
    """The world of a model.

    Args:
        places: clips, and folders of them; none: the starts of the bundle, or the built-in clip.
        game: its name; None: no real game.
        bundle: of the model, which may know what it is played as.
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
    recording = None
    if bundle is not None and play is not None and not places:
        starts = _starts_of_bundle(bundle, play, programs, size)
    else:
        paths = [path for place in places or [SAMPLE_CLIP] for path in _clips(place)]
        paths = [paths[index] for index in spread(len(paths), MOST)]
        starts = _starts_of_clips(paths, read, programs, size, remarks)
        recording = _recording(paths, programs.num_actions)
    meanings: tuple[str, ...] = ()
    skip = FRAME_SKIP
    if play is not None:
        meanings, skip = play.actions, play.frame_skip
    elif recording is not None:
        meanings, skip = recording.action_meanings, recording.frame_skip
    about = play.prediction.lines() if play is not None and play.prediction is not None else ()
    if game is None:
        return World(starts, meanings, None, about)

    def begin() -> Game:
        return Game(game, size, skip, programs.num_actions)

    trial = begin()  # so that a wrong name is refused at once
    meanings = trial.meanings
    trial.close()
    return World(starts, meanings, begin, about)


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
    remarks: list[str],
) -> list[Start]:
    starts, context = [], start_length(programs)
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


def _recording(clips: Sequence[Path], count: int) -> DataFolder | None:
    """Of the first recorded clip that has as many actions as the model."""
    for folder in dict.fromkeys(clip.parent for clip in clips):
        if (folder / INDEX_NAME).is_file():
            data = read_data_folder(folder)
            if len(data.action_meanings) == count:
                return data
    return None
