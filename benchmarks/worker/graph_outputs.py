"""Each graph alone, on the baseline's feeds: what it should answer, and what a backend answers."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from wmdeploy.bundle import Bundle
from wmdeploy.engines.base import Backend, Engine
from wmdeploy.engines.pytorch.eager import bundled_model
from wmdeploy.families import family_of
from wmdeploy.manifest import BATCH


def baseline_cases(
    bundle: Bundle, frames: np.ndarray, actions: np.ndarray | None
) -> dict[str, np.ndarray]:
    """Feeds of each graph of the bundle, and what the model as written answers, in float32."""
    recipe = bundle.manifest.recipe
    model = bundled_model(bundle)
    family = family_of(model)
    acted = torch.tensor(actions) if actions is not None else None
    acted = acted if bundle.manifest.wiring.num_actions else None
    cases = family.cases(model, recipe.layout, recipe.precision, torch.tensor(frames), acted)
    arrays: dict[str, np.ndarray] = {}
    with torch.inference_mode():
        for name, build in family.deployment(model, recipe.layout, "fp32").graphs.items():
            graph, case = build(), cases[name]
            feeds = {k: v.float() if v.is_floating_point() else v for k, v in case.feeds.items()}
            results = graph.module(*(feeds[spec.name] for spec in graph.inputs))
            results = results if isinstance(results, tuple) else (results,)
            specs = [spec.name for spec in graph.outputs]
            expected = case.expected(dict(zip(specs, results, strict=True)))
            arrays |= _named(f"{name}/feed", case.feeds) | _named(f"{name}/expected", expected)
    return arrays


@torch.inference_mode()  # as the session's tensors: torch.compile compiles again for others
def backend_answers(backend: Backend, bundle: Bundle, cases: Path) -> dict[str, np.ndarray]:
    """Each graph's outputs for the baseline's feeds; none where a backend runs its own graphs."""
    if backend.wiring != bundle.manifest.wiring:
        return {}
    arrays: dict[str, np.ndarray] = {}
    with np.load(cases) as recorded:
        for name, engine in backend.engines.items():
            feeds = {s.name: torch.tensor(recorded[f"{name}/feed/{s.name}"]) for s in engine.inputs}
            feeds = {k: v.to(backend.device) for k, v in feeds.items()}
            # where another batch size costs a compilation or memory, one row after the other
            apart = backend.encode_batch == 1
            arrays |= _answers(engine, _rows(engine, feeds) if apart else [feeds])
    return arrays


def _answers(engine: Engine, parts: list[dict[str, Tensor]]) -> dict[str, np.ndarray]:
    """The outputs of several runs, as if they had been one batch."""
    runs = [{k: v.float().cpu().numpy().copy() for k, v in engine.run(f).items()} for f in parts]
    return {
        f"{engine.name}/{spec.name}": np.concatenate(
            [run[spec.name] for run in runs], axis=spec.shape.index(BATCH)
        )
        for spec in engine.outputs
    }


def _rows(engine: Engine, feeds: dict[str, Tensor]) -> list[dict[str, Tensor]]:
    axes = {spec.name: spec.shape.index(BATCH) for spec in engine.inputs}
    first = engine.inputs[0].name
    return [
        {k: v.narrow(axes[k], row, 1).contiguous() for k, v in feeds.items()}
        for row in range(feeds[first].shape[axes[first]])
    ]


def _named(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    return {f"{prefix}/{name}": tensor.numpy() for name, tensor in tensors.items()}
