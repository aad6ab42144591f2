"""Decomposed operators, and ONNX Runtime's own, give the numbers of the one they replace."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from tests.conftest import Bundles
from tests.stand_in.ort import _on_cpu
from wmdeploy.decompose import decompose_group_norm
from wmdeploy.engines.ort.cpu import rewrite_for_cpu
from wmdeploy.engines.ort.rewrite import cuda_graph, fuse_group_norm
from wmdeploy.engines.trt.rewrite import tensorrt_graph, widen_norms
from wmdeploy.errors import BackendError

Feeds = dict[str, np.ndarray]


def feeds_of(model: onnx.ModelProto) -> Feeds:
    rng, feeds = np.random.default_rng(0), {}
    for value in model.graph.input:
        shape = [dim.dim_value or 2 for dim in value.type.tensor_type.shape.dim]
        kind = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        numbers = rng.integers(0, 256, shape) if kind == np.uint8 else rng.standard_normal(shape)
        feeds[value.name] = numbers.astype(kind)
    return feeds


def run(model: onnx.ModelProto, feeds: Feeds) -> list[np.ndarray]:
    return onnxruntime.InferenceSession(model.SerializeToString()).run(None, feeds)


def load(path: Path) -> tuple[onnx.ModelProto, Feeds, list[np.ndarray]]:
    model = onnx.load(path)
    feeds = feeds_of(model)
    return model, feeds, run(model, feeds)


@pytest.mark.parametrize("graph", ["encoder", "decoder"])
@pytest.mark.parametrize("nhwc", [False, True])
def test_cuda_graph_computes_the_same(bundles: Bundles, graph: str, nhwc: bool) -> None:
    model, feeds, expected = load(bundles().checked_graph(graph))
    rewritten = cuda_graph(model, nhwc)
    operators = [node.op_type for node in rewritten.graph.node]
    assert "GroupNormalization" not in operators and ("GroupNorm" in operators) == nhwc
    for got, want in zip(run(_on_cpu(rewritten), feeds), expected, strict=True):
        difference = np.abs(got.astype(np.float64) - want).max()
        assert difference <= (1 if want.dtype == np.uint8 else 2e-5 * np.abs(want).max())


def test_onnxruntimes_group_norm_takes_the_silu_with_it(bundles: Bundles) -> None:
    model = onnx.load(bundles().checked_graph("decoder"))
    before = [node.op_type for node in model.graph.node]
    fused = fuse_group_norm(model)
    after = [node.op_type for node in model.graph.node]
    silus = [
        n for n in model.graph.node if n.op_type == "GroupNorm" and _attribute(n, "activation")
    ]
    left = after.count("GroupNormalization")  # groups of one channel
    assert fused == after.count("GroupNorm") == before.count("GroupNormalization") - left > 0
    assert before.count("Sigmoid") - after.count("Sigmoid") == len(silus) > 0
    onnx.checker.check_model(model)


def _attribute(node: onnx.NodeProto, name: str) -> int:
    return next(a.i for a in node.attribute if a.name == name)


@pytest.mark.parametrize("graph", ["encoder", "decoder"])
def test_float16_statistics_are_float32(bundles: Bundles, graph: str) -> None:
    """Sums of values up to 60,000 leave float16's range."""
    path = bundles(precision="fp16").checked_graph(graph)
    for rewrite in (decompose_group_norm, widen_norms):
        model = onnx.load(path)
        norms = [n for n in model.graph.node if n.op_type == "GroupNormalization"]
        assert rewrite(model) == len(norms) > 0
        onnx.checker.check_model(model)
        types = {
            v.name: v.type.tensor_type.elem_type
            for v in onnx.shape_inference.infer_shapes(model).graph.value_info
        }
        sums = [n for n in model.graph.node if n.op_type in ("ReduceMean", "GroupNormalization")]
        assert {types[n.input[0]] for n in sums} == {onnx.TensorProto.FLOAT}


