"""Rewards and ends of a file of arrays: `rewards` and `ends`, one number for each frame.

`rewards[t]` is what the action at frame t brought, and `ends[t]` whether the episode ended by it.
Other names are not taken: tools differ in whether such numbers come with a frame or behind it.
Knows arrays, not files.
"""

from collections.abc import Mapping

import numpy as np

from wmdeploy.clips.clip import Outcomes
from wmdeploy.clips.npy import Stored

_NAMES = ("rewards", "ends")


def find_outcomes(arrays: Mapping[str, Stored], length: int) -> tuple[str, ...]:
    """The names of those that can be read: finite numbers, as many as frames or one fewer.

    One fewer is how tools store an episode with its final picture; 0 stands for the last then.
    """
    shapes = [(count, *rest) for count in (length, length - 1) for rest in ((), (1,))]
    return tuple(
        name
        for name in _NAMES
        if name in arrays
        and arrays[name].dtype.kind in "biuf"
        and arrays[name].shape in shapes
        and np.isfinite(_values(arrays[name], 0, length)).all()
    )


def read_outcomes(arrays: Mapping[str, Stored], first: int, last: int) -> Outcomes:
    """The outcomes of the frames `first` to `last`, of arrays that `find_outcomes` named."""
    values = {name: _values(array, first, last) for name, array in arrays.items()}
    rewards, ends = (values.get(name) for name in _NAMES)
    return Outcomes(rewards=rewards, ends=None if ends is None else ends != 0)


def _values(array: Stored, first: int, last: int) -> np.ndarray:
    """(last - first,) float32, 0 behind the end."""
    array.check()
    rows = array.rows(first, min(last, array.shape[0]))
    values = np.zeros(last - first, np.float32)
    for index, row in enumerate(rows):
        values[index] = row.item()
    return values
