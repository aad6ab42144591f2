"""Backend `eager`: the baseline, PyTorch float32 with the whole window for every frame.

Also `ModuleEngine`, which runs any graph's PyTorch module.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from engines.base import Backend
from wmdeploy.bundle import Bundle
from wmdeploy.errors import BundleError
from wmdeploy.manifest import TensorSpec
from wmdeploy.models.checkpoint import load_model
from wmdeploy.models.config import WorldModelConfig
from wmdeploy.models.graphs import Graph, baseline_deployment
from wmdeploy.models.world_model import WorldModel


class ModuleEngine:
    """An engine whose graph is a PyTorch module, on the CPU."""

    def __init__(self, name: str, graph: Graph, run: Callable[..., Any] | None = None) -> None:
        self.name = name
        self.inputs: tuple[TensorSpec, ...] = graph.inputs
        self.outputs: tuple[TensorSpec, ...] = graph.outputs
        self._run: Callable[..., Any] | None = graph.module if run is None else run

    @torch.inference_mode()
    def run(self, feeds: Mapping[str, Tensor]) -> dict[str, Tensor]:
        assert self._run is not None, "the engine was closed"
        result = self._run(*(feeds[spec.name] for spec in self.inputs))
        values = result if isinstance(result, tuple) else (result,)
        return {spec.name: value for spec, value in zip(self.outputs, values, strict=True)}

    def synchronize(self) -> None:
        """Nothing to wait for: the CPU has finished when `run` returns."""

    def close(self) -> None:
        self._run = None


def load(bundle: Bundle) -> Backend:
    """The baseline, from the PyTorch model that the bundle carries.

    Raises:
        BundleError: the bundle carries no model, or it was altered.
    """
    return baseline(bundled_model(bundle))


def bundled_model(bundle: Bundle) -> WorldModel:
    """The PyTorch model that the bundle carries.

    Raises:
        BundleError: there is none, it was altered, or its sizes are not the manifest's.
        CheckpointError: the manifest's sizes are no model's.
    """
    model = load_model(bundle.checked_model())
    if model.config != WorldModelConfig.from_dict(bundle.manifest.model):
        raise BundleError(
            f"{bundle.path}: the model in it has other sizes than the manifest; export again"
        )
    return model


def baseline(model: WorldModel) -> Backend:
    """The baseline of a model that is already loaded."""
    deployed = baseline_deployment(model)
    engines = {name: ModuleEngine(name, build()) for name, build in deployed.graphs.items()}
    device = torch.device("cpu")
    return Backend("eager", "fp32", device, engines, deployed.wiring, encode_batch=8)
