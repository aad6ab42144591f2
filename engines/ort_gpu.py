"""Backends `ort-cuda` and `ort-tensorrt`: ONNX Runtime's GPU providers, bound to torch's tensors.

Nothing is copied to the host between graphs; with the CUDA provider each batch size is one CUDA
graph for each side of the KV cache. A provider that is asked for is the one that runs, or there is
an error; so is a node that no GPU provider takes.
"""

import itertools
from typing import Any

import torch

from engines.base import Backend, Settings
from engines.devices import cuda_device
from engines.ort import check_signature, inference_session
from engines.static import Bind, Buffers, Launch, StaticEngine, feedback_of, on_stream
from wmdeploy.bundle import Bundle
from wmdeploy.errors import BackendError, require

CUDA = "CUDAExecutionProvider"
TENSORRT = "TensorrtExecutionProvider"
WARM_UPS = 3  # ONNX Runtime captures its graph in one of them
Provider = tuple[str, dict[str, str]]


def load_cuda(bundle: Bundle, settings: Settings) -> Backend:
    """All graphs with the CUDA provider.

    Raises:
        BackendError: there is no GPU, onnxruntime-gpu is not installed, or it refuses a graph.
        BundleError: a file is missing or altered.
    """
    device = cuda_device("ort-cuda")
    stream = torch.cuda.Stream()
    return _load("ort-cuda", bundle, device, stream, [cuda_provider(stream, settings)])


def load_tensorrt(bundle: Bundle, settings: Settings) -> Backend:
    """All graphs with the TensorRT provider, which builds its engines while loading.

    Raises:
        BackendError: as `load_cuda`; or TensorRT's libraries are not there.
        BundleError: a file is missing or altered.
    """
    device = cuda_device("ort-tensorrt")
    stream = torch.cuda.Stream()
    # without CUDA graphs: this provider keeps one for a session, whatever its buffers are
    options = {"user_compute_stream": str(stream.cuda_stream)}
    providers = [(TENSORRT, options), cuda_provider(stream, settings, graphs=False)]
    return _load("ort-tensorrt", bundle, device, stream, providers)


def cuda_provider(stream: torch.cuda.Stream, settings: Settings, graphs: bool = True) -> Provider:
    """The CUDA provider and its options, each chosen on purpose."""
    options = {
        # on torch's own stream, so that neither waits for the other on the host
        "user_compute_stream": str(stream.cuda_stream),
        # every convolution's algorithm is timed once: shapes never change here
        "cudnn_conv_algo_search": "EXHAUSTIVE",
        "cudnn_conv_use_max_workspace": "1",
        "use_tf32": "1" if settings.tf32 else "0",
        "enable_cuda_graph": "1" if graphs else "0",
        # no doubling: a graph's memory is known after its first run
        "arena_extend_strategy": "kSameAsRequested",
    }
    return CUDA, options


def _load(
    name: str,
    bundle: Bundle,
    device: torch.device,
    stream: torch.cuda.Stream,
    providers: list[Provider],
) -> Backend:
    ort = require("onnxruntime", extra="gpu", purpose=f"backend {name}")
    wiring, recipe = bundle.manifest.wiring, bundle.manifest.recipe
    engines = {}
    for graph, record in bundle.manifest.graphs.items():
        path = bundle.checked_graph(graph)
        options = ort.SessionOptions()
        options.log_severity_level = 4  # errors are raised, and told as ours
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        session = inference_session(path, str(path), options, providers)
        check_signature(path, session, record)
        engines[graph] = StaticEngine(
            graph,
            record.inputs,
            record.outputs,
            feedback_of(graph, wiring),
            device,
            bound(ort, session, stream),
        )
    most = recipe.max_batch
    return Backend(name, recipe.precision, device, engines, wiring, 1, most)


def bound(ort: Any, session: Any, stream: torch.cuda.Stream) -> Bind:
    """Programs of one session: a binding to torch's memory each, and a CUDA graph of their own."""
    numbers = itertools.count(1)

    def bind(inputs: Buffers, outputs: Buffers) -> Launch:
        binding = session.io_binding()
        for tensors, add in ((inputs, binding.bind_input), (outputs, binding.bind_output)):
            for name, tensor in tensors.items():
                kind = torch.empty(0, dtype=tensor.dtype).numpy().dtype
                add(name, "cuda", tensor.device.index or 0, kind, tensor.shape, tensor.data_ptr())
        options = ort.RunOptions()
        options.add_run_config_entry("gpu_graph_id", str(next(numbers)))
        # order on the stream is enough; the host waits when somebody reads a result
        options.add_run_config_entry("disable_synchronize_execution_providers", "1")

        def launch() -> None:
            with on_stream(stream):
                try:
                    session.run_with_iobinding(binding, options)
                except Exception as error:  # its types are private to its C extension
                    raise BackendError(f"ONNX Runtime cannot run a graph: {error}") from error

        for _ in range(WARM_UPS):
            launch()
        stream.synchronize()
        return launch

    return bind
