"""Backend `ort-cpu`: ONNX Runtime with its CPU provider.

A provider that is asked for is the one that runs, or there is an error: ONNX Runtime itself would
go on with another one (onnxruntime issues 25145 and 27006).
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx
import psutil
import torch
from torch import Tensor

from wmdeploy.bundle import Bundle
from wmdeploy.engines.base import Backend, Settings
from wmdeploy.engines.checks import batch_of, check_results, check_tensors
from wmdeploy.engines.devices import CPU
from wmdeploy.engines.ort.rewrite import split_attention
from wmdeploy.errors import BackendError, require
from wmdeploy.manifest import DType, GraphRecord, TensorSpec
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

# Their values are large: a pattern's block is kept beside what the first run took, a fifth of the
# process's memory, and saves no time that shows.
CONVOLUTIONAL = ("encoder", "decoder")


class OrtEngine:
    """One ONNX graph in ONNX Runtime; tensors are shared with torch, not copied."""

    def __init__(self, name: str, bundle: Bundle, threads: int | None = None) -> None:
        self.name = name
        self.inputs: tuple[TensorSpec, ...] = bundle.manifest.graphs[name].inputs
        self.outputs: tuple[TensorSpec, ...] = bundle.manifest.graphs[name].outputs
        self._output_names = [spec.name for spec in self.outputs]
        self._checked = False  # whether a result is what the manifest says
        with bundle.graph_to_load(name) as path:
            self._session = cpu_session(path, threads, pattern=name not in CONVOLUTIONAL)
        check_signature(path, self._session, bundle.manifest.graphs[name])

    def run(self, feeds: Mapping[str, Tensor]) -> dict[str, Tensor]:
        arrays = {name: tensor.numpy() for name, tensor in feeds.items()}
        try:
            results = self._session.run(self._output_names, arrays)
        except Exception as error:  # its exception types are private to its C extension
            raise BackendError(f"{self.name}: ONNX Runtime cannot run it: {error}") from error
        if not self._checked:
            check_results(self.name, self.outputs, results, batch_of(self.inputs, arrays))
            self._checked = True
        return {n: torch.from_numpy(r) for n, r in zip(self._output_names, results, strict=True)}

    def synchronize(self) -> None:
        """Nothing to wait for: the CPU provider has finished when `run` returns."""

    def close(self) -> None:
        self._session = None


def load_cpu(bundle: Bundle, settings: Settings) -> Backend:
    """All graphs with the CPU provider.

    Leaves one thread to torch, in the whole process: ONNX Runtime has its own, and torch's would
    spin on the same cores after each small tensor operation of a session.

    Raises:
        BackendError: ONNX Runtime is not installed, lacks the provider, or refuses a graph.
        BundleError: a file is missing or altered.
    """
    torch.set_num_threads(1)
    graphs = bundle.manifest.graphs
    engines = {name: OrtEngine(name, bundle, settings.threads) for name in graphs}
    recipe = bundle.manifest.recipe
    return Backend(
        name="ort-cpu",
        precision=recipe.precision,
        device=CPU,
        engines=engines,
        wiring=bundle.manifest.wiring,
        encode_batch=recipe.max_batch,
        max_batch=recipe.max_batch,
        threads=settings.threads or psutil.cpu_count(logical=False) or os.cpu_count() or 1,
    )


def cpu_graph(path: Path) -> bytes:
    """The graph as the CPU provider runs it fastest; weights stay in their file."""
    model = onnx.load(path, load_external_data=False)
    split_attention(model)
    follow_link(model, path)
    return model.SerializeToString()


def weights_file(graph: Path) -> Path:
    """The file with a graph's weights; where that is a link, what it leads to."""
    return Path(os.path.realpath(f"{graph}.data"))


def follow_link(model: onnx.ModelProto, graph: Path) -> None:
    """Let a graph that is given as bytes read `weights_file`: ONNX Runtime follows no link there.

    The cache of a download has such links, from names to files that are named by their hashes.
    """
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if (entry.key, entry.value) == ("location", f"{graph.name}.data"):
                entry.value = weights_file(graph).name


def cpu_session(path: Path, threads: int | None = None, pattern: bool = True) -> Any:
    """An InferenceSession on the CPU provider, of the graph as that runs it fastest.

    Args:
        threads: that one node is computed with; None: one for each core.
        pattern: allocate all values of a run at once, once a first run has shown how many.

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
    options.enable_mem_pattern = pattern
    options.add_session_config_entry(WEIGHTS_FOLDER, str(weights_file(path).parent))
    return inference_session(path, cpu_graph(path), options, [(CPU_PROVIDER, {})])


def inference_session(
    path: Path, graph: str | bytes, options: Any, providers: list[tuple[str, dict[str, str]]]
) -> Any:
    """An InferenceSession whose first provider is the one that was asked for first.

    Raises:
        BackendError: ONNX Runtime refuses the graph, or would run it on another provider.
    """
    import onnxruntime as ort

    wanted = providers[0][0]
    available = ort.get_available_providers()
    if wanted not in available:
        raise BackendError(
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
