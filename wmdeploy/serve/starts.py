"""Where dreams begin: a few real frames and the actions between them."""

import io
from dataclasses import dataclass

import numpy as np

from wmdeploy.clips.clip import Clip
from wmdeploy.programs.contract import Programs


@dataclass(frozen=True, eq=False)
class Start:
    """A context.

    Attributes:
        frames: (T, H, W, 3) uint8, oldest first; the dream follows on the last.
        actions: (T - 1, ...), taken at all but the last; None for a model without actions.
        title: for people.
        live: whether the real game is at the last frame now.
    """

    title: str
    frames: np.ndarray
    actions: np.ndarray | None
    live: bool = False


def start_of(clip: Clip, programs: Programs, title: str) -> Start:
    """A start that is all of a clip, but for the action at its last frame.

    Raises:
        ClipError: it has other actions than the model takes.
    """
    actions = None
    if programs.action is not None:
        sizes = programs.action.sizes(1)[1:]
        actions = clip.check_actions(programs.num_actions, sizes[0] if sizes else 0)
    return Start(title, clip.frames, None if actions is None else actions[:-1])


def picture(frame: np.ndarray, kind: str) -> bytes:
    """A frame (H, W, 3) uint8 as "png", which is exact, or "jpeg" without subsampled colours."""
    from PIL import Image

    written = io.BytesIO()
    image = Image.fromarray(frame)
    if kind == "png":
        image.save(written, "PNG", compress_level=1)
    else:
        image.save(written, "JPEG", quality=95, subsampling=0)
    return written.getvalue()
