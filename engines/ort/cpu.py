"""Backend `ort-cpu`: ONNX Runtime with its CPU provider.

A provider that is asked for is the one that runs, or there is an error: ONNX Runtime itself would
go on with another one (onnxruntime issues 25145 and 27006).
"""

import functools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import psutil

from wmdeploy.bundle import Bundle
from wmdeploy.decompose import decompose_group_norm
from wmdeploy.engines.base import Settings
from wmdeploy.engines.checks import batch_of, check_results, check_tensors
from wmdeploy.engines.ort.integers import DEQUANTIZE, split_factors
from wmdeploy.engines.ort.rewrite import split_attention, split_transposed_convolution
from wmdeploy.errors import BackendError, MissingError, require
from wmdeploy.graph_file import WEIGHTS_FILE
from wmdeploy.manifest import GraphRecord
from wmdeploy.programs.arrays import NUMPY
from wmdeploy.programs.contract import DType, TensorSpec
from wmdeploy.programs.engine import Backend
from wmdeploy.runtime import refusal

CPU_PROVIDER = "CPUExecutionProvider"
ORT_TYPES: dict[str, DType] = {
    "tensor(uint8)": "uint8",
    "tensor(int64)": "int64",
    "tensor(float16)": "float16",
    "tensor(float)": "float32",
}
# ONNX Runtime's name for: where a graph that is given as bytes has its weights
WEIGHTS_FOLDER = "session.model_external_initializers_file_folder_path"

OPTIMIZED_GRAPH = "optimized.onnx"  # see `time_nodes`
CONVOLUTIONS = ("Conv", "ConvTranspose")


class OrtEngine:
    """One ONNX graph in ONNX Runtime, on numpy arrays; arguments as of `cpu_session`."""

    def __init__(
        self, name: str, bundle: Bundle, threads: int | None = None, profile: Path | None = None
    ) -> None:
        self.name = name
        self.inputs: tuple[TensorSpec, ...] = bundle.manifest.graphs[name].inputs
        self.outputs: tuple[TensorSpec, ...] = bundle.manifest.graphs[name].outputs
        self._output_names = [spec.name for spec in self.outputs]
        with bundle.graph_to_load(name) as path:
            self._session = cpu_session(path, threads, profile)
        check_signature(path, self._session, bundle.manifest.graphs[name])

    def run(
        self, feeds: Mapping[str, np.ndarray], into: Mapping[str, np.ndarray] | None = None
    ) -> dict[str, np.ndarray]:
        try:
            results = self._session.run(self._output_names, feeds)
        except Exception as error:  # its exception types are private to its C extension
            raise BackendError(f"{self.name}: ONNX Runtime cannot run it: {error}") from error
        check_results(self.name, self.outputs, results, batch_of(self.inputs, feeds))
        return dict(zip(self._output_names, results, strict=True))

    def end_profiling(self) -> Path:
        """The file with the nodes of all runs, which takes no further ones."""
        return Path(self._session.end_profiling())

    def synchronize(self) -> None:
        """Nothing to wait for: the CPU provider has finished when `run` returns."""

    def close(self) -> None:
        self._session = None


def load_cpu(bundle: Bundle, settings: Settings) -> Backend:
    """All graphs with the CPU provider.

    Raises:
        BackendError: ONNX Runtime is not installed, lacks the provider, or refuses a graph.
        BundleError: a file is missing or altered.
    """
    graphs, recipe = bundle.manifest.graphs, bundle.manifest.recipe
    engines = {name: OrtEngine(name, bundle, settings.threads) for name in graphs}
    return Backend(
        name="ort-cpu",
        precision=recipe.precision,
        weights=recipe.weights,
        device="cpu",
        arrays=NUMPY,
        engines=engines,
        programs=bundle.manifest.programs,
        # more frames at once take the memory of more, and no less time
        encode_batch=1,
        render_batch=2,
        max_batch=recipe.max_batch,
        threads=settings.threads or psutil.cpu_count(logical=False) or os.cpu_count() or 1,
    )


def cpu_graph(path: Path) -> onnx.ModelProto:
    """The graph as the CPU provider runs it fastest; weights stay in their file."""
    model = onnx.load(path, load_external_data=False)
    rewrite_for_cpu(model)
    follow_link(model, path)
    return model


def rewrite_for_cpu(model: onnx.ModelProto) -> None:
    """What the provider computes faster, or closer, in place.

    It has no kernel for GroupNormalization, and runs the function of ONNX's specification.

    Raises:
        BackendError: see `split_factors` and `decompose_group_norm`.
    """
    decompose_group_norm(model)
    split_transposed_convolution(model)
    split_attention(model)
    split_factors(model)


def weights_file(graph: Path) -> Path:
    """The file with a bundle's weights; where that is a link, what it leads to."""
    return Path(os.path.realpath(graph.parent / WEIGHTS_FILE))


