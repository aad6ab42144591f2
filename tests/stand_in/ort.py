"""onnxruntime-gpu on the stand-in: sessions that capture, with the real one's kernels."""

import ctypes
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from tests.kernels import nodes_without_cuda_kernel, nodes_without_tensorrt
from tests.stand_in.cuda import Gpu
from wmdeploy.decompose import replace_nodes

CUDA, TENSORRT = "CUDAExecutionProvider", "TensorrtExecutionProvider"
Buffers = dict[str, tuple[int, np.dtype, tuple[int, ...]]]  # address, type, shape
WEIGHTS_FOLDER = "session.model_external_initializers_file_folder_path"


def install(gpu: Gpu, patch: pytest.MonkeyPatch) -> list["Session"]:
    """Let onnxruntime have GPU providers; the sessions that are made."""
    import sys

    made: list[Session] = []

    def session(
        graph: bytes, options: Any, providers: Sequence[tuple[str, dict[str, str]]], **more: Any
    ) -> Any:
        (name, settings), *_ = providers
        if name not in (CUDA, TENSORRT):
            return _real(graph, options, providers=providers, **more)
        model = onnx.load_from_string(graph)
        if name == TENSORRT and "tensorrt" not in sys.modules:
            raise RuntimeError("FAIL: libnvinfer.so.10: cannot open shared object file")
        missing = nodes_without_tensorrt if name == TENSORRT else nodes_without_cuda_kernel
        strict = options.get_session_config_entry("session.disable_cpu_ep_fallback") == "1"
        if (left := list(missing(model))) and strict:
            raise RuntimeError(f"FAIL: nodes that are assigned to the default CPU EP: {left}")
        made.append(Session(gpu, name, settings, _on_cpu(model), options))
        return made[-1]

    patch.setattr(onnxruntime, "InferenceSession", session)
    patch.setattr(
        onnxruntime, "get_available_providers", lambda: [TENSORRT, CUDA, "CPUExecutionProvider"]
    )
    return made


_real = onnxruntime.InferenceSession


class Binding:
    """An IOBinding: addresses of a run."""

    def __init__(self) -> None:
        self.inputs: Buffers = {}
        self.outputs: Buffers = {}

    def bind_input(self, name: str, kind: str, number: int, *what: Any) -> None:
        self.inputs[name] = self._address(*what)

    def bind_output(self, name: str, kind: str, number: int, *what: Any) -> None:
        self.outputs[name] = self._address(*what)

    def _address(self, dtype: Any, shape: Any, pointer: int) -> tuple[int, np.dtype, Any]:
        return pointer, np.dtype(dtype), tuple(shape)


class Session:
    """An InferenceSession of one provider, whose options it keeps."""

    def __init__(
        self, gpu: Gpu, provider: str, options: dict[str, str], model: onnx.ModelProto, more: Any
    ) -> None:
        self.gpu, self.provider, self.options, self.model = gpu, provider, options, model
        self.threads = more.intra_op_num_threads
        inner = onnxruntime.SessionOptions()
        inner.log_severity_level = 3
        inner.add_session_config_entry(
            WEIGHTS_FOLDER, more.get_session_config_entry(WEIGHTS_FOLDER)
        )
        inner.enable_profiling = more.enable_profiling
        inner.profile_file_prefix = more.profile_file_prefix
        inner.optimized_model_filepath = more.optimized_model_filepath
        self._inner = _real(model.SerializeToString(), inner, providers=["CPUExecutionProvider"])
        self._captured: dict[str, Binding] = {}
        self._runs: dict[str, int] = {}
        self.get_inputs, self.get_outputs = self._inner.get_inputs, self._inner.get_outputs

    def get_providers(self) -> list[str]:
        return [self.provider, "CPUExecutionProvider"]

    def io_binding(self) -> Binding:
        return Binding()

    def run_with_iobinding(self, binding: Binding, options: Any) -> None:
        """With CUDA graphs the second run of a number is captured; later ones use its addresses."""
        self.gpu.check_not_capturing("a session captures by itself")
        stream = int(self.options["user_compute_stream"])
        self.gpu.check(stream == self.gpu.current.cuda_stream, "a session runs on another stream")
        if self.options.get("enable_cuda_graph") == "1":
            number = options.get_run_config_entry("gpu_graph_id")
            self._runs[number] = self._runs.get(number, 0) + 1
            if self._runs[number] > 1:
                binding = self._captured.setdefault(number, binding)
        self.gpu.launch(stream, lambda: self._run(binding))

    def end_profiling(self) -> str:
        """As a build with CUPTI: each node is launched in no time, and its kernel takes 7 µs."""
        path = Path(self._inner.end_profiling())
        events = []
        for event in json.loads(path.read_text()):
            events.append(event)
            if event["cat"] == "Node":
                event["dur"] = 1
                kernel = {"parent_name": event["name"], "op_name": event["args"]["op_name"]}
                events.append(event | {"cat": "Kernel", "name": "k", "dur": 7, "args": kernel})
        path.write_text(json.dumps(events))
        return str(path)

    def _run(self, binding: Binding) -> None:
        run_at(self._inner, binding.inputs, binding.outputs)


def run_at(session: Any, inputs: Buffers, outputs: Buffers) -> None:
    """Run a session of the CPU provider on memory at addresses."""
    results = session.run(list(outputs), {name: array(*at) for name, at in inputs.items()})
    for at, result in zip(outputs.values(), results, strict=True):
        array(*at)[...] = result


def array(address: int, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    size = int(np.prod(shape)) * dtype.itemsize
    memory = memoryview((ctypes.c_byte * size).from_address(address))
    return np.frombuffer(memory, dtype=dtype).reshape(shape)


def _on_cpu(model: onnx.ModelProto) -> onnx.ModelProto:
    """ONNX Runtime's own GroupNorm has no CPU kernel: by ONNX's operators, as its document says."""

    def fill(new: Any) -> None:
        source, scale, bias = new.node.input
        x = new.add("Transpose", [source], "channels_first", perm=[0, 3, 1, 2])
        x = new.add("Cast", [x], "float", to=onnx.TensorProto.FLOAT)
        groups, epsilon = new.attributes["groups"], new.attributes["epsilon"]
        x = new.add(
            "GroupNormalization", [x, scale, bias], "norm", num_groups=groups, epsilon=epsilon
        )
        if new.attributes["activation"]:
            x = new.add("Mul", [x, new.add("Sigmoid", [x], "sigmoid")], "silu")
        x = new.add("Transpose", [x], "channels_last", perm=[0, 2, 3, 1])
        new.add("CastLike", [x, source])

    replace_nodes(model, ("GroupNorm",), fill)
    return model
