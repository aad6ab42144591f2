"""Graphs for the WebGPU provider: the same answers, by operators that it has."""

from collections import Counter
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from tests.small_graphs import graph, upsampling
from wmdeploy.exporters.site.webgpu import keep_on_gpu

FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
Feeds = dict[str, np.ndarray]


def answers(model: onnx.ModelProto, feeds: Feeds) -> list[np.ndarray]:
    onnx.checker.check_model(model)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # of initializers that are no longer used
    return onnxruntime.InferenceSession(model.SerializeToString(), options).run(None, feeds)


def operators(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("kernel", "stride", "pad"), [(4, 2, 1), (2, 2, 0), (6, 3, 2), (6, 2, 1)])
def test_upsampling_is_a_convolution(kernel: int, stride: int, pad: int, bias: bool) -> None:
    model = upsampling(kernel, stride, pad, bias)
    x = np.random.default_rng(1).standard_normal((2, 5, 6, 9), np.float32)
    (expected,) = answers(model, {"x": x})
    keep_on_gpu(model)
    assert operators(model) == Counter(["Conv", "DepthToSpace", *["Slice"] * (pad > 0)])
    (got,) = answers(model, {"x": x})
    np.testing.assert_allclose(got, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("kernel", "stride", "more"),
    [
        (3, 2, {}),
        (4, 2, {"output_padding": [1, 1]}),
        (4, 2, {"dilations": [2, 2]}),
        (4, 2, {"pads": [1, 1, 0, 0]}),
        (4, 2, {"strides": [2, 1]}),
        (4, 2, {"auto_pad": "SAME_UPPER", "pads": [0] * 4}),
        (4, 2, {"output_shape": [12, 18]}),
    ],
)
def test_upsampling_of_another_form_stays(kernel: int, stride: int, more: dict[str, Any]) -> None:
    model = upsampling(kernel, stride, 1, True, **more)
    before = model.SerializeToString()
    keep_on_gpu(model)
    assert model.SerializeToString() == before


def test_positions_and_masks_are_computed_in_int32() -> None:
    """Of a position a row of a table, and which slots it may see; int64 at both ends."""
    nodes = [
        helper.make_node("Sub", ["length", "one"], ["position"]),
        helper.make_node("Unsqueeze", ["position", "last"], ["column"]),
        helper.make_node("GatherND", ["table", "column"], ["row"]),
        helper.make_node("LessOrEqual", ["slots", "column"], ["seen"]),
        helper.make_node("Transpose", ["seen"], ["mask"], perm=[1, 0]),
        helper.make_node("Cast", ["mask"], ["counted"], to=INT64),
        helper.make_node("ReduceSum", ["counted", "first"], ["count"], keepdims=0),
        helper.make_node("Add", ["count", "position"], ["next"]),
    ]
    values: dict[str, tuple[int, list[int | str]]] = {
        "length": (INT64, ["B"]),
        "position": (INT64, ["B"]),
        "column": (INT64, ["B", 1]),
        "row": (FLOAT, ["B", 3]),
        "seen": (BOOL, ["B", 8]),
        "mask": (BOOL, [8, "B"]),
        "counted": (INT64, [8, "B"]),
        "count": (INT64, ["B"]),
        "next": (INT64, ["B"]),
    }
    constants = {
        "one": np.array(1),
        "last": np.array([1]),
        "first": np.array([0]),
        "slots": np.arange(8)[None],
        "table": np.random.default_rng(0).standard_normal((8, 3), np.float32),
    }
    model = graph(nodes, values, ("row", "mask", "next"), **constants)
    feeds = {"length": np.array([1, 5, 8])}
    expected = answers(model, feeds)
    keep_on_gpu(model)
    for one, other in zip(answers(model, feeds), expected, strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)
    found = operators(model)
    assert "GatherND" not in found
    kinds = {i.name: i.data_type for i in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type in ("Sub", "Add", "LessOrEqual"):
            assert not [name for name in node.input if kinds.get(name) == INT64]


def test_integers_and_bools_are_moved_as_floats() -> None:
    """Which slots are seen; codes by index, kept above 0; and the sign of a reward."""
    nodes = [
        helper.make_node("Or", ["old", "new"], ["either"]),
        helper.make_node("Concat", ["either", "new"], ["seen"], axis=1),
        helper.make_node("Slice", ["codes", "one", "four", "one"], ["later"]),
        helper.make_node("GatherElements", ["later", "index"], ["chosen"], axis=1),
        helper.make_node("Clip", ["chosen", "least"], ["kept"]),
        helper.make_node("Sign", ["reward"], ["sign"]),
    ]
    values: dict[str, tuple[int, list[int | str]]] = {
        "old": (BOOL, ["B", 2]),
        "new": (BOOL, ["B", 2]),
        "either": (BOOL, ["B", 2]),
        "seen": (BOOL, ["B", 4]),
        "codes": (INT64, ["B", 4]),
        "later": (INT64, ["B", 3]),
        "index": (INT64, ["B", 1]),
        "chosen": (INT64, ["B", 1]),
        "kept": (INT64, ["B", 1]),
        "reward": (FLOAT, ["B"]),
        "sign": (FLOAT, ["B"]),
    }
    constants = {"one": np.array([1]), "four": np.array([4]), "least": np.array(0)}
    model = graph(nodes, values, ("seen", "kept", "sign"), **constants)
    feeds = {
        "old": np.array([[True, False], [True, False], [False, False]]),
        "new": np.array([[True, False], [False, True], [False, False]]),
        "codes": np.array([[5, -6, 7, 2**24 - 1]] * 3),
        "index": np.array([[0], [1], [2]]),
        "reward": np.array([-3.5, 0, 1e-30], np.float32),
    }
    expected = answers(model, feeds)
    keep_on_gpu(model)
    for one, other in zip(answers(model, feeds), expected, strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)
    assert not {"Or", "Sign"} & operators(model).keys()
    casts = {name for node in model.graph.node if node.op_type == "Cast" for name in node.output}
    for node in model.graph.node:
        if node.op_type in ("Concat", "Slice", "GatherElements", "Clip"):
            assert node.input[0] in casts and node.output[0].endswith("/moved")


def test_sizes_of_tensors_stay_int64() -> None:
    """As a shape they are the CPU's own."""
    nodes = [
        helper.make_node("Shape", ["x"], ["batch"], end=1),
        helper.make_node("Concat", ["batch", "two"], ["shape"], axis=0),
        helper.make_node("Expand", ["small", "shape"], ["y"]),
    ]
    values: dict[str, tuple[int, list[int | str]]] = {
        "x": (FLOAT, ["B"]),
        "batch": (INT64, [1]),
        "shape": (INT64, [2]),
        "y": (FLOAT, ["B", 2]),
    }
    constants = {"two": np.array([2]), "small": np.ones((1, 1), np.float32)}
    model = graph(nodes, values, ("y",), **constants)
    before = model.SerializeToString()
    keep_on_gpu(model)
    assert model.SerializeToString() == before


def test_constant_that_int32_does_not_hold_stays() -> None:
    node = helper.make_node("Min", ["x", "most"], ["y"])
    model = graph([node], {"x": (INT64, ["B"]), "y": (INT64, ["B"])}, ("y",), most=np.array(2**40))
    before = model.SerializeToString()
    keep_on_gpu(model)
    assert model.SerializeToString() == before
    (got,) = answers(model, {"x": np.array([2**50, 3])})
    np.testing.assert_array_equal(got, [2**40, 3])
