"""Where dreams begin: a few real frames and the actions between them."""

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from wmdeploy.clips.clip import Clip
from wmdeploy.errors import ClipError
from wmdeploy.programs.contract import Programs

MOST = 24  # starts of a picker


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


def starts_of(clips: Sequence[Clip], programs: Programs, context: int) -> list[Start]:
    """Starts spread evenly over clips, `MOST` at most.

    Args:
        clips: frames of the model's size.
        context: real frames of each, at least the model's least.

    Raises:
        ClipError: a clip is too short, or has other actions than the model takes.
    """
    starts = []
    each = max(1, MOST // max(1, len(clips)))
    for clip in clips[:MOST]:
        room = len(clip) - context
        if room < 0:
            raise ClipError(
                f"clip {clip.name}: got {len(clip)} frames, expected at least {context}: a dream "
                "begins with so many"
            )
        actions = None
        if programs.action is not None:
            sizes = programs.action.sizes(1)[1:]
            actions = clip.check_actions(programs.num_actions, sizes[0] if sizes else 0)
        for first in sorted({round(place) for place in np.linspace(0, room, each)}):
            last = first + context
            starts.append(
                Start(
                    f"{clip.name}, frame {last - 1}",
                    clip.frames[first:last],
                    None if actions is None else actions[first : last - 1],
                )
            )
    return starts


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
