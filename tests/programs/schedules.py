"""Random schedules of a pool's rows, each beside a pool of its own. Needs no torch."""

from typing import Any

import numpy as np
from hypothesis import strategies as st

from wmdeploy.programs.engine import Backend
from wmdeploy.programs.pool import Pool

ROWS = 4
# kind, which rows (bits), how far
Schedule = list[tuple[str, int, int]]
VERBS = ("add", "remove", "step", "step", "step", "observe", "reset", "keep", "rewind")
SCHEDULES = st.lists(
    st.tuples(st.sampled_from(VERBS), st.integers(1, 2**ROWS - 1), st.integers(0, 30)),
    min_size=1,
    max_size=25,
)


class Rows:
    """A pool, and beside it for each row a pool of its own.

    Args:
        levels: pixels may differ by so many. 0, but for products of torch, which on some processors
            round by a row's place in the batch; its own pool has it in the first.
    """

    def __init__(
        self, backend: Backend, frames: np.ndarray, refill: int | None = None, levels: int = 0
    ) -> None:
        self.backend, self.frames, self.refill, self.levels = backend, frames, refill, levels
        self.pool = Pool(backend, ROWS, refill=refill, seed=3, buckets=(ROWS,))
        self.alone: dict[int, Pool] = {}
        self.moments: dict[int, tuple[Any, Any]] = {}
        self.compared = 0

    def go(self, verb: str, bits: int, number: int) -> None:
        rows = [row for row in sorted(self.alone) if bits >> row & 1]
        if verb == "add" and len(self.alone) < ROWS:
            pool = Pool(self.backend, 1, refill=self.refill, seed=3, buckets=(ROWS,))
            context = self.context(number)
            row = self.pool.add(*context, stream=number)
            pool.add(*context, stream=number)
            self.alone[row] = pool
            self.moments.pop(row, None)
        elif verb == "remove" and rows:
            self.pool.remove(rows[0])
            del self.alone[rows[0]]
        elif verb == "step" and rows:
            actions = self.actions(number, len(rows))
            got = self.pool.step(rows, actions)
            outputs = self.pool.outputs(rows)
            for at, row in enumerate(rows):
                mine = None if actions is None else actions[at : at + 1]
                expected = self.alone[row].step([0], mine).astype(int)
                np.testing.assert_allclose(got[at : at + 1], expected, 0, self.levels)
                for name, value in self.alone[row].outputs([0]).items():
                    near = 1e-4 * self.levels
                    np.testing.assert_allclose(outputs[name][at : at + 1], value, near, near)
                self.compared += 1
        elif verb == "observe" and rows:
            seen = self.frames[(number + np.arange(len(rows))) % len(self.frames)]
            actions = self.actions(number, len(rows))
            self.pool.observe(rows, seen, actions)
            for at, row in enumerate(rows):
                mine = None if actions is None else actions[at : at + 1]
                self.alone[row].observe([0], seen[at : at + 1], mine)
        elif verb == "reset" and rows:
            self.pool.reset(rows[:1], *self.context(number))
            self.alone[rows[0]].reset([0], *self.context(number))
        elif verb == "keep" and rows:
            self.moments[rows[0]] = self.pool.snapshot(rows[0]), self.alone[rows[0]].snapshot(0)
        elif verb == "rewind" and rows and rows[0] in self.moments:
            here, there = self.moments[rows[0]]
            self.pool.restore(rows[0], here)
            self.alone[rows[0]].restore(0, there)

    def context(self, number: int) -> tuple[np.ndarray, np.ndarray | None]:
        count = self.backend.programs.least + number % 8
        first = number % (len(self.frames) - count)
        actions = self.actions(number, count - 1) if count > 1 else None
        return self.frames[first : first + count], actions

    def actions(self, number: int, count: int) -> np.ndarray | None:
        action = self.backend.programs.action
        if action is None:
            return None
        if action.dtype == "int64":
            return (number + np.arange(count)) % self.backend.programs.num_actions
        return np.sin(number + np.arange(2 * count, dtype=np.float32)).reshape(count, 2)
