"""PyTorch modules as engines. The one file of this folder that imports torch."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from wmdeploy.programs.arrays import TorchArrays
from wmdeploy.programs.contract import TensorSpec
from wmdeploy.programs.engine import Backend, Engine

if TYPE_CHECKING:
    from wmdeploy.families import Deployment, Graph
    from wmdeploy.manifest import Precision

CPU = torch.device("cpu")


class ModuleEngine:
    """An engine whose graph is a PyTorch module.

    Args:
        device: where the module is.
        run: the compiled module, where it is compiled.
        copy: whether results are copied, because the next run would write over them. One that lies
            in the memory of an input always is.
    """

    def __init__(
        self,
        name: str,
        graph: "Graph",
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
    def run(
        self, feeds: Mapping[str, Tensor], into: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        assert self._run is not None, "the engine was closed"
        result = self._run(*(feeds[spec.name] for spec in self.inputs))
        values = result if isinstance(result, tuple) else (result,)
        given = {_memory(value) for value in feeds.values()}
        return {
            spec.name: value.clone() if self._copy or _memory(value) in given else value
            for spec, value in zip(self.outputs, values, strict=True)
        }

    def synchronize(self) -> None:
        """A CPU has finished when `run` returns."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)

    def close(self) -> None:
        self._run = None


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def module_backend(
    deployed: "Deployment",
    *,
    name: str,
    precision: "Precision" = "fp32",
    device: torch.device = CPU,
    encode_batch: int = 8,
    engine: Callable[..., Engine] = ModuleEngine,
) -> Backend:
    """A model's graphs as they are, in PyTorch.

    Args:
        engine: made of each graph's name, the graph and the device.
    """
    engines = {}
    # all are built before any is moved: in float32 they share the model's weights
    for graph_name, graph in [(n, build()) for n, build in deployed.graphs.items()]:
        graph.module.to(device)
        engines[graph_name] = engine(graph_name, graph, device)
    return Backend(
        name=name,
        precision=precision,
        device=device.type,
        arrays=TorchArrays(device),
        engines=engines,
        programs=deployed.programs,
        encode_batch=encode_batch,
        threads=torch.get_num_threads() if device.type == "cpu" else None,
    )
