"""What a bundle is played as: the game of the clip it is verified on, and frames to begin from."""

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from wmdeploy.clips.find import spread
from wmdeploy.clips.folder import INDEX_NAME, read_data_folder
from wmdeploy.clips.read import SAMPLE_CLIP, count_frames, read_clip
from wmdeploy.clips.source import ReadOptions
from wmdeploy.clips.write import write_npz
from wmdeploy.manifest import STARTS_FILE, Play, Prediction, is_playable, start_length
from wmdeploy.programs.contract import Programs

STARTS = 6


def write_starts(
    clip: Path,
    read: ReadOptions,
    size: int,
    prediction: Prediction | None,
    programs: Programs,
    directory: Path,
) -> Play | None:
    """Write `STARTS_FILE`, and say what is played.

    Args:
        prediction: see `Play`.

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
        prediction=prediction,
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


HORIZON = 16  # of the rollouts that a training ends with


def noted_prediction(notes: Mapping[str, Any]) -> Prediction | None:
    """What `wmdeploy train` noted of a model; None where it noted nothing."""
    try:
        summary = notes["training"]["summary"]
        scores = next(g for g in summary["quality"]["groups"] if g["name"] == "all")
        following, rollouts, at = scores["following"], scores["rollouts"], str(HORIZON)
        prediction = Prediction(
            frames=int(summary["training_frames"]),
            next_db=float(following["model"]["psnr"]),
            next_copy_db=float(following["copy"]["psnr"]),
            horizon=HORIZON,
            later_db=float(rollouts["model"]["psnr"][at]),
            later_copy_db=float(rollouts["copy"]["psnr"][at]),
        )
    except (KeyError, TypeError, ValueError, OverflowError, StopIteration):
        return None
    finite = map(math.isfinite, dataclasses.astuple(prediction))
    return prediction if all(finite) else None
