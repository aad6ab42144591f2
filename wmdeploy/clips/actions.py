"""Actions as one index for each frame, from the ways in which data sets store them.

`actions[t]` is the action taken at frame t, which leads to frame t+1. Knows arrays, not files.
"""

import pickle
import pickletools
from collections.abc import Mapping

import numpy as np

from wmdeploy.clips.layout import MOST_ACTIONS, ContinuousActions, is_named
from wmdeploy.clips.npy import NpyArray, Stored
from wmdeploy.errors import ClipError

_MOST_NONE = 400  # bytes of a pickled None
_MOST_BYTES = 2**30  # of all actions of a file


def read_actions(
    arrays: Mapping[str, Stored], name: str, first: int, last: int, length: int, place: str
) -> tuple[np.ndarray | None, str]:
    """The actions of the frames `first` to `last` of `length`, and how they were read.

    Taken are whole numbers of shape (T,), (T, 1) and (1, T), one action less than frames, and rows
    with a single 1 in them. Frames that an action *led to* have none at the first one (Dreamer:
    a row of zeros; Crafter, by its other arrays): their actions are moved by one.

    Returns:
        (last - first,) int64, or None where `None` was saved; and a note, "" if there is none.

    Raises:
        ContinuousActions: they are no whole numbers.
        ClipError: there are fewer or more than frames, several for each frame, or they are no
            indices below `MOST_ACTIONS`.
    """
    array = arrays[name]
    if array.shape == () and isinstance(array, NpyArray) and _is_none(array):
        return None, f"{name} is None, so the clip is read without actions"
    shape = array.shape
    batch = len(shape) in (2, 3) and shape[0] == 1 != length
    rows = shape[1:] if batch else shape
    expected = f"expected int64 ({length},)"
    if len(rows) not in (1, 2) or rows[0] not in (length, length - 1) or 0 in rows:
        raise ClipError(
            f"{place}: {name}: got {array.dtype} {shape}, {expected}; "
            "give one action index for each frame"
        )
    width = 1 if len(rows) == 1 else rows[1]
    if array.dtype.kind not in "biuf" or length * width * array.dtype.itemsize > _MOST_BYTES:
        raise ClipError(f"{place}: {name}: got {array.dtype} {shape}, {expected} of indices")
    if array.dtype.kind == "f" and width == 1:
        raise ContinuousActions(_continuous(place, name, array, expected))
    notes = [] if name == "actions" else [f"actions are read from {name}"]
    array.check()
    stored = (array.unbatched() if batch else array).rows(first, min(last, rows[0]))
    values = np.array([row.reshape(width) for row in stored]).reshape(-1, width)
    if width > 1:
        moved, values = _indices(values, place, name, array, expected)
        notes.append("one-hot actions are read as indices")
    else:
        values = values[:, 0]
        moved = any(is_named(other.partition("_")[0], ("achievement",)) for other in arrays)
    _check_range(values, place, name)
    indices = values.astype(np.int64)
    if moved:
        notes.append("each action comes before its frame; actions are shifted by one")
        indices = indices[1:]
    elif len(indices) < last - first:
        notes.append("there is one action fewer than frames; the last one is repeated")
    if not len(indices):
        return None, "its one frame has no action"
    held = np.minimum(np.arange(last - first), len(indices) - 1)
    return indices[held], ", ".join(notes)


def _indices(
    rows: np.ndarray, place: str, name: str, array: Stored, expected: str
) -> tuple[bool, np.ndarray]:
    """Whether the first row is no action, and the index of the 1 in each row."""
    ones = (rows == 1).sum(1) == 1
    single = ones & ((rows != 0).sum(1) == 1)
    moved = len(rows) > 1 and not rows[0].any()
    if single[1:].all() and (moved or single[:1].all()):
        return moved, rows.argmax(1)
    if rows.dtype.kind == "f":
        raise ContinuousActions(_continuous(place, name, array, expected))
    raise ClipError(
        f"{place}: {name}: got {array.dtype} {array.shape}, {rows.shape[1]} numbers for each frame,"
        f" {expected}; give each combination of them an index"
    )


def _continuous(place: str, name: str, array: Stored, expected: str) -> str:
    return (
        f"{place}: {name}: got {array.dtype} {array.shape}, {expected}; continuous actions cannot "
        "be used: train without actions, or save whole numbers (astype(numpy.int64)) if they are "
        "indices"
    )


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
