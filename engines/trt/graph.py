"""An exported ONNX graph as TensorRT's parser takes it. The weights stay in their file.

TensorRT's own Attention has no softmax_precision, and must find a fused kernel: there is none for
heads wider than 256, for one head at batch 1, nor for short windows (TensorRT-RTX 1.7). So each
Attention is spelled out, with its softmax in float32: the types that the export verified.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from wmdeploy.errors import BackendError


def tensorrt_graph(path: Path) -> bytes:
    """The graph to give to the parser, together with `path`, where its weights are found.

    Raises:
        BackendError: it has an Attention of a kind that we do not export.
    """
    model = onnx.load(path, load_external_data=False)
    spell_out_attention(model)
    return model.SerializeToString()


def spell_out_attention(model: onnx.ModelProto) -> int:
    """Replace, in place, each Attention (opset 23) by products and a softmax in float32.

    Returns:
        How many there were.

    Raises:
        BackendError: one has a cache, a soft cap, or a shape that is not static.
    """
    graph = model.graph
    shapes = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*graph.value_info, *graph.input)
    }
    nodes: list[onnx.NodeProto] = []
    count = 0
    for node in graph.node:
        if node.op_type == "Attention":
            nodes += _spelled_out(graph, node, shapes)
            count += 1
        else:
            nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    return count


def _spelled_out(
    graph: onnx.GraphProto, node: onnx.NodeProto, shapes: dict[str, list[int]]
) -> list[onnx.NodeProto]:
    """softmax(q·kᵀ / sqrt(width) + mask)·v for q, k, v of (B, heads, positions, width)."""
    queries, keys, values = node.input[:3]
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    _, _, length, width = shapes.get(queries) or [0] * 4
    known = length and width and len(node.input) <= 4 and len(node.output) == 1
    if not known or attributes.get("softcap") or attributes.get("qk_matmul_output_mode"):
        raise BackendError(f"{node.name}: an Attention that wmdeploy did not export; export again")
    result = node.output[0]
    nodes: list[onnx.NodeProto] = []

    def constant(name: str, value: np.ndarray) -> str:
        graph.initializer.append(numpy_helper.from_array(value, f"{result}/{name}"))
        return f"{result}/{name}"

    def add(op: str, inputs: list[str], name: str, **settings: Any) -> str:
        nodes.append(helper.make_node(op, inputs, [f"{result}/{name}"], **settings))
        return f"{result}/{name}"

    kind = _element_type(graph, queries)
    half = helper.tensor_dtype_to_np_dtype(kind)
    # the scale goes to the queries, before the first product, as TensorRT's documents advise
    scale = constant("scale", np.array(attributes.get("scale", 1 / math.sqrt(width)), half))
    scaled = add("Mul", [queries, scale], "scaled")
    transposed = add("Transpose", [keys], "transposed", perm=[0, 1, 3, 2])
    scores = add("MatMul", [scaled, transposed], "half_scores")
    scores = add("Cast", [scores], "scores", to=onnx.TensorProto.FLOAT)
    hidden = np.array(-np.inf, np.float32)
    if len(node.input) == 4:  # True where a query may look
        scores = add("Where", [node.input[3], scores, constant("hidden", hidden)], "masked")
    if attributes.get("is_causal"):
        later = np.where(np.tri(length, dtype=bool), np.float32(0), hidden)
        scores = add("Add", [scores, constant("later", later)], "causal")
    weights = add("Softmax", [scores], "weights", axis=-1)
    weights = add("Cast", [weights], "half_weights", to=kind)
    nodes.append(helper.make_node("MatMul", [weights, values], [result]))
    return nodes


def _element_type(graph: onnx.GraphProto, name: str) -> int:
    values = {value.name: value for value in (*graph.value_info, *graph.input)}
    return int(values[name].type.tensor_type.elem_type)
