"""A clip: some frames, and where they are known the actions taken at them, and what these brought.

Knows shapes and types. Does not know files; see read.py, write.py and record.py for those.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from wmdeploy.errors import ClipError


@dataclass(frozen=True, eq=False, kw_only=True)
class Outcomes:
    """What the actions at the T frames of a clip brought, as far as it is known.

    Attributes:
        rewards: (T,) float32, finite: what the action at frame t brought. It comes with frame t+1.
        ends: (T,) bool: whether the episode ended by it; not where it was cut off there.
        final: (H, W, 3) uint8, the picture behind the last frame of an episode that ended: no
            action was taken there.
    """

    rewards: np.ndarray | None = None
    ends: np.ndarray | None = None
    final: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Clip(Outcomes):
    """Consecutive frames of one scene; `rewards`, `ends` and `final` are given by name.

    Attributes:
        frames: (T, H, W, 3) uint8, RGB in 0..255.
        actions: (T,) int64, never negative, or (T, n) float32, finite, or None. `actions[t]` is the
            action taken at frame t, which leads to frame t+1.
        name: what to call the clip in messages and reports.
        fps: frames per second, for display only.
        notes: what a user should know of how the clip was read, such as "the frames are 33 to
            233 ms apart": each one plain line, without the clip's name.

    Raises:
        ClipError: a field has another type, shape or range.
    """

    frames: np.ndarray
    actions: np.ndarray | None
    name: str
    fps: float = 30
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check_frames(self.frames, self.name)
        if self.actions is not None:
            _check_type(self.actions, len(self.frames), self.name)
        check_outcomes(self, len(self.frames), f"clip {self.name}")
        if not (math.isfinite(self.fps) and self.fps > 0):
            raise ClipError(f"clip {self.name}: got fps {self.fps}, expected a number above 0")

    def __len__(self) -> int:
        """The number of frames, T."""
        return len(self.frames)

    @property
    def remarks(self) -> list[str]:
        """The notes with the clip's name before each, to be shown to a user."""
        return [f"{self.name}: {note}" for note in self.notes]

    def check_actions(self, num_actions: int, action_size: int = 0) -> np.ndarray | None:
        """The clip's actions for a model that takes such; see the function below."""
        return check_actions(self.actions, num_actions, self.name, action_size)


def check_actions(
    actions: np.ndarray | None, num_actions: int, name: str, action_size: int = 0
) -> np.ndarray | None:
    """The actions of a clip or of several, once they are known to fit a model.

    Args:
        actions: (T,) integers, never negative, or (T, n) floats, or None.
        num_actions: integer actions that the model takes; 0 for none, or where they are floats.
        name: what to call the clip in a message.
        action_size: floats that the model takes as one action; 0 for none.

    Returns:
        (T,) in [0, num_actions), or (T, action_size) float32; None for a model without actions,
        whatever the clip has.

    Raises:
        ClipError: the model takes actions, and there are none or others.
    """
    if action_size:
        return _float_actions(actions, name, action_size)
    if not num_actions:
        return None
    takes = f"the model takes actions from 0 to {num_actions - 1}"
    if actions is None or not len(actions):
        raise ClipError(
            f"{name}: got no actions, and {takes}; "
            "use a clip that `wmdeploy record` wrote, or an .npz with frames and actions"
        )
    if actions.ndim != 1 or not np.issubdtype(actions.dtype, np.integer):
        raise ClipError(
            f"{name}: got actions {described(actions)}, and {takes}; use a clip of the model's game"
        )
    if actions.max() >= num_actions:
        raise ClipError(
            f"{name}: got actions up to {actions.max()}, expected 0 to {num_actions - 1}; "
            "use a clip of the model's game"
        )
    return actions


def _float_actions(actions: np.ndarray | None, name: str, size: int) -> np.ndarray:
    takes = f"the model takes {size} float{'' if size == 1 else 's'} for each frame"
    if actions is None or not len(actions):
        raise ClipError(
            f"{name}: got no actions, and {takes}; "
            f"use an .npz with frames and actions, float32 (T, {size})"
        )
    if actions.shape[1:] != (size,) or not np.issubdtype(actions.dtype, np.floating):
        raise ClipError(
            f"{name}: got actions {described(actions)}, and {takes}; "
            f"use a clip with actions float32 (T, {size})"
        )
    if not np.isfinite(actions).all():
        raise ClipError(f"{name}: got actions that are not finite, and {takes}; replace them")
    return actions.astype(np.float32, copy=False)


def sum_up(notes: Sequence[Sequence[str]]) -> list[str]:
    """The notes of many clips as few lines; those that differ in numbers alone are one."""
    alike: dict[str, list[str]] = {}
    for note in (note for clip in notes for note in dict.fromkeys(clip)):
        alike.setdefault(re.sub("[0-9.]+", "0", note), []).append(note)
    return [
        f"{len(same)} of {len(notes)} clips: {same[0]}"
        + (" (the first of these)" if len(set(same)) > 1 else "")
        for same in alike.values()
    ]


def _check_frames(frames: np.ndarray, name: str) -> None:
    fits = (
        isinstance(frames, np.ndarray)
        and frames.dtype == np.uint8
        and frames.ndim == 4
        and frames.shape[3] == 3
        and frames.size > 0
    )
    if not fits:
        raise ClipError(
            f"clip {name}: frames: got {described(frames)}, expected uint8 (T, H, W, 3); "
            "pass pixels as they come from the decoder"
        )


def _check_type(actions: np.ndarray, length: int, name: str) -> None:
    known = isinstance(actions, np.ndarray)
    indices = known and actions.dtype == np.int64 and actions.shape == (length,)
    floats = known and actions.dtype == np.float32 and actions.ndim == 2 and actions.size > 0
    if not indices and not (floats and len(actions) == length):
        raise ClipError(
            f"clip {name}: actions: got {described(actions)}, expected int64 ({length},) or "
            f"float32 ({length}, n); give one action for each frame"
        )
    if floats and not np.isfinite(actions).all():
        raise ClipError(
            f"clip {name}: actions: got values that are not finite, expected finite ones; "
            "replace them"
        )
    if indices and actions.min() < 0:
        raise ClipError(
            f"clip {name}: actions: got {actions.min()} as the lowest, expected 0 or more; "
            "number the actions from 0"
        )


def check_outcomes(outcomes: Outcomes, length: int, place: str) -> None:
    """Check types and shapes.

    Args:
        length: T, the number of frames.
        place: what to name in a message.

    Raises:
        ClipError: one is another.
    """
    for name, dtype in (("rewards", np.float32), ("ends", np.bool_)):
        values = getattr(outcomes, name)
        if values is None:
            continue
        fits = isinstance(values, np.ndarray) and values.dtype == dtype
        if not fits or values.shape != (length,):
            raise ClipError(
                f"{place}: {name}: got {described(values)}, expected {np.dtype(dtype)} "
                f"({length},); give one for each frame"
            )
        if not np.isfinite(values).all():
            raise ClipError(f"{place}: {name}: got values that are not finite; replace them")
    final = outcomes.final
    if final is not None and not (
        isinstance(final, np.ndarray)
        and final.dtype == np.uint8
        and final.ndim == 3
        and final.shape[2] == 3
        and final.size > 0
    ):
        raise ClipError(f"{place}: final: got {described(final)}, expected uint8 (H, W, 3)")


def described(value: object) -> str:
    """What a value is, for an error message: `float32 (8, 64, 64)`, or its Python type."""
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {value.shape}"
    return type(value).__name__


def reason(error: Exception) -> str:
    """Why a library could not read a file, on one line, without the path that we name ourselves."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return text.splitlines()[0]
