"""Backend `openvino`: Intel's runtime on the CPU.

It computes in float32, always. A float16 bundle has float16 inputs, outputs and weights, as with
`ort-cpu`, and is computed at least as exactly as it asks for: OpenVINO's hint for float16 would
lower the float32 parts of such a graph too, and its default is bfloat16 where a processor has it.
Weights that are integers stay so in memory.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from wmdeploy.bundle import Bundle
from wmdeploy.engines.base import Settings
from wmdeploy.engines.checks import batch_of, check_results, check_tensors
from wmdeploy.errors import BackendError, require
from wmdeploy.manifest import GraphRecord
from wmdeploy.programs.arrays import NUMPY
from wmdeploy.programs.contract import TensorSpec
from wmdeploy.programs.engine import Backend
from wmdeploy.text import one_line

# docs.openvino.ai, "CPU Device" and "Precision Control"
CONFIG = {
    "INFERENCE_PRECISION_HINT": "f32",
    "EXECUTION_MODE_HINT": "ACCURACY",  # quantises nothing while it runs
    "PERFORMANCE_HINT": "LATENCY",
}


class OpenVinoEngine:
    """One ONNX graph, compiled by OpenVINO; its results are the caller's own."""

    def __init__(self, name: str, record: GraphRecord, compiled: Any) -> None:
        self.name = name
        self.inputs: tuple[TensorSpec, ...] = record.inputs
        self.outputs: tuple[TensorSpec, ...] = record.outputs
        self._ports = [compiled.output(spec.name) for spec in self.outputs]
        self._request = compiled.create_infer_request()

    def run(
        self, feeds: Mapping[str, np.ndarray], into: Mapping[str, np.ndarray] | None = None
    ) -> dict[str, np.ndarray]:
        try:
            # without share_outputs: the next run writes over the memory of this one's results
            answer = self._request.infer(dict(feeds), share_inputs=True)
        except RuntimeError as error:
            raise BackendError(f"{self.name}: OpenVINO cannot run it: {error}") from error
        results = [answer[port] for port in self._ports]
        check_results(self.name, self.outputs, results, batch_of(self.inputs, feeds))
        return {spec.name: result for spec, result in zip(self.outputs, results, strict=True)}

    def synchronize(self) -> None:
        """Nothing to wait for: OpenVINO has finished when `run` returns."""

    def close(self) -> None:
        self._request = None
        self._ports.clear()


def load(bundle: Bundle, settings: Settings) -> Backend:
    """All graphs on the CPU, for any batch.

    Raises:
        MissingError: OpenVINO is not installed.
        BackendError: it refuses a graph, or would compute it less exactly than in float32.
        BundleError: a file is missing or altered.
    """
    ov = import_openvino()
    core = ov.Core()
    config: dict[str, str | int] = dict(CONFIG)
    if settings.threads is not None:
        config["INFERENCE_NUM_THREADS"] = settings.threads
    engines, threads = {}, 0
    for name, record in bundle.manifest.graphs.items():
        with bundle.graph_to_load(name) as path:
            compiled = compiled_graph(core, path, config)
        check_graph(path, compiled, record)
        engines[name] = OpenVinoEngine(name, record, compiled)
        threads = compiled.get_property("INFERENCE_NUM_THREADS")
    recipe = bundle.manifest.recipe
    return Backend(
        name="openvino",
        precision=recipe.precision,
        weights=recipe.weights,
        device="cpu",
        arrays=NUMPY,
        engines=engines,
        programs=bundle.manifest.programs,
        encode_batch=recipe.max_batch,
        max_batch=recipe.max_batch,
        threads=threads,
    )


def import_openvino() -> ModuleType:
    """OpenVINO, which tells nobody that it was imported.

    Its import sends an event over the network and keeps an id under ~/intel, unless its package for
    that is missing (openvino/tools/ovc/__init__.py and telemetry_utils.py). It has no other switch
    than a file in the user's home.

    Raises:
        MissingError: it is not installed.
    """
    if "openvino" not in sys.modules:
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # Python's word for "is missing"
    return require("openvino", extra="openvino", purpose="backend openvino")


def compiled_graph(core: Any, path: Path, config: Mapping[str, str | int]) -> Any:
    """A graph, compiled for the CPU.

    Raises:
        BackendError: OpenVINO refuses the graph, or would compute it in less than float32.
    """
    try:
        compiled = core.compile_model(core.read_model(path), "CPU", config)
    except RuntimeError as error:
        raise BackendError(
            f"{path}: OpenVINO refuses the graph: {one_line(str(error), 300)}; "
            "upgrade it, or export the model again with a lower opset"
        ) from error
    precision = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    if precision != "f32":
        raise BackendError(f"{path}: OpenVINO would compute in {precision}, expected f32")
    return compiled


def check_graph(path: Path, compiled: Any, record: GraphRecord) -> None:
    """Compare a compiled graph's tensors with the manifest's.

    Raises:
        BackendError: they are others.
    """
    tensors = [
        (
            port.any_name,
            port.element_type.to_dtype().name,
            [d.get_length() if d.is_static else str(d) for d in port.partial_shape],
        )
        for port in (*compiled.inputs, *compiled.outputs)
    ]
    check_tensors(path, tensors, record)
