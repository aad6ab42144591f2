"""A pool of rows: rollouts that come, go, start anew and step on their own, on one backend.

    pool = Pool(load_backend("ort-cpu", bundle), capacity=16)
    a = pool.add(frames)                  # a context, (T, H, W, 3) uint8
    b = pool.add(other_frames)
    pool.step([a, b])                     # their next frames, (2, H, W, 3) uint8
    pool.step([b])                        # a costs nothing, and stays as it is
    moment = pool.snapshot(b)
    pool.restore(a, moment)               # a goes on as b

Rows that step together are one batch, whatever their depths: some run `predict`, those whose window
was cut run `refresh`. A row gives the frames that it would give alone in batches of the same size.

A pool belongs to the thread that used it first, as its engines do.
"""

import threading
import weakref
from collections.abc import Sequence

import numpy as np

from wmdeploy.errors import BackendError
from wmdeploy.programs.engine import Backend
from wmdeploy.programs.inputs import checked_actions, checked_context, checked_rows
from wmdeploy.programs.rollouts import Rollouts, Snapshot

# Row numbers; an array of all of them, as a session has, is the quickest.
Rows = Sequence[int] | np.ndarray


class Pool:
    """Rows of one backend.

    Args:
        backend: the engines, and the programs that call them.
        capacity: the most rows at a time.
        refill: None: the window slides as the model says. K from the model's least to S - 1: when
            it is full, keep its newest K frames, refresh once, and step on. Other semantics, at a
            lower cost where a refresh is much dearer than a step.
        seed: of all noise.
        buckets: batch sizes that rows are padded to; default the backend's.

    Raises:
        BackendError: a number is out of range.
    """

    def __init__(
        self,
        backend: Backend,
        capacity: int,
        refill: int | None = None,
        seed: int = 0,
        buckets: Sequence[int] | None = None,
    ) -> None:
        programs = backend.programs
        least, most = programs.least, programs.context - 1
        if refill is not None and not least <= refill <= most:
            allowed = f"{least} to {most}, or none" if least <= most else "none"
            raise BackendError(f"refill: got {refill}, expected {allowed}")
        if capacity < 1:
            raise BackendError(f"capacity: got {capacity} rows, expected at least 1")
        self.backend, self.programs, self.capacity = backend, programs, capacity
        self._rollouts = Rollouts(
            backend,
            capacity=capacity,
            keep=programs.keep if refill is None else refill,
            seed=seed,
            buckets=backend.buckets if buckets is None else buckets,
        )
        self._taken = np.zeros(capacity, bool)
        self._everyone = np.arange(capacity)
        self._thread: int | None = None
        # the next pool runs what engines have bound for this one
        weakref.finalize(self, self._rollouts.close).atexit = False

    def add(
        self, frames: np.ndarray, actions: np.ndarray | None = None, stream: int | None = None
    ) -> int:
        """A new row, reset on a context; see `reset`.

        Args:
            stream: of the noise, with the pool's seed; default the row's number.

        Raises:
            BackendError: the pool is full, or the context does not fit.
        """
        free = np.flatnonzero(~self._taken)
        if not len(free):
            raise BackendError(f"add: all {self.capacity} rows of the pool are taken; remove one")
        row = int(free[0])
        self._taken[row] = True
        try:
            self.reset([row], frames, actions, [row if stream is None else stream])
        except BaseException:
            self._taken[row] = False
            raise
        return row

    def add_all(self) -> np.ndarray:
        """All rows of an empty pool, which are still to be reset; the quickest `rows` to give."""
        self._taken[:] = True
        return self._everyone

    def remove(self, row: int) -> None:
        """Free a row.

        Raises:
            BackendError: there is no such row.
        """
        self._rollouts.clear(self._own("remove", [row]))
        self._taken[row] = False

    def reset(
        self,
        rows: Rows,
        frames: np.ndarray,
        actions: np.ndarray | None = None,
        streams: Sequence[int] | None = None,
    ) -> dict[str, np.ndarray]:
        """Start rows anew on a context.

        Args:
            frames: (T, H, W, 3) uint8 for all of `rows`, or (rows, T, H, W, 3), T at least the
                model's least. A model without `absorb` knows the last S alone.
            actions: (T - 1, ...) or (rows, T - 1, ...), what was done at each frame but the last;
                only for a model with actions. The last frame's action is given to `step`.
            streams: of the noise, one for each of `rows`; default: those that they had, so that
                the same noise comes again.

        Returns:
            What encoding gives for people, such as codes (rows, T', N) int64, by name.

        Raises:
            BackendError: shapes, dtypes or the presence of actions do not fit.
        """
        where = self._own("reset", rows)
        if streams is not None and len(streams) != len(where):
            raise BackendError(
                f"reset: got {len(streams)} streams, expected one for {len(where)} rows"
            )
        context, taken = checked_context(frames, actions, len(where), self.programs)
        if streams is not None:
            self._rollouts.set_streams(where, streams)
        return self._rollouts.reset(where, context, taken)

    def observe(
        self, rows: Rows, frames: np.ndarray, actions: np.ndarray | int | None = None
    ) -> dict[str, np.ndarray]:
        """Tell rows the real frame.

        In a row that has just predicted, it takes the place of the prediction; in another, time
        moves on by one frame without a prediction.

        Args:
            frames: (rows, H, W, 3), or (H, W, 3) for all of `rows`, uint8.
            actions: (rows, ...) or one for all, what was done at the frame before; needed by a
                model with actions in rows where the frame does not replace a prediction.

        Returns:
            What encoding gives for people, such as codes (rows, N) int64, by name.

        Raises:
            BackendError: a row has not been reset, or shapes or the action do not fit.
        """
        where = self._own("observe", rows)
        self._check_reset("observe", where)
        if frames.ndim == 3:
            frames = np.broadcast_to(frames, (len(where), *frames.shape))
        if len(frames) != len(where):
            raise BackendError(
                f"observe: got {len(frames)} frames, expected one for {len(where)} rows"
            )
        added = ~self._rollouts.imagined[where]
        if added.any():
            spec = self.programs.action
            if actions is not None and spec is not None and np.ndim(actions) == len(spec.shape):
                actions = checked_actions(actions, (len(where),), self.programs, "observe")[added]
            self._note_actions(where[added], actions, "observe")
        return self._rollouts.observe(where, frames)

    def advance(self, rows: Rows, actions: np.ndarray | int | None = None) -> None:
        """Predict the next frame of rows, without rendering.

        Args:
            actions: (rows, ...) or one for all, taken at the newest frame; for a model with actions
                only.

        Raises:
            BackendError: a row has not been reset, or the actions do not fit.
        """
        where = self._own("step", rows)
        self._check_reset("step", where)
        self._note_actions(where, actions, "step")
        self._rollouts.advance(where)

    def render(self, rows: Rows) -> np.ndarray:
        """The newest predicted frames of rows, (rows, H, W, 3) uint8.

        Raises:
            BackendError: a row has predicted nothing since its last reset, or the model has no
                frames.
        """
        where = self._own("render", rows)
        if not self._rollouts.imagined[where].all():
            raise BackendError("render: nothing predicted yet; call step or imagine first")
        if not self.programs.render:
            raise BackendError("render: the model has no program to render with")
        return self._rollouts.render(where)

    def step(self, rows: Rows, actions: np.ndarray | int | None = None) -> np.ndarray:
        """`advance`, then `render`."""
        self.advance(rows, actions)
        return self.render(rows)

    def outputs(self, rows: Rows) -> dict[str, np.ndarray]:
        """What the newest prediction or observation gave for people, by name, batch axis as there.

        Such as rewards, ends, logits; zeros in a row where nothing gave them yet.
        """
        return self._rollouts.outputs(self._own("outputs", rows))

    def snapshot(self, row: int) -> Snapshot:
        """A copy of one row, for `restore`: branch, plan, go back."""
        self._own("snapshot", [row])
        return self._rollouts.snapshot(row)

    def restore(self, row: int, snapshot: Snapshot) -> None:
        """Let a row be what another, or it itself, was; again and again, if need be.

        Raises:
            BackendError: the snapshot is of another model.
        """
        self._own("restore", [row])
        if snapshot.programs != self.programs:
            raise BackendError("restore: got a snapshot of another kind of session")
        self._rollouts.restore(row, snapshot)

    def close(self) -> None:
        """Give the rows' memory back to the backend."""
        self._rollouts.close()

    def _own(self, verb: str, rows: Rows) -> np.ndarray:
        """The rows, where they are the pool's, and the caller is its thread."""
        thread = threading.get_ident()
        if self._thread is None:
            self._thread = thread
        if thread != self._thread:
            raise BackendError(
                f"{verb}: got a call from another thread than the first one; a pool and its "
                "engines belong to one thread: hand the work over to it"
            )
        if rows is self._everyone:
            return self._everyone
        where = checked_rows(rows, self.capacity, verb)
        if not self._taken[where].all():
            raise BackendError(f"{verb}: got rows {where.tolist()}, and not all are of the pool")
        return where

    def _check_reset(self, verb: str, rows: np.ndarray) -> None:
        if not self._rollouts.length[rows].all():
            raise BackendError(f"{verb}: not every row has a context yet; call reset first")

    def _note_actions(self, rows: np.ndarray, actions: np.ndarray | int | None, verb: str) -> None:
        if self.programs.action is None:
            if actions is not None:
                raise BackendError(f"{verb}: the model takes no actions, got {actions}")
            return
        if actions is None:
            raise BackendError(f"{verb}: the model is conditioned on actions; give one per row")
        taken = checked_actions(actions, (len(rows),), self.programs, verb)
        self._rollouts.window.note(rows, taken)
