"""Each graph alone, on the baseline's feeds: what it should answer, and what a backend answers."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from wmdeploy.bundle import Bundle
from wmdeploy.engines.pytorch.eager import bundled_model
from wmdeploy.families.cases import record_model
from wmdeploy.programs.contract import TensorSpec
from wmdeploy.programs.engine import Backend
from wmdeploy.programs.host_engine import HostEngine


def baseline_cases(
    bundle: Bundle, frames: np.ndarray, actions: np.ndarray | None
) -> dict[str, np.ndarray]:
    """Feeds of each graph of the bundle, and what its module answers, in float32.

    Args:
        bundle: with the decoder that renders, and no other.
        frames: (T, H, W, 3) uint8, T >= 2.
        actions: (T, ...) for a model with actions, else None.

    Returns:
        As GRAPH/feed/INPUT and GRAPH/expected/OUTPUT; all cases are one batch.
    """
    manifest, arrays = bundle.manifest, dict[str, np.ndarray]()
    cases = record_model(bundled_model(bundle), manifest.recipe.layout, frames, actions)
    for name, graph in manifest.graphs.items():
        recorded = cases[name]
        feeds, outputs = [case.feeds for case in recorded], [case.outputs for case in recorded]
        arrays |= {f"{name}/feed/{key}": v for key, v in _joined(graph.inputs, feeds).items()}
        arrays |= {f"{name}/expected/{k}": v for k, v in _joined(graph.outputs, outputs).items()}
    return arrays


def backend_answers(backend: Backend, bundle: Bundle, cases: Path) -> dict[str, np.ndarray]:
    """Each graph's outputs for the baseline's feeds; none where a backend runs its own graphs.

    Returns:
        As GRAPH/OUTPUT, in the backend's precision.
    """
    if backend.programs != bundle.manifest.programs:
        return {}
    arrays: dict[str, np.ndarray] = {}
    with np.load(cases) as file:
        recorded = dict(file)
    for name in backend.programs.graphs():
        engine = backend.engines[name]
        host, first = HostEngine(engine, backend.arrays), engine.inputs[0]
        feeds = {spec: recorded[f"{name}/feed/{spec.name}"] for spec in engine.inputs}
        rows = np.arange(feeds[first].shape[first.batch_axis])
        runs = []
        # one row after the other where another batch size costs a compilation or memory
        for at in range(0, len(rows), backend.encode_batch):
            some = rows[at : at + backend.encode_batch]
            runs.append(host.run({s.name: v.take(some, s.batch_axis) for s, v in feeds.items()}))
        arrays |= {f"{name}/{key}": value for key, value in _joined(engine.outputs, runs).items()}
    return arrays


def _joined(
    specs: Sequence[TensorSpec], parts: Sequence[dict[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """Several batches as one."""
    return {
        spec.name: np.concatenate([part[spec.name] for part in parts], spec.batch_axis)
        for spec in specs
        if parts
    }
