"""A bundle's graphs as a browser runs them: other operators, float32, weights stored as float16.

- WebGPU has no kernels of `GroupNormalization`, `Attention` and `Round`, and wasm expands the first
  into many nodes. They become operators that both have. What else WebGPU lacks (`webgpu.py`) is
  rewritten for sites that use it alone: narrow convolutions become slower on wasm.
- wasm computes float16 in float32, node by node. So every value is float32; large weights are
  stored as float16, half the download, and cast when a graph is loaded.
- All graphs share one file of weights, each tensor once. It is no larger than what they hold.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from wmdeploy.bundle import Bundle
from wmdeploy.decompose import Replacement, decompose_attention, foreign, replace_nodes
from wmdeploy.errors import ExportError
from wmdeploy.exporters.site.webgpu import keep_on_gpu
from wmdeploy.exporters.verify import OnnxEngine, compare
from wmdeploy.exporters.weights import share_weights
from wmdeploy.programs.contract import TensorSpec
from wmdeploy.programs.engine import Engine
from wmdeploy.programs.record import Case

HALF, FLOAT = onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT
STORED_AS_HALF = 256  # values from which on a weight is stored as float16
TOLERANCES = {"float32": 2e-2, "uint8": 5.6e-3, "int64": 0.95}  # as of an export in float16


@dataclass(frozen=True)
class WebGraph:
    """One graph of the site: its signature, which has float32 where the bundle has float16."""

    file: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


def write_graphs(
    bundle: Bundle,
    names: tuple[str, ...],
    cases: Mapping[str, list[Case]],
    directory: Path,
    *,
    webgpu: bool = False,
) -> tuple[dict[str, WebGraph], dict[str, Engine]]:
    """Rewrite graphs of a bundle, and run each beside its original.

    Args:
        cases: what the bundle's graphs were asked and answered.
        directory: gets the graphs, and their one file of weights.
        webgpu: rewrite also what the WebGPU provider would leave to the CPU.

    Returns:
        The graphs, and engines of them in ONNX Runtime on this machine.

    Raises:
        ExportError: a rewritten graph gives something else.
    """
    written: dict[str, WebGraph] = {}
    for name in names:
        record = bundle.manifest.graphs[name]
        with bundle.graph_to_load(name) as path:
            model = onnx.load(path)
        path = directory / f"{name}.onnx"
        onnx.save(
            web_graph(model, webgpu),
            path,
            save_as_external_data=True,
            location=f"{path.name}.data",
            size_threshold=STORED_AS_HALF,
        )
        sides = [
            tuple(in_float32(spec) for spec in side) for side in (record.inputs, record.outputs)
        ]
        written[name] = WebGraph(path.name, *sides)
    share_weights([directory / graph.file for graph in written.values()])
    engines: dict[str, Engine] = {}
    for name, graph in written.items():
        engines[name] = engine = OnnxEngine(directory / graph.file, graph)
        for case in cases[name]:
            _check(engine, case)
    return written, engines


def in_float32(spec: TensorSpec) -> TensorSpec:
    """A tensor as the site has it."""
    return replace(spec, dtype="float32") if spec.dtype == "float16" else spec


def web_graph(model: onnx.ModelProto, webgpu: bool) -> onnx.ModelProto:
    """Rewrite a graph, in place.

    Raises:
        BackendError: it has an operator of a kind that we do not export.
    """
    if webgpu:
        keep_on_gpu(model)
    decompose_attention(model)
    replace_nodes(model, ("GroupNormalization",), _instance_norm)
    replace_nodes(model, ("Round",), _floor)
    _compute_in_float32(model)
    return model


def _instance_norm(new: Replacement) -> None:
    """x of (B, C, H, W): groups are the channels of an InstanceNormalization."""
    source, scale, bias = new.node.input
    sizes, groups = new.values.sizes(source), new.attributes.get("num_groups")
    if len(sizes) != 4 or not all(sizes[1:]) or not groups or not new.values.kind(source):
        raise foreign(new.node)
    _, channels, height, width = sizes
    kind = helper.tensor_dtype_to_np_dtype(new.values.kind(source))
    x = new.add("Reshape", [source, new.constant("groups", np.array([0, groups, -1]))], "grouped")
    ones, zeros = new.constant("ones", np.ones(groups, kind)), np.zeros(groups, kind)
    parts = [x, ones, new.constant("zeros", zeros)]
    epsilon = new.attributes.get("epsilon", 1e-5)
    x = new.add("InstanceNormalization", parts, "normal", epsilon=epsilon)
    whole = new.constant("whole", np.array([0, channels, height, width]))
    x = new.add("Reshape", [x, whole], "ungrouped")
    each = new.constant("channels", np.array([1, channels, 1, 1]))
    x = new.add("Mul", [x, new.add("Reshape", [scale, each], "scale")], "scaled")
    new.add("Add", [x, new.add("Reshape", [bias, each], "bias")])


def _floor(new: Replacement) -> None:
    """Halves go up, where Round takes the even number: of a pixel, 1 of 255 where it lies there."""
    kind = helper.tensor_dtype_to_np_dtype(new.values.kind(new.node.input[0]) or FLOAT)
    half = new.constant("half", np.array(0.5, kind))
    new.add("Floor", [new.add("Add", [new.node.input[0], half], "raised")])


def _compute_in_float32(model: onnx.ModelProto) -> None:
    graph = model.graph
    for value in (*graph.input, *graph.output, *graph.value_info):
        if value.type.tensor_type.elem_type == HALF:
            value.type.tensor_type.elem_type = FLOAT
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.name in ("to", "dtype") and attribute.i == HALF:
                attribute.i = FLOAT
            if attribute.type == onnx.AttributeProto.TENSOR and attribute.t.data_type == HALF:
                values = numpy_helper.to_array(attribute.t).astype(np.float32)
                attribute.t.CopyFrom(numpy_helper.from_array(values))
    casts: list[onnx.NodeProto] = []
    stored: list[onnx.TensorProto] = []
    for tensor in graph.initializer:
        if tensor.data_type not in (HALF, FLOAT):
            stored.append(tensor)
            continue
        values = numpy_helper.to_array(tensor)
        if values.size < STORED_AS_HALF or np.abs(values).max() > np.finfo(np.float16).max:
            stored.append(numpy_helper.from_array(values.astype(np.float32), tensor.name))
            continue
        half = f"{tensor.name}/stored"
        stored.append(numpy_helper.from_array(values.astype(np.float16), half))
        casts.append(helper.make_node("Cast", [half], [tensor.name], name=half, to=FLOAT))
    used = {name for node in graph.node for name in node.input}
    casts = [node for node in casts if node.output[0] in used]
    kept = used | {node.input[0] for node in casts}
    nodes = [*casts, *graph.node]
    del graph.initializer[:], graph.node[:]
    graph.initializer.extend(tensor for tensor in stored if tensor.name in kept)
    graph.node.extend(nodes)


def _check(engine: OnnxEngine, case: Case) -> None:
    """What the rewritten graph answers beside what the bundle's answered."""
    got = engine.run({s.name: case.feeds[s.name].astype(s.dtype) for s in engine.inputs})
    for spec in engine.outputs:
        expected = case.outputs[spec.name].astype(spec.dtype)
        parity = compare(got[spec.name], expected, TOLERANCES[spec.dtype])
        fault = None
        if parity.agreement is not None:
            if parity.agreement < parity.tolerance:
                least = parity.tolerance
                fault = f"agrees in {parity.agreement:.1%}, expected {least:.0%} at least"
        elif not parity.relative <= parity.tolerance:
            most = parity.tolerance
            fault = f"differs by {parity.relative:.1e} of its largest value, expected {most:.1e}"
        if fault:
            raise ExportError(
                f'{engine.name}: for a browser, output "{spec.name}" {fault}; no site was written. '
                "Export the bundle in float32, and use trained weights"
            )
