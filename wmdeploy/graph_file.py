"""What an ONNX file of a bundle may hold: what our exports write, and nothing else.

ONNX Runtime runs whatever a file asks for: loops without end, functions that call themselves twice,
operators of any domain, weights from any file (and, before 1.24.4, from any address).
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wmdeploy.errors import BundleError
from wmdeploy.files import read_document

WEIGHTS_FILE = "weights.data"  # of all graphs of a bundle
LARGEST_GRAPH = 64 * 2**20  # bytes without weights; those of our models are below 1 MB
STANDARD = ("", "ai.onnx")  # the one domain, by its two names

# What exports of our models hold in any layout, precision and opset, what other versions of
# torch.onnx may write for the same, and what other networks of the field hold. One may be added
# that has no graph of its own, draws nothing at random, and makes no large tensor out of small
# ones, as Expand and Resize alone here do.
OPERATORS = frozenset(
    """
    Abs Add And ArgMax ArgMin Attention AveragePool BatchNormalization Cast Ceil Clip Concat
    Constant Conv ConvTranspose Cos DepthToSpace DequantizeLinear Div Elu Equal Erf Exp Expand
    Flatten Floor Gather GatherElements GatherND Gelu Gemm GlobalAveragePool Greater GreaterOrEqual
    GroupNormalization HardSigmoid HardSwish Identity InstanceNormalization IsInf IsNaN
    LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax MatMul Max MaxPool Min Mish Mod Mul
    Neg Not Or PRelu Pow RMSNormalization Reciprocal ReduceL2 ReduceMax ReduceMean ReduceMin
    ReduceProd ReduceSum Relu Reshape Resize Round Selu Shape Sigmoid Sign Sin Size Slice Softmax
    Softplus SpaceToDepth Split Sqrt Squeeze Sub Sum Swish Tanh Transpose Trilu Unsqueeze Where
    """.split()
)


def checked_weight_bytes(graph: Path) -> int:
    """Bytes that a graph reads from the bundle's file of weights, each tensor once.

    Raises:
        BundleError: it is not an ONNX file, holds what no export of ours writes, or reads weights
            from any other file.
    """
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load_model_from_string(read_document(graph, LARGEST_GRAPH))
    except OSError as error:
        raise BundleError(f"{graph}: cannot be read ({error.strerror})") from error
    except DecodeError as error:
        raise BundleError(f"{graph}: not an ONNX file ({error}); export the model again") from error
    if what := next(_unknown(model), None):
        raise BundleError(f"{graph}: holds {what}, which no export of ours does; refused")
    tensors = [*model.graph.initializer, *_constants(model.graph.node)]
    entries = [entry for tensor in tensors for entry in tensor.external_data]
    files = {entry.value for entry in entries if entry.key == "location"}
    if other := sorted(files - {WEIGHTS_FILE}):
        raise BundleError(
            f"{graph}: reads weights from {other[0][:80]!r}, expected {WEIGHTS_FILE}; refused"
        )
    places = {tuple((e.key, e.value) for e in tensor.external_data) for tensor in tensors}
    total = 0
    for place in filter(None, places):
        keys, said = sorted(key for key, _ in place), dict(place)
        numbers = [said.get("offset", "0"), said.get("length", "")]
        if not {*keys} <= {"location", "offset", "length"} or len(keys) > len(said):
            raise BundleError(f"{graph}: a tensor's place is said by {keys}; refused")
        if odd := [n for n in numbers if not (n.isdecimal() and len(n) < 16)]:
            raise BundleError(f"{graph}: a tensor's place has the number {odd[0][:80]!r}; refused")
        if not int(numbers[1]):  # ONNX Runtime would take as much as the tensor's shape asks for
            raise BundleError(f"{graph}: a tensor's weights have no length; refused")
        total += int(numbers[1])
    return total


def _unknown(model: Any) -> Iterator[str]:
    """What no export holds, in words."""
    if model.functions:
        yield "functions"
    if model.training_info:
        yield "a training graph"
    if model.graph.sparse_initializer:
        yield "sparse weights"
    for node in model.graph.node:
        if node.domain not in STANDARD or node.op_type not in OPERATORS:
            yield f"the operator {f'{node.domain}::{node.op_type}'.removeprefix('::')[:80]!r}"
        for attribute in node.attribute:
            if attribute.HasField("g") or attribute.graphs:
                yield "a graph inside a node"
            if attribute.HasField("sparse_tensor") or attribute.sparse_tensors:
                yield "sparse weights"


def _constants(nodes: Any) -> Iterator[Any]:
    for attribute in (attribute for node in nodes for attribute in node.attribute):
        yield attribute.t
        yield from attribute.tensors
