"""Graphs with a planted fault, and what bisect says of them. No test is in here."""

from collections.abc import Callable, Mapping

import onnx
from torch import Tensor

from wmdeploy.benchmarks.bisect.onnx_values import OnnxValues
from wmdeploy.benchmarks.bisect.run import Findings, examine
from wmdeploy.benchmarks.bisect.torch_values import PytorchValues
from wmdeploy.bundle import Bundle
from wmdeploy.manifest import Precision

Exact = Callable[[Bundle, str], tuple[PytorchValues, Mapping[str, Tensor]]]


SHAPE = (6, 32, 32, 3)  # of a clip


ACTED: tuple[str, Precision, bool] = ("token", "fp32", True)  # layout, precision, actions


# micro is not trained: in float16 its rounding alone adds up to 4e-2
TOLERANCES: dict[Precision, float] = {"fp32": 1e-3, "fp16": 6e-2}


def examined(intact: Bundle, bundle: Bundle, graph: str, exact: Exact) -> Findings:
    pytorch, feeds = exact(intact, graph)
    tested = OnnxValues(bundle, graph, "ort-cpu", pytorch.operations)
    return examine(pytorch, tested, feeds, TOLERANCES[bundle.manifest.recipe.precision])


def node_of(model: onnx.ModelProto, name: str) -> onnx.NodeProto:
    return next(node for node in model.graph.node if node.name == name)


def maker(model: onnx.ModelProto, value: str) -> onnx.NodeProto:
    return next(node for node in model.graph.node if node.output[0] == value)


def spoil(model: onnx.ModelProto, node: onnx.NodeProto) -> bool:
    """Make a node wrong: a weight, an attribute, or what it computes. False where it cannot be."""
    weights = {t.name: t for t in model.graph.initializer}
    other = {"Sigmoid": "Tanh", "Relu": "Abs", "Round": "Floor", "ArgMin": "ArgMax"}
    if node.op_type in ("Conv", "ConvTranspose", "Gemm", "MatMul", "Gather"):
        for i, name in enumerate(node.input):
            if name in weights and len(weights[name].dims) > 1:
                # a tensor of its own: exports let nodes share equal ones
                array = onnx.numpy_helper.to_array(weights[name])
                wrong = onnx.numpy_helper.from_array(array * array.dtype.type(1.1), f"{name}/wrong")
                model.graph.initializer.append(wrong)
                node.input[i] = wrong.name
                return True
        return False
    if node.op_type in ("GroupNormalization", "LayerNormalization"):
        epsilon = next(a for a in node.attribute if a.name == "epsilon")
        epsilon.f = 10.0
    elif node.op_type == "Attention":
        node.input[1], node.input[2] = node.input[2], node.input[1]
    elif node.op_type == "Add" and not weights.keys() & set(node.input):
        node.op_type = "Sub"
    elif node.op_type in other:
        node.op_type = other[node.op_type]
    else:
        return False
    return True
