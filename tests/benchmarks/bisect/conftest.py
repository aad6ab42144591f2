"""PyTorch's side of the graphs, made once."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from torch import Tensor

from tests.benchmarks.bisect.faults import SHAPE, Exact
from wmdeploy.benchmarks.bisect.run import recorded_feeds
from wmdeploy.benchmarks.bisect.torch_values import PytorchValues
from wmdeploy.bundle import Bundle
from wmdeploy.clips.clip import Clip
from wmdeploy.families import load_model


@pytest.fixture(scope="module")
def exact() -> Exact:
    """PyTorch's side of a graph, which no fault in a file changes, made once."""
    made: dict[tuple[Path, str], tuple[PytorchValues, Mapping[str, Tensor]]] = {}

    def get(bundle: Bundle, graph: str) -> tuple[PytorchValues, Mapping[str, Tensor]]:
        key = bundle.path, graph
        if key not in made:
            model = load_model(bundle.checked_model())
            frames = np.random.default_rng(0).integers(0, 256, SHAPE, np.uint8)
            feeds = recorded_feeds(model, bundle, Clip(frames, np.arange(6) % 3, "noise"))
            made[key] = PytorchValues(model, bundle.manifest.recipe, graph), feeds[graph]
        return made[key]

    return get
