"""Backend `eager`: the baseline, PyTorch float32 with the whole window for every frame.

Also `eager-fp16`, the same in float16, and `ModuleEngine`, which runs any graph's PyTorch module.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from wmdeploy.bundle import Bundle
from wmdeploy.engines.base import Backend, Settings
from wmdeploy.engines.devices import CPU, float16_device, pytorch_device, torch_threads
from wmdeploy.families import Graph, family_of, load_bundled_model
from wmdeploy.manifest import Precision, TensorSpec


class ModuleEngine:
    """An engine whose graph is a PyTorch module.

    Args:
        device: where the module is.
        run: the compiled module, where it is compiled.
        copy: whether results are copied, because the next run would write over them.
    """

    def __init__(
        self,
        name: str,
        graph: Graph,
        device: torch.device,
        run: Callable[..., Any] | None = None,
        copy: bool = False,
    ) -> None:
        self.name = name
        self.inputs: tuple[TensorSpec, ...] = graph.inputs
        self.outputs: tuple[TensorSpec, ...] = graph.outputs
        self._device, self._copy = device, copy
        self._run: Callable[..., Any] | None = graph.module if run is None else run

    @torch.inference_mode()
    def run(self, feeds: Mapping[str, Tensor]) -> dict[str, Tensor]:
        assert self._run is not None, "the engine was closed"
        result = self._run(*(feeds[spec.name] for spec in self.inputs))
        values = result if isinstance(result, tuple) else (result,)
        if self._copy:
            values = tuple(value.clone() for value in values)
        return {spec.name: value for spec, value in zip(self.outputs, values, strict=True)}

    def synchronize(self) -> None:
        """A CPU has finished when `run` returns."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)

    def close(self) -> None:
        self._run = None


def load(bundle: Bundle, settings: Settings) -> Backend:
    """The baseline, from the PyTorch model that the bundle carries.

    Raises:
        BundleError: the bundle carries no model, or it was altered.
        BackendError: there is no such device.
    """
    device = pytorch_device("eager", settings)
    torch_threads(device, settings)
    return baseline(bundled_model(bundle), device)


def load_half(bundle: Bundle, settings: Settings) -> Backend:
    """The baseline's way of working in float16, with the float32 islands of the fp16 graphs.

    Raises:
        BundleError, BackendError: as `load`; also on a CPU.
    """
    device = float16_device("eager-fp16", settings)
    return baseline(bundled_model(bundle), device, "fp16")


def bundled_model(bundle: Bundle) -> nn.Module:
    """The PyTorch model that the bundle carries.

    Raises:
        BundleError: there is none, it was altered, or its sizes are not the manifest's.
        CheckpointError: the family is unknown, or the manifest's sizes are no model's.
    """
    with bundle.model_to_load() as directory:
        return load_bundled_model(bundle.manifest, directory)


def baseline(
    model: nn.Module,
    device: torch.device = CPU,
    precision: Precision = "fp32",
) -> Backend:
    """The baseline of a model that is already loaded; in fp16 it is a rival of the baseline."""
    deployed = family_of(model).baseline_deployment(model, precision)
    engines = {}
    for name, build in deployed.graphs.items():
        graph = build()
        graph.module.to(device)
        engines[name] = ModuleEngine(name, graph, device)
    return Backend(
        name="eager" if precision == "fp32" else "eager-fp16",
        precision=precision,
        device=device,
        engines=engines,
        wiring=deployed.wiring,
        encode_batch=8,
        threads=torch.get_num_threads() if device.type == "cpu" else None,
    )
