"""PyTorch's side of the graphs, made once."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.benchmarks.bisect.faults import SHAPE, Exact
from wmdeploy.benchmarks.bisect.torch_values import PytorchValues
from wmdeploy.bundle import Bundle
from wmdeploy.families import Case
from wmdeploy.manifest import DType
from wmdeploy.models.checkpoint import load_model
from wmdeploy.models.expected import world_model_cases


@pytest.fixture(scope="module")
def exact() -> Exact:
    """PyTorch's side of a graph, which no fault in a file changes, made once."""
    made: dict[tuple[Path, str], tuple[PytorchValues, Case]] = {}

    def get(bundle: Bundle, graph: str) -> tuple[PytorchValues, Case]:
        key = bundle.path, graph
        if key not in made:
            recipe = bundle.manifest.recipe
            model = load_model(bundle.checked_model())
            frames = torch.from_numpy(np.random.default_rng(0).integers(0, 256, SHAPE, np.uint8))
            acted = torch.arange(6) % 3 if model.config.temporal.num_actions else None
            dtype: DType = "float32" if recipe.precision == "fp32" else "float16"
            cases = world_model_cases(model, recipe.layout, dtype, frames, acted)
            made[key] = PytorchValues(model, recipe, graph), cases[graph]
        return made[key]

    return get
