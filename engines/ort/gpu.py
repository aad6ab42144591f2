"""Backends `ort-cuda`, `ort-cuda-nhwc` and `ort-tensorrt`: ONNX Runtime's GPU providers.

They are bound to torch's tensors, so nothing is copied to the host between graphs; with the CUDA
provider each batch size is one CUDA graph for each side of the KV cache. A provider that is asked
for is the one that runs, or there is an error; so is a node that no GPU provider takes.
"""

import itertools
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import torch

from wmdeploy.bundle import Bundle
from wmdeploy.engines.base import Settings
from wmdeploy.engines.devices import cuda_device
from wmdeploy.engines.ort.cpu import (
    WEIGHTS_FOLDER,
    check_signature,
    follow_link,
    inference_session,
    time_nodes,
    weights_file,
)
from wmdeploy.engines.ort.rewrite import cuda_graph, may_use_tf32
from wmdeploy.engines.static import Bind, Buffers, Launch, StaticEngine, on_stream
from wmdeploy.engines.trt.flavour import load_flavour
from wmdeploy.engines.trt.rewrite import tensorrt_graph
from wmdeploy.errors import BackendError, MissingError, require
from wmdeploy.files import cache_file
from wmdeploy.manifest import GraphRecord
from wmdeploy.programs.arrays import TorchArrays
from wmdeploy.programs.contract import BATCH, state_inputs
from wmdeploy.programs.engine import Backend, FixedMemory, powers_of_two

CUDA = "CUDAExecutionProvider"
TENSORRT = "TensorrtExecutionProvider"
WARM_UPS = 3  # ONNX Runtime captures its graph in one of them
Provider = tuple[str, dict[str, str]]


def load_cuda(bundle: Bundle, settings: Settings) -> Backend:
    """All graphs with the CUDA provider; each GroupNormalization as its sums.

    Raises:
        MissingError: there is no GPU, or onnxruntime-gpu is not installed.
        BackendError: it refuses a graph.
        BundleError: a file is missing or altered.
    """
    return _load_cuda("ort-cuda", bundle, settings, nhwc=False)


def load_cuda_nhwc(bundle: Bundle, settings: Settings) -> Backend:
    """The same with ONNX Runtime's own GroupNorm, which works on channels-last tensors.

    Raises:
        MissingError, BackendError, BundleError: as `load_cuda`.
    """
    return _load_cuda("ort-cuda-nhwc", bundle, settings, nhwc=True)


def load_tensorrt(bundle: Bundle, settings: Settings) -> Backend:
    """All graphs with the TensorRT provider, which builds its engines while loading.

    What it has built and timed is kept in the user's cache. The first load of a bundle takes
    minutes, later ones seconds.

    Raises:
        MissingError: as `load_cuda`; or TensorRT is not installed, in a version that ONNX Runtime
            was built for.
        BackendError, BundleError: as `load_cuda`.
    """
    device = cuda_device("ort-tensorrt")
    ort = require("onnxruntime", extra="gpu", purpose="backend ort-tensorrt")
    version = load_tensorrt_libraries(ort)
    stream = torch.cuda.Stream()
    if not settings.tf32:  # TensorRT's own default is yes; the provider has no option for it
        os.environ["NVIDIA_TF32_OVERRIDE"] = "0"
    variant = f"{version}{'-tf32' if settings.tf32 else ''}"

    def open_graph(name: str, path: Path) -> Any:
        model = tensorrt_graph(onnx.load(path, load_external_data=False))
        kept = cache_file(f"ort-tensorrt-{variant}-{bundle.graph_digest(name)[:16]}")
        profile = bundle.manifest.graphs[name], bundle.manifest.recipe.max_batch
        providers = [
            tensorrt_provider(stream, kept, *profile),
            # without CUDA graphs: this provider keeps one for a session, whatever its buffers are
            cuda_provider(stream, settings.tf32, graphs=False),
        ]
        return gpu_session(path, model, providers)

    return _load("ort-tensorrt", bundle, device, stream, open_graph)