def follow_link(model: onnx.ModelProto, graph: Path) -> None:
    """Let a graph that is given as bytes read `weights_file`: ONNX Runtime follows no link there.

    The cache of a download has such links, from names to files that are named by their hashes.
    """
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if (entry.key, entry.value) == ("location", WEIGHTS_FILE):
                entry.value = weights_file(graph).name


def cpu_session(path: Path, threads: int | None = None, profile: Path | None = None) -> Any:
    """An InferenceSession on the CPU provider, of the graph as that runs it fastest.

    Args:
        threads: that one node is computed with; None: one for each core.
        profile: a folder for the times of its nodes, see `time_nodes`; None: they are not timed.

    Raises:
        BackendError: ONNX Runtime is not installed, lacks the provider, or refuses the graph.
    """
    ort = require("onnxruntime", extra="cpu", purpose="running ONNX graphs")
    options = ort.SessionOptions()
    options.log_severity_level = 4  # errors are raised, and shown as ours
    if threads is not None:
        options.intra_op_num_threads = threads
    # the threads of one graph would otherwise go on spinning on the cores that the next one needs
    options.add_session_config_entry("session.force_spinning_stop", "1")
    share_memory()
    options.add_session_config_entry("session.use_env_allocators", "1")
    graph = cpu_graph(path)
    operators = {node.op_type for node in graph.graph.node}
    if not operators.isdisjoint(CONVOLUTIONS):
        # Values are large: a pattern's block, allocated once a first run has shown how much there
        # is, would be kept beside what that run took, and saves no time that shows.
        options.enable_mem_pattern = False
        if DEQUANTIZE not in operators:  # the product of integers has kernels for packed ones only
            # Nor do packed copies of the weights, beside those in the file: convolutions have their
            # own order, and a projection is read once for a frame.
            options.add_session_config_entry("session.disable_prepacking", "1")
    options.add_session_config_entry(WEIGHTS_FOLDER, str(weights_file(path).parent))
    if profile is not None:
        time_nodes(options, profile)
    return inference_session(path, graph.SerializeToString(), options, [(CPU_PROVIDER, {})])


def time_nodes(options: Any, folder: Path) -> None:
    """Let a session write the times of its nodes, and the graph whose nodes these are.

    ONNX Runtime fuses and adds nodes: `OPTIMIZED_GRAPH` has those that it runs, in their order. Its
    weights go to a file of their own, or a large graph would be no valid file.
    """
    options.enable_profiling = True
    options.profile_file_prefix = str(folder / "nodes")
    options.optimized_model_filepath = str(folder / OPTIMIZED_GRAPH)
    for key, value in (("file_name", "optimized.data"), ("min_size_in_bytes", "1024")):
        options.add_session_config_entry(
            f"session.optimized_model_external_initializers_{key}", value
        )


@functools.cache
def share_memory() -> None:
    """Let the sessions of this process that ask for it work in one arena.

    Graphs run one after the other: memory for the values of the largest is enough for all.
    """
    import onnxruntime as ort

    arena = ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR
    memory = ort.OrtMemoryInfo("Cpu", arena, 0, ort.OrtMemType.DEFAULT)
    ort.create_and_register_allocator(memory, None)


def inference_session(
    path: Path, graph: str | bytes, options: Any, providers: list[tuple[str, dict[str, str]]]
) -> Any:
    """An InferenceSession whose first provider is the one that was asked for first.

    Raises:
        MissingError: this ONNX Runtime was built without the provider.
        BackendError: it refuses the graph, or would run it on another provider.
    """
    import onnxruntime as ort

    wanted = providers[0][0]
    available = ort.get_available_providers()
    if wanted not in available:
        raise MissingError(
            f"ONNX Runtime has no {wanted} here; it has {', '.join(available)}. "
            "run `wmdeploy doctor` to see how to install it"
        )
    try:
        # or it would try again with providers that nobody asked for
        session = ort.InferenceSession(graph, options, providers=providers, enable_fallback=0)
    except Exception as error:  # its exception types are private to its C extension
        raise BackendError(refusal(str(path), error, ort.__version__)) from error
    if session.get_providers()[0] != wanted:
        raise BackendError(
            f"{path}: asked ONNX Runtime for {wanted}, got {session.get_providers()}; "
            "run `wmdeploy doctor` to see what is missing"
        )
    return session


def check_signature(path: Path, session: Any, record: GraphRecord) -> None:
    """Compare a session's tensors with the manifest's: names, dtypes and shapes.

    Raises:
        BackendError: they are others.
    """
    given = (*session.get_inputs(), *session.get_outputs())
    tensors = [(t.name, ORT_TYPES.get(t.type, t.type), t.shape) for t in given]
    check_tensors(path, tensors, record)
