"""What people give a session, and what graphs are fed, compared with what the programs say."""

from collections.abc import Mapping, Sequence

import numpy as np

from wmdeploy.errors import BackendError
from wmdeploy.programs.arrays import Array
from wmdeploy.programs.contract import BATCH, Programs
from wmdeploy.programs.engine import Engine


def checked_rows(rows: Sequence[int] | np.ndarray, capacity: int, verb: str) -> np.ndarray:
    """Row numbers, (n,) int64.

    Raises:
        BackendError: there are none, one comes twice, or one is not of the session.
    """
    chosen = np.asarray(rows, np.int64).reshape(-1)
    numbers = chosen.tolist()
    different = len(set(numbers)) == len(numbers)
    if not (numbers and different and 0 <= min(numbers) <= max(numbers) < capacity):
        raise BackendError(
            f"{verb}: got rows {numbers}, expected different ones of 0 to {capacity - 1}"
        )
    return chosen


def checked_actions(
    actions: np.ndarray | float, rows: tuple[int, ...], programs: Programs, verb: str
) -> np.ndarray:
    """Actions as the model takes them, (*rows, ...); what lacks the first axis is for all rows.

    Raises:
        BackendError: dtype or shape do not fit, or the model does not know an action.
    """
    assert programs.action is not None
    spec = programs.action
    values = np.asarray(actions)
    shape = (*rows, *spec.sizes(1)[1:])
    floats = spec.dtype != "int64"
    kind = np.number if floats else np.integer
    if not np.issubdtype(values.dtype, kind) or values.shape not in (shape, shape[1:]):
        raise BackendError(
            f"{verb}: got actions {values.dtype} {values.shape}, "
            f"expected {'floats' if floats else 'integers'} {shape} or {shape[1:]}"
        )
    if floats:
        if not np.isfinite(values).all():
            raise BackendError(f"{verb}: got actions that are not finite")
    elif values.size and (values.min() < 0 or values.max() >= programs.num_actions):
        raise BackendError(
            f"{verb}: got actions {values.min()} to {values.max()}, "
            f"expected 0 to {programs.num_actions - 1}; give a clip of the model's game"
        )
    return np.broadcast_to(values, shape).astype(spec.dtype)


def checked_context(
    frames: np.ndarray, actions: np.ndarray | None, rows: int, programs: Programs
) -> tuple[np.ndarray, np.ndarray | None]:
    """The context of `rows` rows, as much of it as the model can use.

    Args:
        frames: (T, H, W, 3) uint8 for all rows, or (rows, T, H, W, 3); T >= `programs.least`.
        actions: (T - 1, ...) or (rows, T - 1, ...) for a model with actions.

    Returns:
        Frames (rows, T', H, W, 3): all where the model absorbs them, else T' = min(T, S). And for a
        model with actions those at each frame but the last, (rows, T' - 1, ...).

    Raises:
        BackendError: shapes, dtypes or the presence of actions do not fit.
    """
    if frames.ndim == 4:
        frames = np.broadcast_to(frames, (rows, *frames.shape))
    if frames.ndim != 5 or frames.shape[0] != rows or frames.shape[1] < 1:
        raise BackendError(
            f"reset: got frames {frames.shape}, expected (T, H, W, 3) or "
            f"({rows}, T, H, W, 3) with at least one frame"
        )
    given = frames.shape[1]
    if given < programs.least:
        raise BackendError(
            f"reset: got {given} frames, expected at least {programs.least}, which this model needs"
        )
    kept = given if programs.absorb else min(given, programs.context)
    taken = None
    if programs.action is not None and given > 1:
        if actions is None:
            raise BackendError("reset: this model takes the action at each frame but the last")
        taken = checked_actions(actions, (rows, given - 1), programs, "reset")
        taken = taken[:, given - kept :]
    elif actions is not None and programs.action is None:
        raise BackendError("reset: this model takes no actions")
    return frames[:, given - kept :], taken


def check_feeds(engine: Engine, feeds: Mapping[str, Array]) -> None:
    """Compare what is about to be run with what the engine takes. Kept off the timed path.

    Raises:
        BackendError: an input is missing, unknown, or of another dtype or shape.
    """
    specs = {spec.name: spec for spec in engine.inputs}
    for name in specs.keys() ^ feeds.keys():
        problem = "is missing" if name in specs else f"is unknown; expected {', '.join(specs)}"
        raise BackendError(f'{engine.name}: input "{name}" {problem}')
    batch = {int(feeds[s.name].shape[s.batch_axis]) for s in engine.inputs if BATCH in s.shape}
    if len(batch) > 1:
        raise BackendError(f"{engine.name}: got batches of {sorted(batch)}, expected one size")
    for name, spec in specs.items():
        dtype = str(feeds[name].dtype).removeprefix("torch.")
        shape = tuple(feeds[name].shape)
        fits = len(shape) == len(spec.shape) and all(
            want in (BATCH, got) for got, want in zip(shape, spec.shape, strict=True)
        )
        if dtype != spec.dtype or not fits:
            raise BackendError(
                f'{engine.name}: input "{name}": got {dtype} {shape}, expected {spec}'
            )
