"""Nodes that ONNX Runtime's WebGPU provider leaves to the CPU, by ones that it has kernels of.

A node on the CPU between two on the GPU costs a round trip; each of these is rewritten exactly:

- `ConvTranspose` is a Conv that gives all pixels of a place, and a DepthToSpace that lays them out.
- int64 arithmetic is done in int32. Inputs and outputs keep their int64, a Cast is between.
- What has kernels of float32 alone moves integers and bools as float32, exact below 2^24.
- `GatherND` of rows is a Gather, `Or` is expressed by And and Not, `Sign` by two comparisons.
"""

from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from wmdeploy.decompose import (
    FLOAT,
    Replacement,
    Values,
    replace_nodes,
    transposed_convolution,
)

INT32, INT64 = onnx.TensorProto.INT32, onnx.TensorProto.INT64
BOOL, UINT8 = onnx.TensorProto.BOOL, onnx.TensorProto.UINT8
FLOAT_ALONE = ("Clip", "Concat", "GatherElements", "Slice", "Transpose")
RANGE = np.iinfo(np.int32)
COMPARISONS = frozenset("Equal Greater GreaterOrEqual Less LessOrEqual".split())
# Operators that compute with integers of any size alike, in all inputs; or in the first one, where
# others are shapes and axes, which are int64.
ARITHMETIC = frozenset(
    """
    Abs Add Cast Concat Div Gather GatherElements Max Min Mod Mul Neg Sign Sub Transpose Where
    """.split()
).union(COMPARISONS)
SHAPING = frozenset("Expand Reshape Slice Split Squeeze Unsqueeze".split())


def keep_on_gpu(model: onnx.ModelProto) -> None:
    """Rewrite a graph, in place; a node of another form than those above stays as it is."""
    replace_nodes(model, ("ConvTranspose",), _convolution)
    replace_nodes(model, ("GatherND",), _gather)
    replace_nodes(model, ("Or",), _or)
    replace_nodes(model, ("Sign",), _sign)
    shapes = _shape_values(model)
    replace_nodes(model, FLOAT_ALONE, lambda new: _move_as_float(new, shapes))
    _compute_in_int32(model, shapes)


def _convolution(new: Replacement) -> bool:
    """x of (B, C, H, W), stride s, a kernel of n·s: a Conv of n by n with s² times the channels.

    Pixel s·i + a of a row is the sum over m < n of x[i - m]·w[a + s·m], before the padding is cut
    off. So the Conv's kernel has, for each a, every s-th weight from a on, the last one first.
    """
    node, found = new.node, transposed_convolution(new)
    weights = new.values.constant(node.input[1])
    if found is None or weights is None:
        return False
    (inputs, outputs, height, width), stride, pad = found
    rows, columns = height // stride, width // stride
    parts = weights.reshape(inputs, outputs, rows, stride, columns, stride)
    parts = parts[:, :, ::-1, :, ::-1].transpose(1, 3, 5, 0, 2, 4)  # output, a, b, input, n, n
    kernel = parts.reshape(outputs * stride**2, inputs, rows, columns)
    sources = [node.input[0], new.constant("kernel", np.ascontiguousarray(kernel))]
    if len(node.input) == 3:
        bias = new.values.constant(node.input[2])
        if bias is None:
            return False
        sources.append(new.constant("bias", np.repeat(bias, stride**2)))
    around = [rows - 1, columns - 1] * 2
    x = new.add("Conv", sources, "places", pads=around, kernel_shape=[rows, columns])
    layout: dict[str, Any] = {"blocksize": stride, "mode": "CRD"}
    if not pad:
        new.add("DepthToSpace", [x], **layout)
        return True
    x = new.add("DepthToSpace", [x], "pixels", **layout)
    cut = {"from": [pad, pad], "to": [-pad, -pad], "axes": [2, 3]}
    new.add("Slice", [x, *(new.constant(name, np.array(value)) for name, value in cut.items())])
    return True


def _gather(new: Replacement) -> bool:
    """Rows of a table, by indices (..., 1)."""
    table, indices = new.node.input
    sizes = new.values.sizes(indices)
    if not sizes or sizes[-1] != 1 or new.attributes.get("batch_dims", 0):
        return False
    last = new.constant("last", np.array([len(sizes) - 1]))
    new.add("Gather", [table, new.add("Squeeze", [indices, last], "indices")], axis=0)
    return True


