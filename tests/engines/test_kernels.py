"""Every node of every exported graph has a kernel where its backend runs it."""

from pathlib import Path

import onnx
import pytest

from tests.conftest import Bundles
from tests.kernels import CUDA, nodes_without_cuda_kernel, nodes_without_tensorrt
from wmdeploy.engines.ort.rewrite import cuda_graph, may_use_tf32
from wmdeploy.engines.trt.flavour import load_flavour
from wmdeploy.engines.trt.rewrite import tensorrt_graph
from wmdeploy.manifest import Precision

pytestmark = pytest.mark.slow

GRAPHS = ("encoder", "prefill", "step", "decoder")
every_graph = pytest.mark.parametrize("graph", GRAPHS)
every_bundle = pytest.mark.parametrize(
    ("layout", "precision", "actions"),
    [
        ("token", "fp32", False),
        ("token", "fp16", True),
        ("latent", "fp32", False),
        ("latent", "fp16", False),
    ],
)


def load(path: Path) -> onnx.ModelProto:
    return onnx.load(path, load_external_data=False)


@every_graph
@every_bundle
@pytest.mark.parametrize("nhwc", [False, True])
def test_every_node_has_a_cuda_kernel(
    bundles: Bundles, layout: str, precision: Precision, actions: bool, graph: str, nhwc: bool
) -> None:
    model = load(bundles(layout, precision, actions).checked_graph(graph))
    assert not list(nodes_without_cuda_kernel(cuda_graph(model, nhwc)))


@every_graph
@every_bundle
def test_every_node_is_known_to_tensorrts_parser(
    bundles: Bundles, layout: str, precision: Precision, actions: bool, graph: str
) -> None:
    model = load(bundles(layout, precision, actions).checked_graph(graph))
    assert not list(nodes_without_tensorrt(tensorrt_graph(model)))


@every_graph
@every_bundle
def test_rtx_parses_every_graph(
    bundles: Bundles, layout: str, precision: Precision, actions: bool, graph: str
) -> None:
    trt = pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    path = bundles(layout, precision, actions).checked_graph(graph)
    logger = trt.Logger(trt.Logger.ERROR)
    network = trt.Builder(logger).create_network(load_flavour("tensorrt-rtx").network_flags())
    parser = trt.OnnxParser(network, logger)
    rewritten = tensorrt_graph(load(path)).SerializeToString()
    assert parser.parse(rewritten, str(path)), parser.get_error(0).desc()


def test_a_node_without_a_kernel_is_noticed(bundles: Bundles) -> None:
    decoder = bundles(precision="fp16").checked_graph("decoder")
    assert any("GroupNormalization" in n for n in nodes_without_cuda_kernel(load(decoder)))
    assert any("Attention" in n for n in nodes_without_tensorrt(load(decoder)))
    strings = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["": 23]> g (string[2] x) => (string[2] y) '
        "{ y = Concat <axis = 0> (x) }"
    )
    assert list(nodes_without_cuda_kernel(strings)) and list(nodes_without_tensorrt(strings))


@every_bundle
def test_tf32_reaches_no_float32_product(
    bundles: Bundles, layout: str, precision: Precision, actions: bool
) -> None:
    """And is allowed just where float16 convolutions need it for tensor cores."""
    allowed = []
    for graph in GRAPHS:
        model = cuda_graph(load(bundles(layout, precision, actions).checked_graph(graph)))
        if may_use_tf32(model):
            allowed.append(graph)
            types = {v.name: v.type.tensor_type.elem_type for v in model.graph.value_info}
            types |= {v.name: v.data_type for v in model.graph.initializer}
            products = [n for n in model.graph.node if n.op_type in ("MatMul", "Gemm", "Conv")]
            kinds = {types.get(name) for node in products for name in node.input}
            assert onnx.TensorProto.FLOAT not in kinds
    assert allowed == (["encoder", "decoder"] if precision == "fp16" else [])


def test_list_of_kernels_is_of_a_version_that_the_extra_installs() -> None:
    import tomllib

    from packaging.requirements import Requirement

    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    extra = [Requirement(text) for text in project["project"]["optional-dependencies"]["gpu"]]
    (gpu,) = [each for each in extra if each.name == "onnxruntime-gpu"]
    assert gpu.specifier.contains(CUDA["onnxruntime-gpu"])
