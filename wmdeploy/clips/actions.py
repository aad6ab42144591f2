"""Actions, an index or a vector of floats for each frame, as data sets store them.

`actions[t]` is the action taken at frame t, which leads to frame t+1. Knows arrays, not files.
"""

import pickle
import pickletools
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from wmdeploy.clips.layout import MOST_ACTIONS, UnusableActions, is_named
from wmdeploy.clips.npy import NpyArray, Stored
from wmdeploy.errors import ClipError

_MOST_NONE = 400  # bytes of a pickled None
_MOST_BYTES = 2**30  # of all actions of a file


class ReadActions(NamedTuple):
    """Actions as they were read.

    Attributes:
        values: (T,) int64 or (T, n) float32, or None where there are none.
        note: how they were read, "" if as they are.
        moved: whether each came before its frame, so that they are moved by one.
    """

    values: np.ndarray | None
    note: str
    moved: bool = False


def read_actions(
    arrays: Mapping[str, Stored], name: str, first: int, last: int, length: int, place: str
) -> ReadActions:
    """The actions of the frames `first` to `last` of `length`, and how they were read.

    Taken are whole numbers of shape (T,), (T, 1) and (1, T), one action less than frames, rows
    with a single 1 in them, which are indices, and other rows of floats. Frames that an action
    *led to* have none at the first one (Dreamer: a row of zeros; Crafter, by its other arrays):
    their indices are moved by one.

    Raises:
        UnusableActions: they are one float for each frame, or not finite.
        ClipError: there are fewer or more than frames, several integers for each frame, or they
            are no indices below `MOST_ACTIONS`.
    """
    array = arrays[name]
    if array.shape == () and isinstance(array, NpyArray) and _is_none(array):
        return ReadActions(None, f"{name} is None, so the clip is read without actions")
    shape = array.shape
    batch = len(shape) in (2, 3) and shape[0] == 1 != length
    rows = shape[1:] if batch else shape
    expected = f"expected int64 ({length},) or float32 ({length}, n)"
    if len(rows) not in (1, 2) or rows[0] not in (length, length - 1) or 0 in rows:
        raise ClipError(
            f"{place}: {name}: got {array.dtype} {shape}, {expected}; "
            "give one action for each frame"
        )
    width = 1 if len(rows) == 1 else rows[1]
    if array.dtype.kind not in "biuf" or length * width * array.dtype.itemsize > _MOST_BYTES:
        raise ClipError(f"{place}: {name}: got {array.dtype} {shape}, {expected}")
    floats = array.dtype.kind == "f"
    if floats and len(rows) == 1:
        raise UnusableActions(
            f"{place}: {name}: got {array.dtype} {shape}, {expected}; save "
            "actions.astype(numpy.int64) if they are indices, actions[:, None] if they are "
            "continuous; or train without actions"
        )
    notes = [] if name == "actions" else [f"actions are read from {name}"]
    array.check()
    stored = (array.unbatched() if batch else array).rows(first, min(last, rows[0]))
    values = np.array([row.reshape(width) for row in stored]).reshape(-1, width)
    moved = len(values) > 1 and not values[0].any()
    if width > 1 and _is_one_hot(values[1:] if moved else values):
        actions = values.argmax(1)
        _check_range(actions, place, name)
        notes.append("one-hot actions are read as indices")
    elif floats:
        actions = _vectors(values, place, name)
        if moved:
            notes.append("the first action is zeros; leave it out if each comes before its frame")
        moved = False
    elif width > 1:
        raise ClipError(
            f"{place}: {name}: got {array.dtype} {shape}, {width} numbers for each frame, "
            f"{expected}; give each combination of them an index"
        )
    else:
        _check_range(values, place, name)
        actions = values[:, 0].astype(np.int64)
        moved = any(is_named(other.partition("_")[0], ("achievement",)) for other in arrays)
    if moved:
        notes.append("each action comes before its frame; actions are shifted by one")
        actions = actions[1:]
    elif len(actions) < last - first:
        notes.append("there is one action fewer than frames; the last one is repeated")
    if not len(actions):
        return ReadActions(None, "its one frame has no action", moved)
    held = np.minimum(np.arange(last - first), len(actions) - 1)
    return ReadActions(actions[held], ", ".join(notes), moved)


def _is_one_hot(rows: np.ndarray) -> bool:
    """Whether each row has a single 1, and zeros."""
    return bool((((rows == 1).sum(1) == 1) & ((rows != 0).sum(1) == 1)).all())


def _vectors(values: np.ndarray, place: str, name: str) -> np.ndarray:
    with np.errstate(over="ignore"):
        vectors = values.astype(np.float32)
    if not np.isfinite(vectors).all():
        raise UnusableActions(
            f"{place}: {name}: got values that are not finite as float32, expected finite ones; "
            "replace them, or train without actions"
        )
    return vectors


def _check_range(indices: np.ndarray, place: str, name: str) -> None:
    low, high = (indices.min(), indices.max()) if len(indices) else (0, 0)
    if low < 0:
        raise ClipError(
            f"{place}: {name}: got {low} as the lowest, expected 0 or more; "
            "number the actions from 0"
        )
    if high >= MOST_ACTIONS:
        raise ClipError(
            f"{place}: {name}: got {high} as the highest, expected less than {MOST_ACTIONS}; "
            "number the actions from 0"
        )


def _is_none(array: NpyArray) -> bool:
    """Whether a pickled object is `None`, seen from its instructions, of which none is run."""
    given = _instructions(array.pickled(_MOST_NONE))
    none = np.array(None, dtype=object)
    return given in [_instructions(pickle.dumps(none, protocol)) for protocol in range(2, 6)]


def _instructions(pickled: bytes) -> list[str] | None:
    try:
        return [instruction.name for instruction, _, _ in pickletools.genops(pickled)]
    except (ValueError, IndexError):
        return None