def _or(new: Replacement) -> None:
    sides = [new.add("Not", [name], f"not_{at}") for at, name in enumerate(new.node.input)]
    new.add("Not", [new.add("And", sides, "neither")])


def _sign(new: Replacement) -> bool:
    (x,) = new.node.input
    if new.values.kind(x) != FLOAT:
        return False
    zero = new.constant("zero", np.zeros((), np.float32))
    above = new.add("Cast", [new.add("Greater", [x, zero], "above")], "positive", to=FLOAT)
    below = new.add("Cast", [new.add("Less", [x, zero], "below")], "negative", to=FLOAT)
    new.add("Sub", [above, below])
    return True


def _move_as_float(new: Replacement, shapes: set[str]) -> bool:
    node, kind = new.node, new.values.kind(new.node.input[0])
    if kind not in (BOOL, UINT8, INT64) or shapes.intersection(node.input):
        return False
    count = len(node.input) if node.op_type in ("Clip", "Concat") else 1
    inputs = [
        new.add("Cast", [name], f"float_{at}", to=FLOAT) if at < count and name else name
        for at, name in enumerate(node.input)
    ]
    moved = new.add(node.op_type, inputs, "moved", **new.attributes)
    new.add("Cast", [moved], to=kind)
    return True


def _shape_values(model: onnx.ModelProto) -> set[str]:
    """Sizes of tensors, and what is computed of them alone: the CPU knows them."""
    shapes = {value.name for value in model.graph.initializer}
    constants = set(shapes)
    for node in model.graph.node:
        if node.op_type in ("Shape", "Size") or shapes.issuperset(node.input):
            shapes.update(node.output)
    return shapes - constants


def _compute_in_int32(model: onnx.ModelProto, shapes: set[str]) -> None:
    """Positions, lengths, codes and actions; of a constant that int32 does not hold, nothing."""
    graph, values = model.graph, Values(model)
    nodes: list[onnx.NodeProto] = []
    integers = values.of_kind(INT64)
    short: dict[str, str] = {}  # of those there are in int32, the name that this has
    constants = {tensor.name for tensor in graph.initializer}
    long = {value.name for value in graph.input} | constants  # there are in int64

    def in_int32(name: str) -> str:
        if name not in short:
            short[name] = f"{name}/int32"
            constant = values.constant(name)
            if constant is None:
                nodes.append(_cast(name, short[name], INT32))
            else:
                tensor = numpy_helper.from_array(constant.astype(np.int32), short[name])
                graph.initializer.append(tensor)
        return short[name]

    def in_int64(name: str) -> str:
        if name in short and name not in long:
            nodes.append(_cast(short[name], name, INT64))
            long.add(name)
        return name

    for node in graph.node:
        count = len(node.input) if node.op_type in ARITHMETIC else int(node.op_type in SHAPING)
        given = {name for name in node.input[:count] if name in integers}
        made = {*node.output} if _makes_int64(node, integers) else set()
        shortened = count and (given or made) and all(_fits(values.constant(n)) for n in given)
        shortened = shortened and shapes.isdisjoint(node.input)
        for at, name in enumerate(node.input):
            inside = shortened and at < count and name in given
            node.input[at] = in_int32(name) if inside else in_int64(name)
        nodes.append(node)
        integers |= made
        if not shortened:
            long.update(node.output)
            continue
        for at, name in enumerate(node.output):
            if name in made:
                node.output[at] = short[name] = f"{name}/int32"
        for attribute in node.attribute:
            if attribute.name == "to" and attribute.i == INT64:
                attribute.i = INT32
    for value in graph.output:
        in_int64(value.name)
    del graph.node[:]
    graph.node.extend(nodes)


def _makes_int64(node: onnx.NodeProto, integers: set[str]) -> bool:
    if node.op_type == "Cast":
        return any(attribute.i == INT64 for attribute in node.attribute)
    if node.op_type in COMPARISONS or not node.input:
        return False
    return node.input[node.op_type == "Where"] in integers


def _fits(constant: np.ndarray | None) -> bool:
    if constant is None or not constant.size:
        return True
    return bool(constant.min() >= RANGE.min and constant.max() <= RANGE.max)


def _cast(name: str, result: str, kind: int) -> onnx.NodeProto:
    return helper.make_node("Cast", [name], [result], name=result, to=kind)
