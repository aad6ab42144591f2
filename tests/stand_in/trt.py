"""TensorRT's Python modules on the stand-in: the builder keeps the graph, an engine runs it.

Each name is one of TensorRT's own; only those that wmdeploy uses are here. `rtx` adds what
TensorRT-RTX has beside them.
"""

import dataclasses
import sys
import tempfile
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from tests.stand_in.cuda import Gpu
from tests.stand_in.ort import Buffers, run_at
from wmdeploy.gpu import Gpu as Card

MEMORY = 1024  # of a context, in bytes for each row of its batch
_real = onnxruntime.InferenceSession


def install(gpu: Gpu, patch: pytest.MonkeyPatch) -> None:
    """Let both TensorRT packages be installed, and ONNX Runtime's provider be linked with one."""
    from wmdeploy.engines.ort import gpu as ort_gpu
    from wmdeploy.engines.trt import flavour, plans

    patch.setitem(sys.modules, "tensorrt", module(gpu, "10.16.1.11"))
    patch.setitem(sys.modules, "tensorrt_rtx", module(gpu, "1.7.1.116", rtx=True))
    card = Card("stand-in", "sm_89", "580", 1.0, None)
    for known in (flavour, plans):
        patch.setattr(known, "gpu", lambda: card)
    library = Path(tempfile.mkdtemp()) / "libonnxruntime_providers_tensorrt.so"
    library.write_bytes(b"\0libnvinfer.so.10\0")
    patch.setattr(ort_gpu, "tensorrt_library", lambda ort: library)


def module(gpu: Gpu, version: str, rtx: bool = False) -> Any:
    """A module such as `tensorrt` (or `tensorrt_rtx`) that works on `gpu`."""
    trt = ModuleType("tensorrt")
    trt.__spec__ = ModuleSpec("tensorrt", None)  # torch looks for it
    trt.__dict__.update(
        __version__=version,
        ILogger=_Logger,
        Logger=_Logger,
        IProgressMonitor=object,
        IProfiler=_Profiler,
        INetworkDefinition=SimpleNamespace(add_normalization_v2=None),
        NetworkDefinitionCreationFlag=SimpleNamespace(STRONGLY_TYPED=1),
        BuilderFlag=SimpleNamespace(TF32=0, REQUIRE_USER_ALLOCATION=1),
        MemoryPoolType=SimpleNamespace(WORKSPACE=0),
        EngineStat=SimpleNamespace(TOTAL_WEIGHTS_SIZE=0),
        ExecutionContextAllocationStrategy=SimpleNamespace(USER_MANAGED="user"),
        Builder=_Builder,
        OnnxParser=_Parser,
        Runtime=lambda logger: _Runtime(gpu, rtx),
    )
    if rtx:
        names = {f"SM{number}": number for number in (75, 86, 89, 120)}
        trt.__dict__["ComputeCapability"] = SimpleNamespace(__members__=names)
        strategy = SimpleNamespace(EAGER="eager")
        trt.__dict__["DynamicShapesKernelSpecializationStrategy"] = strategy
    return trt


class _Logger:
    ERROR, INTERNAL_ERROR, VERBOSE = "error", "internal", "verbose"

    def __init__(self, least: str = "") -> None:
        pass


class _Profiler:
    def __init__(self) -> None:
        self.ready = True  # TensorRT's own refuses to work before


class _Parser:
    def __init__(self, network: SimpleNamespace, logger: Any) -> None:
        self.network = network

    def parse(self, graph: bytes, path: str) -> bool:
        model = onnx.load_from_string(graph)
        onnx.load_external_data_for_model(model, str(path).rpartition("/")[0])
        self.network.model = model
        return True


