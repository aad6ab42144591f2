"""Products with integer weights, as ONNX Runtime's CPU provider computes them fast and closely.

It makes one MatMulNBits of a `DequantizeLinear` and the product behind it. With 8 bits that is fast
only where it rounds the other factor as well, to 8 bits in blocks: over a rollout that costs 10 dB.
So the other factor is given as two rows, what it is in 8 bits and what is left of it, and their
products are added: 16 bits. The weights, whose reading takes the time, are read once for both.
"""

import numpy as np
import onnx

from wmdeploy.decompose import Replacement, foreign, replace_nodes

DEQUANTIZE = "DequantizeLinear"
LARGEST = 127.0  # of the integers that ONNX Runtime rounds a factor to
SMALLEST = 1e-7  # scale of a block, of zeros too; float16 has such a number


def split_factors(model: onnx.ModelProto) -> int:
    """Give each product with integer weights its other factor in two parts, in place.

    Returns:
        How many products there were.

    Raises:
        BackendError: one is of a kind that we do not export.
    """
    dims = {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
    weights = {  # name of the weight: (K, N) and (K / block, N)
        node.output[0]: [dims.get(name, []) for name in node.input[:2]]
        for node in model.graph.node
        if node.op_type == DEQUANTIZE
    }

    def fill(new: Replacement) -> bool:
        if new.node.input[1] not in weights:
            return False
        integers, scales = weights[new.node.input[1]]
        if len(integers) != 2 or len(scales) != 2 or not scales[0]:
            raise foreign(new.node)
        _product(new, integers[0], scales[0])
        return True

    return replace_nodes(model, ("MatMul", "Gemm"), fill)


def _product(new: Replacement, width: int, blocks: int) -> None:
    """x (..., width), of as many blocks, and a weight (width, N) -> (..., N)."""
    x, weight, *bias = new.node.input
    shape = [size or -1 for size in new.values.sizes(new.node.output[0])]
    kind = onnx.helper.tensor_dtype_to_np_dtype(new.values.kind(x) or onnx.TensorProto.FLOAT)
    plain = {"transA": 0, "transB": 0, "alpha": 1.0, "beta": 1.0}
    if not shape or shape.count(-1) > 1 or not new.attributes.items() <= plain.items():
        raise foreign(new.node)

    def number(name: str, value: float) -> str:
        return new.constant(name, np.array(value, kind))

    parts = new.constant("parts", np.array([-1, blocks, width // blocks]))
    x = new.add("Reshape", [x, parts], "blocks")
    last = new.constant("last", np.array([2]))
    peak = new.add("ReduceMax", [new.add("Abs", [x], "size"), last], "peak")
    scale = new.add("Mul", [peak, number("unit", 1 / LARGEST)], "unit_scale")
    scale = new.add("Max", [scale, number("smallest", SMALLEST)], "scale")
    steps = new.add("Round", [new.add("Div", [x, scale], "ratio")], "steps")
    coarse = new.add("Mul", [steps, scale], "coarse")
    rest = new.add("Sub", [x, coarse], "rest")
    rows = new.add("Concat", [coarse, rest], "both_blocks", axis=0)
    rows = new.add("Reshape", [rows, new.constant("rows", np.array([-1, width]))], "both")
    products = new.add("MatMul", [rows, weight], "products")
    halves = [f"{new.node.output[0]}/{half}" for half in ("of_coarse", "of_rest")]
    new.nodes.append(onnx.helper.make_node("Split", [products], halves, axis=0, num_outputs=2))
    total = new.add("Add", halves, "total")
    whole = new.constant("whole", np.array(shape))
    if bias:
        total = new.add("Add", [total, *bias], "with_bias")
    new.add("Reshape", [total, whole])
