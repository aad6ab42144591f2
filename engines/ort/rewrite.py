"""An exported ONNX graph as ONNX Runtime's CUDA provider runs it; the weights stay in their file.

- `GroupNormalization` has no CUDA kernel (onnxruntime issue 20211): ONNX Runtime would expand it
  into nodes whose shape arithmetic runs on the CPU. It becomes its sums, or the provider's own
  GroupNorm.
- Where TF32 is off, the provider lets no convolution use tensor cores, of float16 either
  (onnxruntime, conv_transpose.cc: `deselect_numeric_notes`). So the float32 products of a graph
  with float16 convolutions become float64 ones, which TF32 does not touch, and TF32 is allowed.
"""

from collections import defaultdict

import numpy as np
import onnx

from wmdeploy.decompose import (
    FLOAT,
    Replacement,
    Values,
    decompose_group_norm,
    replace_nodes,
    transposed_convolution,
)

CONVOLUTIONS = ("Conv", "ConvTranspose")
PRODUCTS = ("MatMul", "Gemm", "Attention", *CONVOLUTIONS)
MICROSOFT = "com.microsoft"  # the domain of ONNX Runtime's own operators


def cuda_graph(model: onnx.ModelProto, nhwc: bool = False) -> onnx.ModelProto:
    """Rewrite a graph, in place, for the CUDA provider.

    Args:
        nhwc: use ONNX Runtime's GroupNorm on channels-last tensors where it has a kernel.

    Raises:
        BackendError: it has a GroupNormalization of a kind that we do not export.
    """
    if nhwc:
        fuse_group_norm(model)
    decompose_group_norm(model)
    values = Values(model)
    if any(_kind(node, values) != FLOAT for node in _nodes(model, CONVOLUTIONS)):
        replace_nodes(model, ("MatMul",), _in_float64)
    return model


def may_use_tf32(model: onnx.ModelProto) -> bool:
    """Whether TF32 speeds convolutions up and touches no float32 product."""
    values = Values(model)
    kinds = [_kind(node, values) for node in _nodes(model, PRODUCTS)]
    return FLOAT not in kinds and bool(_nodes(model, CONVOLUTIONS))


def fuse_group_norm(model: onnx.ModelProto) -> int:
    """Each GroupNormalization, with the SiLU behind it, as ONNX Runtime's GroupNorm, in place.

    It stands between two transposes and has its sums in float32. It has no kernel for groups of
    one channel; those are left alone.

    Returns:
        How many were fused.
    """
    readers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
    for node in model.graph.node:
        for name in node.input:
            readers[name].append(node)
    fused: set[str] = set()  # results of the SiLUs that a GroupNorm has taken over

    def fill(new: Replacement) -> bool:
        source, scale, bias = new.node.input
        groups = new.attributes["num_groups"]
        sizes = new.values.sizes(source)
        if not sizes or sizes[1] <= groups:
            return False
        silu = _silu(new.node.output[0], readers)
        fused.update(name for node in silu for name in node.output)
        x = new.add("Transpose", [source], "channels_last", perm=[0, 2, 3, 1])
        x = new.add(
            "GroupNorm",
            [x, *(new.add("Cast", [n], f"float_{n}", to=FLOAT) for n in (scale, bias))],
            "normal",
            domain=MICROSOFT,
            groups=groups,
            epsilon=new.attributes.get("epsilon", 1e-5),
            activation=int(bool(silu)),
            channels_last=1,
        )
        result = silu[-1].output[0] if silu else new.node.output[0]
        new.nodes.append(onnx.helper.make_node("Transpose", [x], [result], perm=[0, 3, 1, 2]))
        return True

    count = replace_nodes(model, ("GroupNormalization",), fill)
    parts = ("Sigmoid", "Mul")
    kept = [n for n in model.graph.node if n.op_type not in parts or n.output[0] not in fused]
    del model.graph.node[:]
    model.graph.node.extend(kept)
    if count:
        model.opset_import.append(onnx.helper.make_opsetid(MICROSOFT, 1))
    return count


def _silu(name: str, readers: dict[str, list[onnx.NodeProto]]) -> list[onnx.NodeProto]:
    """The Sigmoid and the Mul that make x·sigmoid(x) of a value; none if others read it too."""
    behind = {node.op_type: node for node in readers[name]}
    if len(readers[name]) != 2 or set(behind) != {"Sigmoid", "Mul"}:
        return []
    sigmoid, product = behind["Sigmoid"], behind["Mul"]
    alone = len(readers[sigmoid.output[0]]) == 1 and sigmoid.output[0] in product.input
    return [sigmoid, product] if alone else []


