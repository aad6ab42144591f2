from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from tests.conftest import Bundles
from tests.small_graphs import upsampling
from wmdeploy.decompose import decompose_group_norm
from wmdeploy.engines.ort.cpu import cpu_graph, cpu_session
from wmdeploy.engines.ort.rewrite import split_attention, split_transposed_convolution

CPU = ["CPUExecutionProvider"]


def attention_model(shape: list[int], mask: bool = False) -> onnx.ModelProto:
    """y = Attention(relu(q), k, v[, mask]) with value_info for relu(q)."""
    tensor = onnx.helper.make_tensor_value_info
    inputs = [tensor(name, onnx.TensorProto.FLOAT, shape) for name in "qkv"]
    names = ["relu", "k", "v"]
    if mask:
        inputs.append(tensor("mask", onnx.TensorProto.FLOAT, [shape[2], shape[2]]))
        names.append("mask")
    nodes = [
        onnx.helper.make_node("Relu", ["q"], ["relu"]),
        onnx.helper.make_node("Attention", names, ["y"]),
    ]
    graph = onnx.helper.make_graph(
        nodes, "g", inputs, [tensor("y", onnx.TensorProto.FLOAT, shape)],
        value_info=[tensor("relu", onnx.TensorProto.FLOAT, shape)],
    )  # fmt: skip
    opset = [onnx.helper.make_opsetid("", 23)]
    return onnx.helper.make_model(graph, opset_imports=opset, ir_version=10)


def run(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> np.ndarray:
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=CPU)
    return session.run(None, feeds)[0]


def test_same_numbers_come_out() -> None:
    rng = np.random.default_rng(0)
    feeds = {name: rng.standard_normal((2, 1, 64, 8), dtype=np.float32) for name in "qkv"}
    model = attention_model([2, 1, 64, 8])
    before = run(model, feeds)
    assert split_attention(model) == 1
    assert [node.op_type for node in model.graph.node] == [
        "Relu",
        "Reshape",
        "Attention",
        "Reshape",
    ]
    np.testing.assert_allclose(run(model, feeds), before, rtol=1e-6, atol=1e-6)


def test_what_cannot_be_split_is_left_alone() -> None:
    for model in (
        attention_model([2, 4, 64, 8]),  # several heads already
        attention_model([2, 1, 24, 8]),  # not a multiple of the groups
        attention_model([2, 1, 64, 8], mask=True),
    ):
        before = model.SerializeToString()
        assert split_attention(model) == 0
        assert model.SerializeToString() == before


def test_the_vqvaes_attention_is_found_in_exported_graphs(bundles: Bundles) -> None:
    bundle = bundles()
    for name, count in (("encoder", 2), ("decoder", 2), ("step", 0), ("prefill", 0)):
        model = onnx.load(bundle.path / f"{name}.onnx", load_external_data=False)
        assert split_attention(model) == count, name
    hidden = np.random.default_rng(0).standard_normal((3, 32), dtype=np.float32)
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.disable_prepacking", "1")  # as `cpu_session` does
    whole = onnx.load(bundle.path / "decoder.onnx")
    decompose_group_norm(whole)
    split_transposed_convolution(whole)
    plain = onnxruntime.InferenceSession(whole.SerializeToString(), options, providers=CPU)
    split = cpu_session(bundle.path / "decoder.onnx")
    for batch in (1, 3):
        feeds = {"hidden": hidden[:batch]}
        np.testing.assert_array_equal(split.run(None, feeds)[0], plain.run(None, feeds)[0])
    rewritten = cpu_graph(bundle.path / "decoder.onnx")
    operators = {node.op_type for node in rewritten.graph.node}
    assert operators.isdisjoint({"GroupNormalization", "ConvTranspose"})
    assert rewritten.ByteSize() < 200_000  # the weights stay in their file


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(
    ("kernel", "stride", "pad"), [(4, 2, 1), (2, 2, 0), (4, 2, 0), (6, 2, 2), (6, 3, 0), (9, 3, 3)]
)
def test_transposed_convolution_is_one_for_each_place(
    kernel: int, stride: int, pad: int, bias: bool
) -> None:
    model = upsampling(kernel, stride, pad, bias)
    x = np.random.default_rng(1).standard_normal((2, 5, 6, 9), np.float32)
    expected = run(model, {"x": x})
    assert split_transposed_convolution(model) == 1
    operators = [node.op_type for node in model.graph.node]
    assert operators.count("Conv") == stride**2 and "ConvTranspose" not in operators
    np.testing.assert_allclose(run(model, {"x": x}), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("kernel", "stride", "pad", "more"),
    [(3, 1, 1, {}), (6, 3, 2, {}), (2, 2, 1, {}), (4, 2, 1, {"dilations": [2, 2]})],
)
def test_transposed_convolution_of_another_form_stays(
    kernel: int, stride: int, pad: int, more: dict[str, Any]
) -> None:
    """The length of the result is no multiple of the stride, a margin would be negative."""
    model = upsampling(kernel, stride, pad, True, **more)
    before = model.SerializeToString()
    assert split_transposed_convolution(model) == 0
    assert model.SerializeToString() == before