def _load_cuda(name: str, bundle: Bundle, settings: Settings, nhwc: bool) -> Backend:
    device = cuda_device(name)
    stream = torch.cuda.Stream()

    def open_graph(graph: str, path: Path) -> Any:
        model = cuda_graph(onnx.load(path, load_external_data=False), nhwc)
        provider = cuda_provider(stream, settings.tf32 or may_use_tf32(model), nhwc=nhwc)
        return gpu_session(path, model, [provider])

    return _load(name, bundle, device, stream, open_graph)


def profiled_cuda_engine(
    backend: str, bundle: Bundle, graph: str, settings: Settings, profile: Path
) -> tuple[StaticEngine, Any]:
    """A graph as `ort-cuda` or `ort-cuda-nhwc` runs it, but without CUDA graphs.

    Nodes inside a CUDA graph cannot be timed.

    Args:
        profile: a folder, see `time_nodes`.

    Returns:
        Its engine, and the session, whose profiling the caller ends.

    Raises:
        MissingError, BackendError, BundleError: as `load_cuda`.
    """
    nhwc = backend == "ort-cuda-nhwc"
    device, stream = cuda_device(backend), torch.cuda.Stream()
    with bundle.graph_to_load(graph) as path:
        model = cuda_graph(onnx.load(path, load_external_data=False), nhwc)
        tf32 = settings.tf32 or may_use_tf32(model)
        provider = cuda_provider(stream, tf32, graphs=False, nhwc=nhwc)
        session = gpu_session(path, model, [provider], profile)
    return _engine(bundle, graph, session, stream, device), session


def cuda_provider(
    stream: torch.cuda.Stream, tf32: bool, graphs: bool = True, nhwc: bool = False
) -> Provider:
    """The CUDA provider and its options, each chosen on purpose.

    Args:
        tf32: whether float32 products may use TF32; without it ONNX Runtime lets no convolution,
            of float16 either, use tensor cores.
        graphs: run as CUDA graphs.
        nhwc: prefer kernels of channels-last tensors.
    """
    options = {
        # on torch's own stream, so that neither waits for the other on the host
        "user_compute_stream": str(stream.cuda_stream),
        # the best of cuDNN's heuristics: cuDNN 9 times nothing under this name, or any other
        "cudnn_conv_algo_search": "EXHAUSTIVE",
        "cudnn_conv_use_max_workspace": "1",
        "use_tf32": "1" if tf32 else "0",
        "enable_cuda_graph": "1" if graphs else "0",
        # no doubling: a graph's memory is known after its first run
        "arena_extend_strategy": "kSameAsRequested",
        "prefer_nhwc": "1" if nhwc else "0",
    }
    return CUDA, options


def tensorrt_provider(
    stream: torch.cuda.Stream, cache: Path, record: GraphRecord, max_batch: int
) -> Provider:
    """The TensorRT provider: one engine for all batches, kept for the next process.

    Args:
        cache: a folder for this graph's engines alone.

    Raises:
        BackendError: the folder cannot be made.
    """
    try:
        cache.mkdir(parents=True, exist_ok=True)  # the provider makes only the last folder
    except OSError as error:
        raise BackendError(
            f"{cache}: cannot be created ({error.strerror}); set XDG_CACHE_HOME"
        ) from error

    def shapes(batch: int) -> str:
        sizes = ("x".join(str(batch if n == BATCH else n) for n in s.shape) for s in record.inputs)
        return ",".join(f"{s.name}:{n}" for s, n in zip(record.inputs, sizes, strict=True))

    options = {
        "user_compute_stream": str(stream.cuda_stream),
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(cache),
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": str(cache.parent),
        "trt_profile_min_shapes": shapes(1),
        "trt_profile_opt_shapes": shapes(1),  # tuned for one session, the most frequent case
        "trt_profile_max_shapes": shapes(max_batch),
    }
    return TENSORRT, options