def _in_float64(new: Replacement) -> bool:
    if new.values.kind(new.node.input[0]) != FLOAT:
        return False
    double = onnx.TensorProto.DOUBLE
    factors = [
        new.add("Cast", [name], f"double_{side}", to=double)
        for name, side in zip(new.node.input, ("left", "right"), strict=True)
    ]
    new.add("Cast", [new.add("MatMul", factors, "double")], to=FLOAT)
    return True


def _nodes(model: onnx.ModelProto, operators: tuple[str, ...]) -> list[onnx.NodeProto]:
    return [node for node in model.graph.node if node.op_type in operators]


def _kind(node: onnx.NodeProto, values: Values) -> int:
    """The element type of a product: of its weights, or of its first factor."""
    return values.kind(node.input[1]) or values.kind(node.input[0])


GROUPS = 16  # as many cores can be kept busy; more groups cost a little where there are few cores


def split_attention(model: onnx.ModelProto) -> int:
    """Rewrite, in place, each Attention whose queries have one head and a static length.

    Returns:
        How many nodes were rewritten.
    """
    return replace_nodes(model, ("Attention",), _in_groups)


def _in_groups(new: Replacement) -> bool:
    node, sizes = new.node, new.values.sizes(new.node.input[0])
    plain = len(node.input) == 3 and len(node.output) == 1  # no mask, no cache
    if not plain or len(sizes) != 4 or sizes[1] != 1:
        return False
    length, width = sizes[2:]
    if not length or length % GROUPS or not width:
        return False
    split = new.constant("split_sizes", np.array([0, GROUPS, length // GROUPS, width]))
    joined = new.constant("joined_sizes", np.array([0, 1, length, width]))  # 0 keeps the batch
    queries = new.add("Reshape", [node.input[0], split], "split")
    y = new.add("Attention", [queries, *node.input[1:]], "joined", **new.attributes)
    new.add("Reshape", [y, joined])
    return True


def split_transposed_convolution(model: onnx.ModelProto) -> int:
    """Rewrite, in place, each ConvTranspose whose kernel is a multiple of its stride s.

    Every s-th row and column of its result is a convolution by itself, with every s-th weight. As
    many operations, and none of the values are stored that a ConvTranspose adds up afterwards.

    Returns:
        How many nodes were rewritten; those of another form stay as they are.
    """
    return replace_nodes(model, ("ConvTranspose",), _convolutions)


def _convolutions(new: Replacement) -> bool:
    """x of (B, C, H, W), stride s, padding p, a kernel of n·s: s² kernels of n by n.

    Row s·j + r is the sum over m < n of x[j + q - m]·w[a + s·m], where r + p = s·q + a: of n rows
    of x, the last weight first. Weights are sliced by nodes, which are folded when the graph loads.
    """
    found, sizes = transposed_convolution(new), new.values.sizes(new.node.input[0])
    if found is None or len(sizes) != 4 or not all(sizes[1:]):
        return False
    (_, channels, *lengths), stride, pad = found
    if stride == 1 or 2 * pad % stride:
        return False
    taps = [length // stride for length in lengths]
    height, width = (
        size - 1 + n - 2 * pad // stride for size, n in zip(sizes[2:], taps, strict=True)
    )
    places = [divmod(r + pad, stride) for r in range(stride)]  # q and a of each row, or column
    before = [[n - 1 - q for q, _ in places] for n in taps]
    after = [[n - 1 - 2 * pad // stride + q for q, _ in places] for n in taps]
    if min(map(min, (*before, *after))) < 0:
        return False

    def constant(name: str, numbers: list[int]) -> str:
        return new.constant(name, np.array(numbers))

    turned = new.add("Transpose", [new.node.input[1]], "turned", perm=[1, 0, 2, 3])
    ends = constant("ends", [-length - 1 for length in lengths])
    axes, steps = constant("axes", [2, 3]), constant("steps", [-stride, -stride])
    last, row = constant("last", [4]), constant("row", [0, channels, height, 1, stride * width])
    rows = []
    for r in range(stride):
        columns = []
        for c in range(stride):
            at = f"{r}{c}"
            first = [places[i][1] - stride for i in (r, c)]  # from the end: the last of every s-th
            part = [turned, constant(f"first{at}", first), ends, axes, steps]
            kernel = new.add("Slice", part, f"kernel{at}")
            sources = [new.node.input[0], kernel, *new.node.input[2:]]
            margins = [before[0][r], before[1][c], after[0][r], after[1][c]]
            x = new.add("Conv", sources, f"pixels{at}", kernel_shape=taps, pads=margins)
            columns.append(new.add("Unsqueeze", [x, last], f"column{at}"))
        joined = new.add("Concat", columns, f"columns{r}", axis=4)
        rows.append(new.add("Reshape", [joined, row], f"row{r}"))
    joined = new.add("Concat", rows, "rows", axis=3)
    whole = constant("whole", [0, channels, stride * height, stride * width])
    new.add("Reshape", [joined, whole])
    return True
