"""What a player dreamt, as a file: a video, or a clip of ours with its actions."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from wmdeploy.clips.write import side_by_side, write_npz, write_video
from wmdeploy.serve.dream import Taken

RECORDINGS = {
    "gif": "image/gif",
    "mp4": "video/mp4",
    "mkv": "video/x-matroska",
    "npz": "application/octet-stream",
}


def write_recording(taken: Sequence[Taken], kind: str, fps: float) -> bytes:
    """A file of one of `RECORDINGS`.

    A video has the real game on the left where one went along. A clip, `npz`, has the dream alone,
    and the action taken at each frame: the one that led to the next.
    """
    dream = np.stack([one.dream for one in taken])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"dream.{kind}"
        if kind == "npz":
            actions = [one.action for one in taken[1:]]
            write_npz(path, dream, np.array([*actions, actions[-1] if actions else 0], np.int64))
        else:
            reals = [one.real for one in taken if one.real is not None]
            frames = side_by_side(np.stack(reals), dream) if len(reals) == len(taken) else dream
            write_video(path, frames, fps)
        return path.read_bytes()