def load_tensorrt_libraries(ort: Any) -> str:
    """Load the TensorRT that ONNX Runtime's provider was linked with; it does not look in pip's.

    Returns:
        TensorRT's version.

    Raises:
        MissingError: TensorRT is not installed, is older than 10.15, or of another major version.
    """
    provider = tensorrt_library(ort)
    if not provider.is_file():
        raise MissingError(
            "backend ort-tensorrt: the onnxruntime here has no TensorRT provider; install "
            "onnxruntime-gpu in place of it"
        )
    linked = re.search(rb"libnvinfer\.so\.(\d+)", provider.read_bytes())
    wanted = int(linked[1]) if linked else 10
    version = load_flavour("tensorrt").version
    if int(version.split(".")[0]) != wanted:
        raise MissingError(
            f"backend ort-tensorrt: onnxruntime-gpu {ort.__version__} needs TensorRT {wanted}, "
            f"here is {version}; install 'tensorrt-cu13>={wanted},<{wanted + 1}' in place of it "
            "(docs/tensorrt.md says from where)"
        )
    return version


def tensorrt_library(ort: Any) -> Path:
    """Where a wheel of onnxruntime-gpu has its TensorRT provider."""
    return Path(ort.__file__).parent / "capi" / "libonnxruntime_providers_tensorrt.so"


def gpu_session(
    path: Path, model: onnx.ModelProto, providers: list[Provider], profile: Path | None = None
) -> Any:
    """A session in which no node may run on the CPU.

    Args:
        path: of the graph that was rewritten; its weights are beside it.
        profile: as of `cpu_session`.

    Raises:
        BackendError: ONNX Runtime refuses the graph.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4  # errors are raised, and shown as ours
    options.intra_op_num_threads = 1  # no node is computed by the host's threads
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    options.add_session_config_entry(WEIGHTS_FOLDER, str(weights_file(path).parent))
    follow_link(model, path)
    if profile is not None:
        time_nodes(options, profile)
    return inference_session(path, model.SerializeToString(), options, providers)


def _load(
    name: str,
    bundle: Bundle,
    device: torch.device,
    stream: torch.cuda.Stream,
    open_graph: Callable[[str, Path], Any],
) -> Backend:
    require("onnxruntime", extra="gpu", purpose=f"backend {name}")
    programs, recipe = bundle.manifest.programs, bundle.manifest.recipe
    arrays = TorchArrays(device)
    engines = {}
    for graph in bundle.manifest.graphs:
        with bundle.graph_to_load(graph) as path:
            session = open_graph(graph, path)
        engines[graph] = _engine(bundle, graph, session, stream, device)
    return Backend(
        name=name,
        precision=recipe.precision,
        device=device.type,
        arrays=arrays,
        engines=engines,
        programs=programs,
        encode_batch=1,
        max_batch=recipe.max_batch,
        buckets=powers_of_two(recipe.max_batch),
        memory=FixedMemory(arrays),
    )


def _engine(
    bundle: Bundle, graph: str, session: Any, stream: torch.cuda.Stream, device: torch.device
) -> StaticEngine:
    """A session with buffers, once its tensors have been found to be the manifest's."""
    import onnxruntime as ort

    record = bundle.manifest.graphs[graph]
    check_signature(bundle.path / record.file, session, record)
    return StaticEngine(
        name=graph,
        inputs=record.inputs,
        outputs=record.outputs,
        state=state_inputs(bundle.manifest.programs, graph),
        device=device,
        bind=bound(ort, session, stream),
    )


def bound(ort: Any, session: Any, stream: torch.cuda.Stream) -> Bind:
    """Programs of one session: a binding to torch's memory each, and a CUDA graph of their own."""
    numbers = itertools.count(1)

    def bind(inputs: Buffers, outputs: Buffers) -> Launch:
        binding = session.io_binding()
        for tensors, bind_tensor in ((inputs, binding.bind_input), (outputs, binding.bind_output)):
            for name, tensor in tensors.items():
                kind = torch.empty(0, dtype=tensor.dtype).numpy().dtype
                bind_tensor(
                    name, "cuda", tensor.device.index or 0, kind, tensor.shape, tensor.data_ptr()
                )
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
