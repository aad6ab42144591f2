"""What people give a session, once it has been looked at."""

from collections.abc import Sequence

import numpy as np

from wmdeploy.errors import BackendError


def checked_rows(rows: Sequence[int] | None, batch: int, verb: str) -> np.ndarray:
    """Row numbers, (n,) int64; None means all of `batch`.

    Raises:
        BackendError: there are none, one comes twice, or one is not of the session.
    """
    chosen = np.arange(batch) if rows is None else np.asarray(rows, np.int64)
    if len(chosen) == 0 or len(set(chosen)) < len(chosen) or not set(chosen) <= set(range(batch)):
        raise BackendError(
            f"{verb}: got rows {list(map(int, chosen))}, expected different ones "
            f"of 0 to {batch - 1}"
        )
    return chosen


def checked_actions(
    actions: np.ndarray | int, shape: tuple[int, ...], num_actions: int, verb: str
) -> np.ndarray:
    """Actions as int64 of `shape`; what has not its first axis is the same for all rows.

    Raises:
        BackendError: dtype or shape do not fit, or the model does not know an action.
    """
    found = np.asarray(actions)
    if not np.issubdtype(found.dtype, np.integer) or found.shape not in (shape, shape[1:]):
        raise BackendError(
            f"{verb}: got actions {found.dtype} {found.shape}, "
            f"expected integers {shape} or {shape[1:]}"
        )
    if found.size and (found.min() < 0 or found.max() >= num_actions):
        raise BackendError(
            f"{verb}: got actions {found.min()} to {found.max()}, "
            f"expected 0 to {num_actions - 1}; the clip is of another game?"
        )
    return np.broadcast_to(found, shape).astype(np.int64)
