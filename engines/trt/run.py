"""Backends `tensorrt` and `tensorrt-rtx`: a bundle's plans on the GPU.

Buffers are torch tensors; each batch size is one CUDA graph for each side of the KV cache.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from wmdeploy.bundle import Bundle
from wmdeploy.engines.base import Settings
from wmdeploy.engines.devices import cuda_device
from wmdeploy.engines.static import Buffers, Launch, StaticEngine, captured
from wmdeploy.engines.trt.flavour import Context, Flavour, LayerTimes, load_flavour
from wmdeploy.engines.trt.plans import find_plan
from wmdeploy.errors import BackendError
from wmdeploy.files import cache_file
from wmdeploy.manifest import GraphRecord, PlanRecord
from wmdeploy.programs.arrays import TorchArrays
from wmdeploy.programs.contract import state_inputs
from wmdeploy.programs.engine import Backend, FixedMemory, powers_of_two


def load_tensorrt(bundle: Bundle, settings: Settings) -> Backend:
    """All graphs as TensorRT engines; see `_load`."""
    return _load(bundle, "tensorrt")


def load_tensorrt_rtx(bundle: Bundle, settings: Settings) -> Backend:
    """All graphs as TensorRT-RTX engines; see `_load`."""
    return _load(bundle, "tensorrt-rtx")


def _load(bundle: Bundle, name: str) -> Backend:
    """Find the plan of every graph that fits here; then hash and deserialise one after the other.

    Raises:
        BackendError: the package or a GPU is missing, or a plan is missing, outdated or built for
            another GPU; with the command that builds it.
        BundleError: a plan was altered.
    """
    flavour = load_flavour(name)
    device = cuda_device(name)
    graphs, programs = bundle.manifest.graphs, bundle.manifest.programs
    arrays = TorchArrays(device)
    records = {graph: _find_plan(bundle, flavour, graph, device) for graph in graphs}
    plans = {
        graph: Plan(flavour, record, bundle.checked_plan(record), device)
        for graph, record in records.items()
    }
    engines = {
        graph: PlanEngine(graphs[graph], plan, state_inputs(programs, graph), device)
        for graph, plan in plans.items()
    }

    def statistics() -> dict[str, float]:
        return {
            "weights": sum(plan.weight_bytes for plan in plans.values()) / 1e6,
            "scratch": sum(plan.scratch_bytes for plan in plans.values()) / 1e6,
        }

    most = min(record.batches[-1] for record in records.values())
    return Backend(
        name=name,
        precision="fp16",
        weights=bundle.manifest.recipe.weights,
        device=device.type,
        arrays=arrays,
        engines=engines,
        programs=programs,
        encode_batch=1,
        max_batch=most,
        buckets=powers_of_two(most),
        memory=FixedMemory(arrays),
        statistics=statistics,
    )


def profiled_plan_engine(name: str, bundle: Bundle, graph: str, times: LayerTimes) -> "PlanEngine":
    """A graph whose layers are timed, one launched after the other: without a CUDA graph.

    Args:
        name: of the flavour.

    Raises:
        BackendError, BundleError: as `_load`.
    """
    flavour, device = load_flavour(name), cuda_device(name)
    record = _find_plan(bundle, flavour, graph, device)
    plan = Plan(flavour, record, bundle.checked_plan(record), device)
    state = state_inputs(bundle.manifest.programs, graph)
    return PlanEngine(bundle.manifest.graphs[graph], plan, state, device, times)


def _find_plan(bundle: Bundle, flavour: Flavour, graph: str, device: torch.device) -> PlanRecord:
    architecture = "sm_{}{}".format(*torch.cuda.get_device_capability(device))
    return find_plan(bundle, flavour, graph, architecture)


class PlanEngine(StaticEngine):
    """A plan with buffers; closing it gives back the plan's memory too.

    Args:
        times: takes the times of its layers; None: they are not timed, and a run is a CUDA graph.
    """

    def __init__(
        self,
        graph: GraphRecord,
        plan: "Plan",
        state: frozenset[str],
        device: torch.device,
        times: LayerTimes | None = None,
    ) -> None:
        super().__init__(
            name=plan.graph,
            inputs=graph.inputs,
            outputs=graph.outputs,
            state=state,
            device=device,
            bind=plan.bind if times is None else partial(plan.bind_timed, times),
        )
        self._plan = plan

    def close(self) -> None:
        super().close()
        self._plan.close()


class Plan:
    """One deserialised plan, and the memory of its contexts."""

    def __init__(
        self, flavour: Flavour, record: PlanRecord, plan: bytes, device: torch.device
    ) -> None:
        self._flavour, self._record, self._device = flavour, record, device
        # the logger and the runtime must live as long as the engine
        self._logger = flavour.trt.Logger(flavour.trt.Logger.ERROR)
        self._runtime = flavour.trt.Runtime(self._logger)
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise BackendError(
                f"{record.file}: {flavour.name} {flavour.version} cannot load the plan; is there "
                f"memory for {record.bytes / 1e6:.0f} MB on the GPU? Otherwise build it again: "
                f"wmdeploy build-engine BUNDLE --graph {record.graph}"
            )
        self._scratch: dict[int, torch.Tensor] = {}  # by batch: both sides take turns
        self._contexts: list[Context] = []  # a captured graph works in its context's memory

    @property
    def graph(self) -> str:
        return self._record.graph

    @property
    def weight_bytes(self) -> int:
        """On the device, as TensorRT counts them now; in early 10.x, as it did when building."""
        if not hasattr(self._engine, "get_engine_stat"):
            return self._record.weight_bytes or 0
        return int(self._engine.get_engine_stat(self._flavour.trt.EngineStat.TOTAL_WEIGHTS_SIZE))

    def close(self) -> None:
        """Give back contexts, scratch and weights, in this order."""
        self._contexts.clear()
        self._scratch.clear()
        self._engine = None

    @property
    def scratch_bytes(self) -> int:
        """Activations of all batch sizes that have been run."""
        return sum(len(scratch) for scratch in self._scratch.values())

    def bind(self, inputs: Buffers, outputs: Buffers) -> Launch:
        """A CUDA graph of this plan between these buffers.

        Raises:
            BackendError: TensorRT refuses the shapes, or there is no memory for them.
        """
        made, enqueue = self._context(inputs, outputs)
        launch = captured(enqueue)
        made.keep_compiled_kernels(self._kernels)
        self._contexts.append(made)
        return launch

    def bind_timed(self, times: LayerTimes, inputs: Buffers, outputs: Buffers) -> Launch:
        """This plan between these buffers, layer by layer; TensorRT waits for each run to end.

        Raises:
            BackendError: as `bind`.
        """
        made, enqueue = self._context(inputs, outputs)
        made.trt.profiler = self._flavour.layer_profiler(times)
        self._contexts.append(made)

        def launch() -> None:
            times.append([])
            enqueue(torch.cuda.current_stream())

        return launch

    @property
    def _kernels(self) -> Path:
        """Where TensorRT-RTX keeps what it has compiled."""
        tag = f"{self._record.sha256[:16]}-{self._flavour.version}"
        return cache_file(f"kernels-{tag}-{torch.cuda.get_device_name(self._device)}.cache")

    def _context(
        self, inputs: Buffers, outputs: Buffers
    ) -> tuple[Context, Callable[[torch.cuda.Stream], None]]:
        """A context between buffers, and what puts one run of it on a stream."""
        name = self._record.graph
        made = self._flavour.new_context(self._engine, self._kernels)
        context = made.trt
        if context is None:
            raise BackendError(f"{name}: no execution context, most likely for want of memory")
        for tensor_name, tensor in inputs.items():
            if not context.set_input_shape(tensor_name, tuple(tensor.shape)):
                least, _, most = self._record.batches
                raise BackendError(
                    f"{name}: the plan takes batches of {least} to {most}, got "
                    f"{tensor_name} {tuple(tensor.shape)}; build it with a larger max_batch"
                )
        for tensor_name, tensor in (inputs | outputs).items():
            if not context.set_tensor_address(tensor_name, tensor.data_ptr()):
                raise BackendError(f"{name}: the plan has no tensor {tensor_name}; build it again")
        self._give_scratch(context, batch=len(next(iter(inputs.values()))))

        def enqueue(stream: torch.cuda.Stream) -> None:
            if not context.execute_async_v3(stream.cuda_stream):
                raise BackendError(f"{name}: TensorRT could not run the plan")

        return made, enqueue

    def _give_scratch(self, context: Any, batch: int) -> None:
        """Memory for the shapes that are set: far less than for the largest batch."""
        size = max(1, int(context.update_device_memory_size_for_shapes()))
        if batch not in self._scratch:
            try:
                self._scratch[batch] = torch.empty(size, dtype=torch.uint8, device=self._device)
            except torch.OutOfMemoryError as error:
                raise BackendError(
                    f"{self._record.graph}: no {size / 1e6:.0f} MB left on the GPU for this batch"
                ) from error
        scratch = self._scratch[batch]
        assert len(scratch) >= size, "the same shapes need the same memory on both sides"
        context.set_device_memory(scratch.data_ptr(), len(scratch))
