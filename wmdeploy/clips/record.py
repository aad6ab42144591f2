"""Record clips of a game: `ALE/<Game>-v5`, played by a random policy, into a data folder.

    record(RecordOptions(game="pong", frames=2000, size=64), Path("pong-data"))

The same options give the same bytes with the same versions of ale-py and PyAV. Frames go to disk as
they are played, so memory does not grow with their number. Knows files; the game is in play.py.
"""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wmdeploy.clips.folder import (
    DATA_KIND,
    ClipEntry,
    DataFolder,
    actions_path,
    outcome_paths,
    write_index,
)
from wmdeploy.clips.play import POLICY, Player, open_game
from wmdeploy.clips.write import write_video
from wmdeploy.errors import ClipError
from wmdeploy.files import staged_directory
from wmdeploy.progress import Progress, silent

# The tail an episode leaves after being cut is dropped below this length: no use for training.
_SHORTEST_TAIL = 16


@dataclass(frozen=True, kw_only=True)
class RecordOptions:
    """What to record.

    Attributes:
        game: a game's name in any spelling: "pong", "ms_pacman", "MsPacman", "ALE/Pong-v5".
        frames: how many frames in all, at least 1. From 64 on there are at least two episodes: one
            that would be longer than half of the frames is cut off there.
        seed: of the emulator and the policy, 0 or more.
        size: both sides of a frame, 16 to 1024; the screen is resized by area.
        frame_skip: emulator frames (60 per second) for each decision and recorded frame, 1 to 60.
            The last of them is recorded. Games that draw some objects in every second frame only,
            such as the rocks of Asteroids, need an odd number, or these are never seen.
        stickiness: chance that the emulator repeats the previous action instead, 0 to 1. Above 0
            the recorded action is not always the one that was played: what follows a frame is then
            partly chance, to a model too. The policy holds its actions anyway.
        clip_frames: frames in a clip, at most, 16 or more; a longer episode becomes several clips.
        all_actions: the 18 actions that all games share, so that games can be mixed in a training.

    Raises:
        ClipError: a number is outside its range.
    """

    game: str
    frames: int
    seed: int = 0
    size: int = 256
    frame_skip: int = 4
    stickiness: float = 0.0
    clip_frames: int = 500
    all_actions: bool = False

    def __post_init__(self) -> None:
        ranges: dict[str, tuple[float, float]] = {
            "frames": (1, float("inf")),
            "seed": (0, float("inf")),
            "size": (16, 1024),
            "frame_skip": (1, 60),
            "stickiness": (0, 1),
            "clip_frames": (_SHORTEST_TAIL, float("inf")),
        }
        for name, (least, most) in ranges.items():
            value = getattr(self, name)
            if not least <= value <= most:
                upto = f"to {most}" if most < float("inf") else "or more"
                raise ClipError(f"{name}: got {value}, expected {least} {upto}")


@dataclass(frozen=True, kw_only=True)
class RecordSummary:
    """What was recorded: `size_bytes` is the whole folder's."""

    folder: Path
    game: str
    clips: int
    frames: int
    episodes: int
    num_actions: int
    size_bytes: int


def record(options: RecordOptions, folder: Path, progress: Progress = silent) -> RecordSummary:
    """Play a game and record it as a data folder (see folder.py).

    Each episode starts a new clip. When this ends early, by an error or Ctrl-C, nothing is left.

    Args:
        options: what to record.
        folder: where; an older data folder there is replaced.

    Raises:
        ClipError: the game is unknown.
        WmdeployError: gymnasium or ale-py is missing, or the place cannot be written.
    """
    game = open_game(options.game, options.frame_skip, options.stickiness, options.all_actions)
    with closing(game), staged_directory(folder, DATA_KIND) as staged:
        player = Player(game, options.seed, options.size)
        clips = _record_clips(player, options, staged, progress)
        data = DataFolder(
            game=game.spec.name,
            seed=options.seed,
            size=options.size,
            fps=60 / options.frame_skip,
            frame_skip=options.frame_skip,
            policy=POLICY,
            num_actions=len(player.meanings),
            action_meanings=player.meanings,
            clips=tuple(clips),
        )
        write_index(data, staged)
        size_bytes = sum(path.stat().st_size for path in staged.iterdir())
    return RecordSummary(
        folder=folder,
        game=data.game,
        clips=len(clips),
        frames=sum(clip.frames for clip in clips),
        episodes=len({clip.episode for clip in clips}),
        num_actions=data.num_actions,
        size_bytes=size_bytes,
    )


def _record_clips(
    player: Player, options: RecordOptions, folder: Path, progress: Progress
) -> list[ClipEntry]:
    clips: list[ClipEntry] = []
    recorded = 0
    played = 0  # of this episode
    while recorded < options.frames:
        video = folder / f"clip-{len(clips):05}.mkv"
        whole_episode = player.over
        played = 0 if whole_episode else played
        limit = _next_length(options, recorded, played)
        frames = _counted(player.play(limit), recorded, options, progress)
        write_video(video, frames, fps=60 / options.frame_skip)
        length = len(player.actions)
        played += length
        player.over |= played >= _longest_episode(options)
        if length < min(limit, _SHORTEST_TAIL) and not whole_episode:
            video.unlink()
            continue
        np.save(actions_path(video), np.array(player.actions, np.int64))
        beside = outcome_paths(video)
        np.save(beside["rewards"], np.array(player.rewards, np.float32))
        np.save(beside["ends"], np.array(player.ends, np.bool_))
        if player.final is not None:
            np.save(beside["final"], player.final)
        clips.append(ClipEntry(video.name, length, player.episode, player.score))
        recorded += length
    return clips


def _longest_episode(options: RecordOptions) -> int:
    """Where an episode is cut off and the next begins: there must be one for validation too."""
    enough = options.frames >= 4 * _SHORTEST_TAIL
    return -(-options.frames // 2) if enough else options.frames


def _next_length(options: RecordOptions, recorded: int, played: int) -> int:
    """How long the next clip may be, so that neither it nor the last one is a useless rest.

    Args:
        recorded: frames in the clips before.
        played: frames of this episode before.
    """
    remaining = options.frames - recorded
    of_episode = _longest_episode(options) - played
    if remaining - of_episode >= _SHORTEST_TAIL:
        remaining = of_episode
    if options.clip_frames < remaining < options.clip_frames + _SHORTEST_TAIL:
        return max(_SHORTEST_TAIL, remaining - _SHORTEST_TAIL)
    return min(options.clip_frames, remaining)


def _counted(
    frames: Iterator[np.ndarray], recorded: int, options: RecordOptions, progress: Progress
) -> Iterator[np.ndarray]:
    for count, frame in enumerate(frames, start=1):
        yield frame
        progress(f"record {options.game}", recorded + count, options.frames)
