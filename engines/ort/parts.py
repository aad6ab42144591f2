"""Parts of a graph, run as a backend of ONNX Runtime runs the whole."""

from pathlib import Path
from typing import Any

import onnx
import torch

from wmdeploy.engines.ort.cpu import (
    CPU,
    WEIGHTS_FOLDER,
    follow_link,
    inference_session,
    weights_file,
)
from wmdeploy.engines.ort.rewrite import may_use_tf32
from wmdeploy.errors import require

# Each with the extra that brings it.
ORT_BACKENDS = {"ort-cpu": "cpu", "ort-cuda": "gpu", "ort-cuda-nhwc": "gpu", "ort-tensorrt": "gpu"}


def open_session(backend: str, path: Path, model: onnx.ModelProto) -> Any:
    """An InferenceSession of a part of the graph at `path`, with the backend's own options.

    Raises:
        BackendError: the backend is not there, or refuses the part.
    """
    ort = require("onnxruntime", extra=ORT_BACKENDS[backend], purpose=f"backend {backend}")
    options = ort.SessionOptions()
    options.log_severity_level = 4  # a failure is a finding, and shown as one
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.add_session_config_entry(WEIGHTS_FOLDER, str(weights_file(path).parent))
    follow_link(model, path)
    providers: list[tuple[str, dict[str, str]]] = [(CPU, {})]
    if backend != "ort-cpu":
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        providers = _gpu_providers(backend, may_use_tf32(model))
    return inference_session(path, model.SerializeToString(), options, providers)


def _gpu_providers(backend: str, tf32: bool) -> list[tuple[str, dict[str, str]]]:
    """As `ort_gpu` has them, without CUDA graphs and caches: each graph here runs once."""
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
