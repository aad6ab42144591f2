"""What people give a session, and what a runtime says and answers, compared with the manifest."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wmdeploy.engines.base import Engine
from wmdeploy.errors import BackendError
from wmdeploy.manifest import BATCH, GraphRecord, TensorSpec, Wiring

if TYPE_CHECKING:
    import torch


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
    values = np.asarray(actions)
    if not np.issubdtype(values.dtype, np.integer) or values.shape not in (shape, shape[1:]):
        raise BackendError(
            f"{verb}: got actions {values.dtype} {values.shape}, "
            f"expected integers {shape} or {shape[1:]}"
        )
    if values.size and (values.min() < 0 or values.max() >= num_actions):
        raise BackendError(
            f"{verb}: got actions {values.min()} to {values.max()}, "
            f"expected 0 to {num_actions - 1}; give a clip of the model's game"
        )
    return np.broadcast_to(values, shape).astype(np.int64)


def checked_context(
    frames: np.ndarray, actions: np.ndarray | None, rows: int, wiring: Wiring
) -> tuple[np.ndarray, np.ndarray | None]:
    """The context of `rows` rows, as much of it as a window holds.

    Args:
        frames: (T, H, W, 3) uint8 for all rows, or (rows, T, H, W, 3); T >= 1.
        actions: (T - 1,) or (rows, T - 1) int64 for a model with actions.

    Returns:
        Frames (rows, T', H, W, 3), T' = min(T, S), and for a model with actions those at each frame
        but the last, (rows, T' - 1) int64.

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
    given, kept = frames.shape[1], min(frames.shape[1], wiring.context)
    taken = None
    if wiring.window_actions and given > 1:
        if actions is None:
            raise BackendError("reset: this model takes the action at each frame but the last")
        taken = checked_actions(actions, (rows, given - 1), wiring.num_actions, "reset")
        taken = taken[:, given - kept :]
    elif actions is not None and not wiring.window_actions:
        raise BackendError("reset: this model takes no actions")
    return frames[:, given - kept :], taken


def check_feeds(engine: Engine, feeds: "Mapping[str, torch.Tensor]") -> None:
    """Compare what is about to be run with what the engine takes. Kept off the timed path.

    Raises:
        BackendError: an input is missing, unknown, or of another dtype or shape.
    """
    specs = {spec.name: spec for spec in engine.inputs}
    for name in specs.keys() ^ feeds.keys():
        problem = "is missing" if name in specs else f"is unknown; expected {', '.join(specs)}"
        raise BackendError(f'{engine.name}: input "{name}" {problem}')
    batch = {feeds[s.name].shape[s.shape.index(BATCH)] for s in engine.inputs if BATCH in s.shape}
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


def check_tensors(
    path: Path, tensors: Iterable[tuple[str, str, Sequence[object]]], record: GraphRecord
) -> None:
    """Compare the inputs and outputs that a runtime sees in a graph with the manifest's.

    Args:
        tensors: name, dtype and sizes of each; a size that is no int is not static.

    Raises:
        BackendError: names, dtypes or shapes are others.
    """
    given = list(tensors)
    specs = {spec.name: spec for spec in (*record.inputs, *record.outputs)}
    if {name for name, _, _ in given} != specs.keys() or len(given) != len(specs):
        raise BackendError(f"{path}: has other tensors than the manifest says; export again")
    for name, dtype, shape in given:
        spec = specs[name]
        fits = len(shape) == len(spec.shape) and all(
            not isinstance(size, int) if wanted == BATCH else size == wanted
            for size, wanted in zip(shape, spec.shape, strict=True)
        )
        if dtype != spec.dtype or not fits:
            raise BackendError(
                f'{path}: the tensor "{name}" is {dtype} {list(shape)}, the manifest says {spec}; '
                "export again"
            )


def check_results(
    graph: str, specs: Sequence[TensorSpec], results: Sequence[Any], batch: int
) -> None:
    """Compare what a graph answered with what the manifest says, which the graph only declares.

    Raises:
        BackendError: an array is of another dtype or shape.
    """
    for spec, result in zip(specs, results, strict=True):
        expected = tuple(batch if size == BATCH else size for size in spec.shape)
        if not isinstance(result, np.ndarray):
            got = type(result).__name__
        elif result.dtype == spec.dtype and result.shape == expected:
            continue
        else:
            got = f"{result.dtype} {result.shape}"
        raise BackendError(
            f'{graph}: its output "{spec.name}" is {got}, the manifest says {spec}; export again'
        )


def batch_of(specs: Sequence[TensorSpec], arrays: Mapping[str, np.ndarray]) -> int:
    """B of a graph's inputs."""
    spec = next(spec for spec in specs if BATCH in spec.shape)
    return int(arrays[spec.name].shape[spec.shape.index(BATCH)])
