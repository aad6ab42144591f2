"""An exported ONNX graph as TensorRT's parser takes it. The weights stay in their file.

TensorRT's own Attention has no softmax_precision, and must find a fused kernel: there is none for
heads wider than 256, for one head at batch 1, nor for short windows (TensorRT-RTX 1.7). So each
Attention is decomposed, with its softmax in float32: the types that the export verified.

TensorRT does not read `stash_type`, ONNX's word for the type of a norm's sums: a float16 norm is
parsed as a float16 layer, whose sums are float32 by a default of the 10.x builder, and 11.x has
nothing to set. So each norm is made float32 in the graph itself, between two casts.
"""

import onnx

from wmdeploy.decompose import FLOAT, Replacement, decompose_attention, replace_nodes

NORMS = ("GroupNormalization", "LayerNormalization")


def tensorrt_graph(model: onnx.ModelProto) -> onnx.ModelProto:
    """Rewrite a graph, in place, for TensorRT's parser.

    Raises:
        BackendError: it has an Attention of a kind that we do not export.
    """
    decompose_attention(model)
    widen_norms(model)
    return model


def widen_norms(model: onnx.ModelProto) -> int:
    """Compute each float16 norm in float32, in place: its inputs are cast, and its result back.

    Returns:
        How many there were.
    """
    return replace_nodes(model, NORMS, _in_float32)


def _in_float32(new: Replacement) -> bool:
    kind = new.values.kind(new.node.input[0])
    if kind == FLOAT or len(new.node.output) != 1:
        return False
    names = ("x", "scale", "bias")
    inputs = [
        new.add("Cast", [source], f"float_{name}", to=FLOAT)
        for source, name in zip(new.node.input, names, strict=False)
    ]
    result = new.add(new.node.op_type, inputs, "float", **new.attributes)
    new.add("Cast", [result], to=kind)
    return True
