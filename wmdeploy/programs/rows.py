"""Where the state of rows lies: rows that run together lie together.

The arrays of a group have all its rows, in the order in which they ran last. The same rows run
again on these arrays, and nothing is copied; rows that run with others are copied to a new group.
"""

from collections.abc import Callable, Sequence

import numpy as np

from wmdeploy.errors import BackendError
from wmdeploy.programs.arrays import Array
from wmdeploy.programs.contract import TensorSpec
from wmdeploy.programs.engine import Backend

LEFT = -1  # in the place of a row that has gone to another group


class Group:
    """Rows that ran together.

    Attributes:
        rows: their numbers, `LEFT` where one has gone.
        size: the batch; behind the rows come copies of the last one.
        index: (size,) the row at each place.
        every: whether they are all rows of the pool, in order, and no copies.
        held: arrays of `size` rows by name.
        other: of engines bound to addresses: the arrays that take turns with `held`.
    """

    def __init__(self, rows: Sequence[int], size: int, capacity: int) -> None:
        self.rows = list(rows)
        self.size = size
        self.index = np.array([*rows, *[rows[-1]] * (size - len(rows))])
        self.live = self.index[: len(rows)]
        self.every = size == capacity and self.rows == list(range(capacity))
        self.held: dict[str, Array] = {}
        self.other: dict[str, Array] | None = None


class RowState:
    """The own arrays of all rows of a pool.

    Args:
        specs: of each array, for one row and a batch.
        bucket: the batch size for so many rows.
    """

    def __init__(
        self,
        backend: Backend,
        specs: tuple[TensorSpec, ...],
        capacity: int,
        bucket: Callable[[int], int],
    ) -> None:
        self._arrays, self._memory = backend.arrays, backend.memory
        self.specs, self._bucket, self._capacity = specs, bucket, capacity
        self._axis = {spec.name: spec.batch_axis for spec in specs}
        self._places: list[tuple[Group, int] | None] = [None] * capacity
        self._zeros = {s.name: self._arrays.zeros(s.sizes(1), s.dtype) for s in specs}

    def group(self, rows: Sequence[int], needed: frozenset[str] | None = None) -> Group:
        """These rows as one group; of a new one, arrays that are not `needed` are still to come."""
        place = self._places[rows[0]]
        if place is not None and place[0].rows == list(rows):
            return place[0]
        parts = {
            name: [self.row(name, row) for row in rows]
            for name in self._axis
            if needed is None or name in needed
        }
        return self._new_group(rows, parts)

    def borrow(self, rows: Sequence[int], names: frozenset[str]) -> Group:
        """These rows to be read, with the arrays of these names alone; rows stay where they are."""
        place = self._places[rows[0]]
        if self._memory is not None or (place is not None and place[0].rows == list(rows)):
            return self.group(rows)
        group = Group(rows, self._bucket(len(rows)), self._capacity)
        for name in names:
            parts = [self.row(name, row) for row in rows]
            parts += [parts[-1]] * (group.size - len(rows))
            group.held[name] = (
                parts[0] if group.size == 1 else self._arrays.join(parts, self._axis[name])
            )
        return group

    def place(self, row: int, arrays: dict[str, Array]) -> None:
        """Give a row arrays of batch 1; they are copied."""
        self._new_group([row], {name: [array] for name, array in arrays.items()})

    def row(self, name: str, row: int) -> Array:
        """An array of one row, batch 1: a view, or zeros."""
        place = self._places[row]
        if place is None:
            return self._zeros[name]
        group, at = place
        axis = self._axis[name]
        return group.held[name][(*[slice(None)] * axis, slice(at, at + 1))]

    def copies(self, row: int) -> dict[str, Array]:
        return {name: self._arrays.copy(self.row(name, row)) for name in self._axis}

    def clear(self, rows: Sequence[int]) -> None:
        """Zeros, from here on."""
        for row in rows:
            self._leave(row)

    def close(self) -> None:
        """Give the memory back."""
        self.clear(range(self._capacity))

    def _new_group(self, rows: Sequence[int], parts: dict[str, list[Array]]) -> Group:
        group = Group(rows, self._bucket(len(rows)), self._capacity)
        if self._memory is not None:
            group.held = self._memory.take(self.specs, group.size)
            group.other = self._memory.take(self.specs, group.size)
        for name, found in parts.items():
            axis = self._axis[name]
            found = [*found, *[found[-1]] * (group.size - len(rows))]
            if group.other is None:
                group.held[name] = self._arrays.join(found, axis)
            else:
                for at, part in enumerate(found):
                    where = (*[slice(None)] * axis, slice(at, at + 1))
                    group.held[name][where] = part
        shrunk = {id(g): g for row in rows if (g := self._leave(row)) is not None}
        for at, row in enumerate(rows):
            self._places[row] = group, at
        for old in shrunk.values():
            left = [row for row in old.rows if row != LEFT]
            if 0 < 2 * len(left) <= old.size and self._bucket(len(left)) < old.size:
                self.group(left)  # or a few rows would keep the memory of many
        return group

    def _leave(self, row: int) -> Group | None:
        """Take a row out of its group; the group, where others are left in it."""
        place, self._places[row] = self._places[row], None
        if place is None:
            return None
        group, at = place
        group.rows[at] = LEFT
        if any(other != LEFT for other in group.rows):
            return group
        if self._memory is not None and group.other is not None:
            self._memory.give_back(self.specs, group.size, group.held)
            self._memory.give_back(self.specs, group.size, group.other)
        return None


def checked_bucket(buckets: Sequence[int] | None, most: int | None) -> Callable[[int], int]:
    """The batch size for n rows: the least bucket that holds them, or n itself.

    Raises:
        BackendError: buckets are no ascending batch sizes that the graphs take.
    """
    if buckets is None:
        return lambda rows: rows
    sizes = tuple(buckets)
    if not sizes or list(sizes) != sorted(set(sizes)) or sizes[0] < 1:
        raise BackendError(f"buckets: got {sizes}, expected ascending batch sizes")
    if most is not None and sizes[-1] > most:
        raise BackendError(f"buckets: got up to {sizes[-1]}, expected at most {most}")
    return lambda rows: next(size for size in sizes if size >= rows)
