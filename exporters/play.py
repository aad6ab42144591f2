"""What a bundle is played as: the game of the clip it is verified on, and frames to begin from."""

from pathlib import Path

import numpy as np

from wmdeploy.clips.find import spread
from wmdeploy.clips.folder import INDEX_NAME, read_data_folder
from wmdeploy.clips.read import SAMPLE_CLIP, count_frames, read_clip
from wmdeploy.clips.source import ReadOptions
from wmdeploy.clips.write import write_npz
from wmdeploy.manifest import STARTS_FILE, Play, is_playable, start_length
from wmdeploy.programs.contract import Programs

STARTS = 6


def write_starts(
    clip: Path, read: ReadOptions, size: int, programs: Programs, directory: Path
) -> Play | None:
    """Write `STARTS_FILE`, and say what is played.

    Returns:
        None, and nothing is written: the clip is the built-in one, or none of a data folder, what
        that says is of no game that the model plays, or the clip is too short.
    """
    if clip == SAMPLE_CLIP or not (clip.parent / INDEX_NAME).is_file() or not programs.render:
        return None
    data, context = read_data_folder(clip.parent), start_length(programs)
    places = spread(max(0, count_frames(clip, read) - context + 1), STARTS)
    play = Play(
        game=data.game,
        actions=data.action_meanings,
        fps=data.fps,
        frame_skip=data.frame_skip,
        starts=len(places),
        context=context,
    )
    if not programs.num_actions or not is_playable(play, programs):
        return None
    clips = [
        read_clip(clip, size=size, start=first, count=context, options=read) for first in places
    ]
    actions = [part.actions for part in clips if part.actions is not None]
    if len(actions) < len(clips):
        return None
    frames = np.concatenate([part.frames for part in clips])
    write_npz(directory / STARTS_FILE, frames, np.concatenate(actions))
    return play
