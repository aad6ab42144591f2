"""Small graphs for tests of rewriting, such as a transposed convolution. No test is in here."""

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FLOAT = TensorProto.FLOAT


def graph(
    nodes: list[onnx.NodeProto],
    values: dict[str, tuple[int, list[int | str]]],
    outputs: tuple[str, ...],
    **constants: np.ndarray,
) -> onnx.ModelProto:
    """Of inputs and values in between, by type and shape; those that no node makes are inputs."""
    infos = {name: helper.make_tensor_value_info(name, *value) for name, value in values.items()}
    made = {name for node in nodes for name in node.output}
    for node in nodes:
        node.name = f"node_{node.output[0]}"
    whole = helper.make_graph(
        nodes,
        "small",
        [info for name, info in infos.items() if name not in made],
        [infos[name] for name in outputs],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
        value_info=[infos[name] for name in infos if name in made and name not in outputs],
    )
    return helper.make_model(whole, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)


def upsampling(kernel: int, stride: int, pad: int, bias: bool, **more: Any) -> onnx.ModelProto:
    """Of (B, 5, 6, 9), to 7 channels."""
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((5, 7, kernel, kernel), np.float32)
    attributes: dict[str, Any] = {"strides": [stride] * 2, "pads": [pad] * 4, **more}
    inputs = ["x", "weights", "bias"] if bias else ["x", "weights"]
    node = helper.make_node("ConvTranspose", inputs, ["y"], **attributes)
    shapes: dict[str, tuple[int, list[int | str]]] = {
        "x": (FLOAT, ["B", 5, 6, 9]),
        "y": (FLOAT, ["B", 7, "H", "W"]),
    }
    constants = {"weights": weights}
    if bias:
        constants["bias"] = rng.standard_normal(7, np.float32)
    return graph([node], shapes, ("y",), **constants)
