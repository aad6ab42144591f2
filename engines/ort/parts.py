"""Parts of a graph, run as a backend of ONNX Runtime runs the whole."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import torch

from wmdeploy.engines.base import BACKENDS
from wmdeploy.engines.ort.cpu import (
    CPU_PROVIDER,
    WEIGHTS_FOLDER,
    follow_link,
    inference_session,
    rewrite_for_cpu,
    weights_file,
)
from wmdeploy.engines.ort.rewrite import cuda_graph, may_use_tf32
from wmdeploy.engines.trt.rewrite import tensorrt_graph
from wmdeploy.errors import require

# The backends of ONNX Runtime, each with how it rewrites a graph before it runs it.
REWRITES: dict[str, Callable[[onnx.ModelProto], object]] = {
    "ort-cpu": rewrite_for_cpu,
    "ort-cuda": cuda_graph,
    "ort-cuda-nhwc": lambda model: cuda_graph(model, nhwc=True),
    "ort-tensorrt": tensorrt_graph,
}


def part_session(backend: str, path: Path, model: onnx.ModelProto) -> Any:
    """An InferenceSession of a part of the graph at `path`, with the backend's own options.

    Raises:
        BackendError: the backend is not there, or refuses the part.
    """
    on_gpu = BACKENDS[backend].device == "cuda"
    extra = "gpu" if on_gpu else "cpu"
    ort = require("onnxruntime", extra=extra, purpose=f"backend {backend}")
    options = ort.SessionOptions()
    options.log_severity_level = 4  # a failure is a finding, and shown as one
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.add_session_config_entry(WEIGHTS_FOLDER, str(weights_file(path).parent))
    follow_link(model, path)
    providers: list[tuple[str, dict[str, str]]] = [(CPU_PROVIDER, {})]
    if on_gpu:
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        providers = _gpu_providers(backend, may_use_tf32(model))
    return inference_session(path, model.SerializeToString(), options, providers)


def _gpu_providers(backend: str, tf32: bool) -> list[tuple[str, dict[str, str]]]:
    """Those of `wmdeploy.engines.ort.gpu` without CUDA graphs and caches: a part runs once."""
    from wmdeploy.engines.devices import cuda_device
    from wmdeploy.engines.ort.gpu import TENSORRT, cuda_provider, load_tensorrt_libraries

    cuda_device(backend)
    stream = torch.cuda.Stream()
    nhwc = backend == "ort-cuda-nhwc"
    providers = [cuda_provider(stream, tf32, graphs=False, nhwc=nhwc)]
    if backend == "ort-tensorrt":
        load_tensorrt_libraries(require("onnxruntime", extra="gpu", purpose=f"backend {backend}"))
        providers.insert(0, (TENSORRT, {"user_compute_stream": str(stream.cuda_stream)}))
    return providers
