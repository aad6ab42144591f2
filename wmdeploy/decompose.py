"""ONNX operators that a runtime lacks, by operators that it has; the weights stay in their file.

`Attention` becomes two products and a softmax, `GroupNormalization` a mean and a variance. Softmax,
mean and variance are float32 whatever the graph's type: what the one operator does inside. Knows no
runtime: each backend says which operators are to be decomposed, and why.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from wmdeploy.errors import BackendError

FLOAT = onnx.TensorProto.FLOAT


class Replacement:
    """Nodes that take the place of one node; their values begin with the name of its result."""

    def __init__(self, model: onnx.ModelProto, node: onnx.NodeProto, values: "Values") -> None:
        self.node, self.values = node, values
        self.attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        self.nodes: list[onnx.NodeProto] = []
        self._graph, self._result = model.graph, node.output[0]

    def constant(self, name: str, value: np.ndarray) -> str:
        array = numpy_helper.from_array(value, f"{self._result}/{name}")
        self._graph.initializer.append(array)
        return array.name

    def add(self, operator: str, inputs: list[str], name: str | None = None, **more: Any) -> str:
        """One node more; its result, which is the replaced node's own without a name."""
        result = f"{self._result}/{name}" if name else self._result
        label = f"{self.node.name}/{name}" if name else self.node.name
        self.nodes.append(helper.make_node(operator, inputs, [result], name=label, **more))
        return result


class Values:
    """Element type and sizes (0: not static) of the values of a graph, as far as it says them."""

    def __init__(self, model: onnx.ModelProto) -> None:
        graph = model.graph
        self._types = {
            value.name: value.type.tensor_type
            for value in (*graph.value_info, *graph.input, *graph.output)
        }
        self._initializers = {value.name: value for value in graph.initializer}

    def kind(self, name: str) -> int:
        """ONNX's number of the element type; 0 if the graph does not say."""
        if name in self._initializers:
            return self._initializers[name].data_type
        return int(self._types[name].elem_type) if name in self._types else 0

    def of_kind(self, kind: int) -> set[str]:
        return {name for name in (*self._types, *self._initializers) if self.kind(name) == kind}

    def constant(self, name: str) -> np.ndarray | None:
        """An initializer whose values are in the graph or were loaded; None of anything else."""
        tensor = self._initializers.get(name)
        if tensor is None or tensor.external_data:
            return None
        return numpy_helper.to_array(tensor)

    def stored_sizes(self, name: str) -> list[int]:
        """Of an initializer; empty of anything else."""
        return list(self._initializers[name].dims) if name in self._initializers else []

    def sizes(self, name: str) -> list[int]:
        return [dim.dim_value for dim in self._types[name].shape.dim] if name in self._types else []


