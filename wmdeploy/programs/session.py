"""A session: the rollouts of one batch, in lockstep or each at its own point.

    session = Session(load_backend("ort-cpu", bundle))
    session.reset(frames)            # the context, (T, H, W, 3) uint8
    frame = session.step()           # the next frame, (1, H, W, 3) uint8
    session.observe(real_frame)      # what really came; the next step goes on from it
    session.imagine(100)             # steps without rendering

It is the thin front of a pool (`wmdeploy.programs.pool`) whose rows are all there from the start.
"""

from collections.abc import Sequence

import numpy as np

from wmdeploy.errors import BackendError
from wmdeploy.programs.engine import Backend
from wmdeploy.programs.pool import Pool
from wmdeploy.programs.rollouts import Snapshot


class Session:
    """Rollouts of `batch` rows.

    Args:
        backend: the engines, and the programs that call them.
        batch: rows.
        refill, seed, buckets: see `Pool`; the batch is always one of the buckets.

    Raises:
        BackendError: a number is out of range.
    """

    def __init__(
        self,
        backend: Backend,
        batch: int = 1,
        refill: int | None = None,
        seed: int = 0,
        buckets: Sequence[int] | None = None,
    ) -> None:
        most = backend.max_batch
        if batch < 1 or (most is not None and batch > most):
            expected = "at least 1" if most is None else f"1 to {most}, as the bundle was exported"
            raise BackendError(f"batch: got {batch}, expected {expected}")
        if buckets is None and backend.buckets is not None:
            buckets = sorted({batch, *(size for size in backend.buckets if size < batch)})
        self.backend, self.programs, self.batch = backend, backend.programs, batch
        self._pool = Pool(backend, batch, refill, seed, buckets)
        self._rows = self._pool.add_all()

    def reset(
        self,
        frames: np.ndarray,
        actions: np.ndarray | None = None,
        rows: Sequence[int] | None = None,
    ) -> dict[str, np.ndarray]:
        """Start rows (default: all) anew on a context; see `Pool.reset`."""
        return self._pool.reset(self._rows if rows is None else rows, frames, actions)

    def step(self, action: np.ndarray | int | None = None) -> np.ndarray:
        """Imagine the next frame of every row, and render it.

        Args:
            action: (B, ...) or one for all rows, taken at the newest frame; for a model with
                actions only.

        Returns:
            (B, H, W, 3) uint8.

        Raises:
            BackendError: not every row has been reset, or the action does not fit.
        """
        return self._pool.step(self._rows, action)

    def advance(self, action: np.ndarray | int | None = None) -> None:
        """Predict the next frame of every row, without rendering."""
        self._pool.advance(self._rows, action)

    def imagine(self, count: int, actions: np.ndarray | None = None) -> None:
        """Step `count` times without rendering; `render` shows the last one.

        Args:
            actions: (count, ...) or (B, count, ...), for a model with actions only.

        Raises:
            BackendError: as `step`.
        """
        spec = self.programs.action
        axis = 0
        if actions is not None and spec is not None:
            axes = len(spec.shape)
            axis = actions.ndim - axes
            if axis not in (0, 1) or actions.shape[axis] != count:
                raise BackendError(
                    f"imagine: got actions {actions.shape}, expected ({count},) or (B, {count})"
                )
        for i in range(count):
            self.advance(None if actions is None else actions.take(i, axis))

    def render(self) -> np.ndarray:
        """The newest predicted frame of every row, (B, H, W, 3) uint8.

        Raises:
            BackendError: nothing has been predicted since the last reset.
        """
        return self._pool.render(self._rows)

    def outputs(self) -> dict[str, np.ndarray]:
        """What the newest prediction gave for people, by name; see `Pool.outputs`."""
        return self._pool.outputs(self._rows)

    def observe(
        self,
        frame: np.ndarray,
        action: np.ndarray | int | None = None,
        rows: Sequence[int] | None = None,
    ) -> dict[str, np.ndarray]:
        """Tell rows (default: all) the real frame; see `Pool.observe`."""
        return self._pool.observe(self._rows if rows is None else rows, frame, action)

    def snapshot(self) -> list[Snapshot]:
        """A copy of every row, for `restore`: branch, plan, go back."""
        return [self._pool.snapshot(row) for row in range(self.batch)]

    def restore(self, snapshots: Sequence[Snapshot]) -> None:
        """Go back to a snapshot of these rows or of others like them, as often as need be.

        Raises:
            BackendError: the snapshot is of a session of another kind.
        """
        if len(snapshots) != self.batch:
            raise BackendError(
                f"restore: got a snapshot of {len(snapshots)} rows, expected {self.batch}"
            )
        for row, snapshot in enumerate(snapshots):
            self._pool.restore(row, snapshot)

    def synchronize(self) -> None:
        """Return when the device has finished."""
        self.backend.synchronize()