def test_group_norm_of_large_float16_values() -> None:
    text = """<ir_version: 10, opset_import: ["": 21]>
    g (float16[B, 4, 8, 8] x, float16[4] scale, float16[4] bias) => (float16[B, 4, 8, 8] y)
    { y = GroupNormalization <num_groups = 2, epsilon = 0.001> (x, scale, bias) }"""
    model = onnx.parser.parse_model(text)
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((3, 4, 8, 8)) * 3000 + 20000).astype(np.float16)
    scale, bias = (rng.standard_normal(4).astype(np.float16) for _ in range(2))
    groups = x.astype(np.float64).reshape(3, 2, -1)
    normal = (groups - groups.mean(2, keepdims=True)) / np.sqrt(groups.var(2, keepdims=True) + 1e-3)
    expected = normal.reshape(x.shape) * scale[:, None, None] + bias[:, None, None]
    assert decompose_group_norm(model) == 1
    (got,) = run(model, {"x": x, "scale": scale, "bias": bias})
    assert np.abs(got - expected).max() < 0.01


@pytest.mark.parametrize("sizes", ["8, 8", "64"])
def test_group_norm_of_values_far_from_zero_keeps_its_digits(sizes: str) -> None:
    """ONNX's own function, the mean square less the squared mean, is off by 8e-4 here."""
    text = f"""<ir_version: 10, opset_import: ["": 21]>
    g (float[B, 4, {sizes}] x, float[4] scale, float[4] bias) => (float[B, 4, {sizes}] y)
    {{ y = GroupNormalization <num_groups = 2> (x, scale, bias) }}"""
    model = onnx.parser.parse_model(text)
    rewrite_for_cpu(model)
    rng = np.random.default_rng(0)
    shape = (3, 4, *map(int, sizes.split(",")))
    x = (rng.standard_normal(shape) + 100).astype(np.float32)
    scale, bias = (rng.standard_normal(4).astype(np.float32) for _ in range(2))
    exact = [torch.from_numpy(values).double() for values in (x, scale, bias)]
    expected = torch.nn.functional.group_norm(exact[0], 2, exact[1], exact[2])
    (got,) = run(model, {"x": x, "scale": scale, "bias": bias})
    assert np.abs(got - expected.numpy()).max() < 5e-5


def test_group_norm_of_another_exporter_is_refused() -> None:
    text = """<ir_version: 10, opset_import: ["": 21]>
    g (float[B, 4, H, 8] x, float[4] scale, float[4] bias) => (float[B, 4, H, 8] y)
    { y = GroupNormalization <num_groups = 2> (x, scale, bias) }"""
    with pytest.raises(BackendError, match="GroupNormalization of a kind that wmdeploy does not"):
        decompose_group_norm(onnx.parser.parse_model(text))


def test_distances_to_the_codebook_are_float64_beside_tf32(bundles: Bundles) -> None:
    path = bundles(precision="fp16").checked_graph("encoder")
    model = cuda_graph(onnx.load(path, load_external_data=False))
    doubles = [n for n in model.graph.node if n.op_type == "Cast" and _attribute(n, "to") == 11]
    assert len(doubles) == 2
    exact = cuda_graph(onnx.load(bundles().checked_graph("encoder"), load_external_data=False))
    assert not any(n.op_type == "Cast" and _attribute(n, "to") == 11 for n in exact.graph.node)


@pytest.mark.parametrize("graph", ["encoder", "prefill", "step", "decoder"])
def test_tensorrt_graph_has_no_float16_norm(bundles: Bundles, graph: str) -> None:
    path = bundles(precision="fp16").checked_graph(graph)
    before = onnx.load(path)
    count = sum(n.op_type.endswith("Normalization") for n in before.graph.node)
    model = tensorrt_graph(before)
    onnx.checker.check_model(model)
    inferred = onnx.shape_inference.infer_shapes(model).graph
    types = {v.name: v.type.tensor_type.elem_type for v in inferred.value_info}
    norms = [n for n in model.graph.node if n.op_type.endswith("Normalization")]
    assert len(norms) == count > 0
    kinds = {types[name] for norm in norms for name in norm.input}
    assert kinds == {onnx.TensorProto.FLOAT}