def replace_nodes(
    model: onnx.ModelProto, operators: tuple[str, ...], fill: Callable[[Replacement], bool | None]
) -> int:
    """Let `fill` say what takes the place of each node of these operators, in place.

    Args:
        fill: adds nodes to a replacement; False: this node stays as it is.

    Returns:
        How many nodes were replaced.
    """
    values = Values(model)
    nodes: list[onnx.NodeProto] = []
    count = 0
    for node in model.graph.node:
        replacement = Replacement(model, node, values)
        if node.op_type in operators and fill(replacement) is not False:
            nodes += replacement.nodes
            count += 1
        else:
            nodes.append(node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return count


def decompose_attention(model: onnx.ModelProto) -> int:
    """Each Attention (opset 23) as softmax(q·kᵀ / sqrt(width) + mask)·v, the softmax in float32.

    Returns:
        How many there were.

    Raises:
        BackendError: one has a cache, a soft cap, or a shape that is not static.
    """
    return replace_nodes(model, ("Attention",), _attention)


def decompose_group_norm(model: onnx.ModelProto) -> int:
    """Each GroupNormalization (opset 21) by its mean and variance, in float32.

    Shapes are constants, so that no arithmetic of shapes is left to a CPU.

    Returns:
        How many there were.

    Raises:
        BackendError: one has a shape that is not static.
    """
    return replace_nodes(model, ("GroupNormalization",), _group_norm)


def _attention(new: Replacement) -> None:
    """q, k, v of (B, heads, positions, width)."""
    node, attributes = new.node, new.attributes
    queries, keys, values = node.input[:3]
    _, _, length, width = new.values.sizes(queries) or [0] * 4
    plain = length and width and len(node.input) <= 4 and len(node.output) == 1
    if not plain or attributes.get("softcap") or attributes.get("qk_matmul_output_mode"):
        raise foreign(node)
    kind = new.values.kind(queries)
    half = helper.tensor_dtype_to_np_dtype(kind)
    # the scale goes to the queries, before the first product, as TensorRT's documents advise
    scale = new.constant("scale", np.array(attributes.get("scale", 1 / math.sqrt(width)), half))
    scaled = new.add("Mul", [queries, scale], "scaled")
    transposed = new.add("Transpose", [keys], "transposed", perm=[0, 1, 3, 2])
    scores = new.add("MatMul", [scaled, transposed], "half_scores")
    scores = new.add("Cast", [scores], "scores", to=FLOAT)
    hidden = np.array(-np.inf, np.float32)
    if len(node.input) == 4:  # True where a query may look
        scores = new.add("Where", [node.input[3], scores, new.constant("hidden", hidden)], "masked")
    if attributes.get("is_causal"):
        later = np.where(np.tri(length, dtype=bool), np.float32(0), hidden)
        scores = new.add("Add", [scores, new.constant("later", later)], "causal")
    weights = new.add("Softmax", [scores], "weights", axis=-1)
    weights = new.add("Cast", [weights], "half_weights", to=kind)
    new.add("MatMul", [weights, values])


def _group_norm(new: Replacement) -> None:
    """x of (B, C, ...), scale and bias of (C,).

    The mean is taken off before squares are summed: the difference of the mean square and the
    squared mean, as the function of ONNX's specification has it, loses the digits of values that
    are far from zero. The scale over the spread is one factor for each channel, so that a value is
    multiplied and added to once.
    """
    source, scale, bias = new.node.input
    kind, sizes = new.values.kind(source), new.values.sizes(source)
    if len(sizes) < 3 or not all(sizes[1:]) or not kind:
        raise foreign(new.node)
    groups, epsilon = new.attributes["num_groups"], new.attributes.get("epsilon", 1e-5)

    def shaped(value: str, name: str, *shape: int) -> str:  # 0 keeps the batch
        sizes = new.constant(f"{name}_sizes", np.array(shape))
        return new.add("Reshape", [value, sizes], name)

    def exact(value: str, name: str) -> str:
        return value if kind == FLOAT else new.add("Cast", [value], name, to=FLOAT)

    x = exact(shaped(source, "grouped", 0, groups, -1), "float")
    axis = new.constant("axis", np.array([2]))
    mean = new.add("ReduceMean", [x, axis], "mean")
    deviation = new.add("Sub", [x, mean], "deviation")
    squares = new.add("Mul", [deviation, deviation], "squares")
    variance = new.add("ReduceMean", [squares, axis], "variance")
    least = new.constant("epsilon", np.array(epsilon, np.float32))
    spread = new.add("Sqrt", [new.add("Add", [variance, least], "least")], "spread")
    factor = shaped(exact(scale, "float_scale"), "scale", 1, groups, -1)
    factor = new.add("Div", [factor, spread], "factor")
    each = [sizes[1], *(1 for _ in sizes[2:])]  # channels
    x = shaped(deviation, "ungrouped", 0, *sizes[1:])
    x = new.add("Mul", [x, shaped(factor, "factors", 0, *each)], "scaled")
    y = [x, shaped(exact(bias, "float_bias"), "bias", 1, *each)]
    if kind == FLOAT:
        new.add("Add", y)
    else:
        new.add("Cast", [new.add("Add", y, "shifted")], to=kind)


def transposed_convolution(new: Replacement) -> tuple[list[int], int, int] | None:
    """Sizes of the weights (inputs, outputs, height, width), stride and padding of a ConvTranspose.

    None of one that has other strides or pads on one side than on another, groups, dilations, a
    kernel that is no multiple of its stride, or weights that are not stored.
    """
    given, sizes = new.attributes, new.values.stored_sizes(new.node.input[1])
    strides, pads = given.get("strides", [1, 1]), given.get("pads", [0] * 4)
    plain = given.get("group", 1) == 1 and given.get("auto_pad", b"NOTSET") == b"NOTSET"
    plain &= not any(given.get("output_padding", [])) and "output_shape" not in given
    plain &= {1, *given.get("dilations", [])} == {1} and len({*strides}) + len({*pads}) == 2
    if not plain or len(sizes) != 4 or any(length % strides[0] for length in sizes[2:]):
        return None
    return sizes, strides[0], pads[0]


def foreign(node: onnx.NodeProto) -> BackendError:
    """What is raised of a node that no export of ours writes."""
    kind = f"{node.name}: {node.op_type} of a kind that wmdeploy does not export"
    return BackendError(f"{kind}; export the model again")