class _Builder:
    def __init__(self, logger: Any) -> None:
        pass

    def create_network(self, flags: int) -> SimpleNamespace:
        return SimpleNamespace(model=None)

    def create_builder_config(self) -> SimpleNamespace:
        timings = SimpleNamespace(serialize=lambda: b"timings")
        return SimpleNamespace(
            add_optimization_profile=lambda profile: None,
            clear_flag=lambda flag: None,
            set_flag=lambda flag: None,
            set_memory_pool_limit=lambda pool, size: None,
            set_compute_capability=lambda capability, index: None,
            create_timing_cache=lambda known: timings,
            set_timing_cache=lambda cache, ignore_mismatch: None,
            get_timing_cache=lambda: timings,
        )

    def create_optimization_profile(self) -> SimpleNamespace:
        return SimpleNamespace(set_shape=lambda name, *shapes: None)

    def build_serialized_network(self, network: SimpleNamespace, config: Any) -> bytes:
        return network.model.SerializeToString()


@dataclasses.dataclass
class _Runtime:
    gpu: Gpu
    rtx: bool

    def deserialize_cuda_engine(self, plan: bytes) -> "_Engine | None":
        return _Engine(self.gpu, plan, self.rtx)


class _Engine:
    def __init__(self, gpu: Gpu, plan: bytes, rtx: bool) -> None:
        self.gpu, self.rtx = gpu, rtx
        self.bytes = len(plan)
        nodes = [node.name for node in onnx.load_from_string(plan).graph.node]
        # two nodes in a layer, as fusions name it
        self.layers = [" + ".join(nodes[at : at + 2]) for at in range(0, len(nodes), 2)]
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        self.session = _real(plan, options, providers=["CPUExecutionProvider"])

    def get_engine_stat(self, stat: int) -> int:
        return self.bytes

    def create_execution_context(self, how: Any) -> "_Context":
        assert how == "user" if not self.rtx else how.kernels is not None
        return _Context(self)

    def create_runtime_config(self) -> SimpleNamespace:
        config = SimpleNamespace(kernels=None)
        config.set_execution_context_allocation_strategy = lambda strategy: None
        config.create_runtime_cache = lambda: SimpleNamespace(
            deserialize=lambda data: None, serialize=lambda: b"kernels"
        )
        config.set_runtime_cache = lambda cache: setattr(config, "kernels", cache)
        return config


class _Context:
    """Runs where its tensors are; its scratch memory is written over at each run."""

    def __init__(self, engine: _Engine) -> None:
        self.engine = engine
        values = (*engine.session.get_inputs(), *engine.session.get_outputs())
        self.types = {value.name: _NUMPY[value.type] for value in values}
        self.outputs = {value.name: value.shape for value in engine.session.get_outputs()}
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}
        self.scratch: tuple[int, int] | None = None
        self.fails: Callable[[], bool] = lambda: False
        self.profiler: Any = None

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shapes[name] = shape
        return True

    def set_tensor_address(self, name: str, address: int) -> bool:
        if name not in self.types:
            return False
        self.addresses[name] = address
        return True

    def update_device_memory_size_for_shapes(self) -> int:
        return MEMORY * self._batch()

    def set_device_memory(self, address: int, size: int) -> None:
        self.scratch = address, size

    def execute_async_v3(self, stream: int) -> bool:
        gpu = self.engine.gpu
        assert self.scratch is not None and self.scratch[1] >= MEMORY * self._batch()
        if self.fails():
            if gpu.capture is not None:
                gpu.broken = "a library gave up"
            return False
        gpu.launch(stream, self._run)
        if self.profiler is not None:  # it would wait for the run to end
            gpu.check_not_capturing("cudaEventSynchronize")
            assert self.profiler.ready
            for name in self.engine.layers:
                self.profiler.report_layer_time(name, 0.25)
        return True

    def _batch(self) -> int:
        return next(iter(self.shapes.values()))[0]

    def _run(self) -> None:
        batch = self._batch()
        inputs: Buffers = {n: (self.addresses[n], self.types[n], s) for n, s in self.shapes.items()}
        outputs: Buffers = {}
        for name, shape in self.outputs.items():
            sizes = tuple(size if isinstance(size, int) else batch for size in shape)
            outputs[name] = self.addresses[name], self.types[name], sizes
        run_at(self.engine.session, inputs, outputs)


_NUMPY: dict[str, np.dtype] = {
    "tensor(float)": np.dtype(np.float32),
    "tensor(float16)": np.dtype(np.float16),
    "tensor(int64)": np.dtype(np.int64),
    "tensor(uint8)": np.dtype(np.uint8),
}
