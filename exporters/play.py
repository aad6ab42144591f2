"""What a bundle is played as: the game of the clip it is verified on, and frames to begin from."""

from pathlib import Path

import numpy as np

from wmdeploy.clips.find import spread
from wmdeploy.clips.folder import INDEX_NAME, read_data_folder
from wmdeploy.clips.read import SAMPLE_CLIP, count_frames, read_clip
from wmdeploy.clips.source import ReadOptions
from wmdeploy.clips.write import write_npz
from wmdeploy.manifest import STARTS_FILE, Play
from wmdeploy.programs.contract import Programs

STARTS = 6
LONGEST_CONTEXT = 16  # frames of a start


def write_starts(
    clip: Path, read: ReadOptions, size: int, programs: Programs, directory: Path
) -> Play | None:
    """Write `STARTS_FILE`, and say what is played.

    Returns:
        None, and nothing is written: the clip is the built-in one, or none of a data folder, the
        game has other actions than the model, or the clip is too short.
    """
    if clip == SAMPLE_CLIP or not (clip.parent / INDEX_NAME).is_file() or not programs.render:
        return None
    data = read_data_folder(clip.parent)
    context = max(programs.least, min(LONGEST_CONTEXT, programs.context))
    room = count_frames(clip, read) - context
    if len(data.action_meanings) != programs.num_actions or not programs.num_actions or room < 0:
        return None
    clips = [
        read_clip(clip, size=size, start=first, count=context, options=read)
        for first in spread(room + 1, STARTS)
    ]
    actions = [part.actions for part in clips if part.actions is not None]
    if len(actions) < len(clips):
        return None
    frames = np.concatenate([part.frames for part in clips])
    write_npz(directory / STARTS_FILE, frames, np.concatenate(actions))
    return Play(
        game=data.game,
        actions=data.action_meanings,
        fps=data.fps,
        frame_skip=data.frame_skip,
        starts=len(clips),
        context=context,
    )
