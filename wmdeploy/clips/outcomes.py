"""Rewards and ends of a file of arrays: `rewards` and `ends`, one number for each frame; `final`.

`rewards[t]` is what the action at frame t brought, and `ends[t]` whether the episode ended by it.
`final` is the picture behind the last frame of the file.
Other names are not taken: tools differ in whether such numbers come with a frame or behind it.
Knows arrays, not files.
"""

from collections.abc import Mapping

import numpy as np

from wmdeploy.clips.clip import Outcomes
from wmdeploy.clips.npy import Stored

_NAMES = ("rewards", "ends")
FINAL = "final"


def find_outcomes(
    arrays: Mapping[str, Stored], frames: tuple[int, int, int, int]
) -> tuple[str, ...]:
    """The names of those that can be read: finite numbers, as many as frames or one fewer.

    One fewer is how tools store an episode whose last frame is its final picture; 0 stands for the
    last then. Else `final` is read too, uint8 (H, W, 3) as a frame is.

    Args:
        frames: their shape, (T, H, W, 3).
    """
    length, *sides = frames
    shapes = [(count, *rest) for count in (length, length - 1) for rest in ((), (1,))]
    names = [
        name
        for name in _NAMES
        if name in arrays
        and arrays[name].dtype.kind in "biuf"
        and arrays[name].shape in shapes
        and np.isfinite(_values(arrays[name], 0, length)).all()
    ]
    final = arrays.get(FINAL)
    if final is not None and final.dtype == np.uint8 and final.shape == tuple(sides):
        if all(arrays[name].shape[0] == length for name in names):
            names.append(FINAL)
    return tuple(names)


def read_outcomes(
    arrays: Mapping[str, Stored], *, first: int, last: int, length: int, moved: bool
) -> Outcomes:
    """The outcomes of the frames `first` to `last` of `length`, of what `find_outcomes` named.

    Args:
        moved: whether each action of the file comes before its frame, and what it brought with it,
            so that both are moved by one. What the last action brought is not known then.
    """
    values = {}
    for name in (name for name in _NAMES if name in arrays):
        shifted = moved and arrays[name].shape[0] == length
        values[name] = _values(arrays[name], first + shifted, last + shifted)
        values[name][last - first - shifted :] = 0  # of another episode
    rewards, ends = (values.get(name) for name in _NAMES)
    final = None
    if FINAL in arrays and last == length and not moved:
        arrays[FINAL].check()
        final = np.stack(list(arrays[FINAL].rows(0, arrays[FINAL].shape[0])))
    return Outcomes(rewards=rewards, ends=None if ends is None else ends != 0, final=final)


def _values(array: Stored, first: int, last: int) -> np.ndarray:
    """(last - first,) float32, 0 behind the end."""
    array.check()
    rows = array.rows(first, min(last, array.shape[0]))
    values = np.zeros(last - first, np.float32)
    for index, row in enumerate(rows):
        values[index] = row.item()
    return values
