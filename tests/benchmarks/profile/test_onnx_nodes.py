"""Nodes of a bundle's file: modules as bisect has them, operations as an export counts them."""

import onnx
import pytest
from onnx import helper

from tests.conftest import Bundles
from wmdeploy.benchmarks.bisect.torch_values import PytorchValues
from wmdeploy.benchmarks.profile.onnx_nodes import names_in_model, owners, source_nodes
from wmdeploy.bundle import Bundle
from wmdeploy.errors import BundleError
from wmdeploy.families import load_model


def loaded(bundle: Bundle, graph: str) -> onnx.ModelProto:
    return onnx.load(bundle.checked_graph(graph), load_external_data=False)


@pytest.mark.parametrize("graph", ["encoder", "step", "decoder"])
def test_modules_are_those_of_bisect(bundles: Bundles, graph: str) -> None:
    bundle = bundles("token", "fp16", True)
    model = loaded(bundle, graph)
    nodes = source_nodes(model, names_in_model(bundle, graph))
    exact = PytorchValues(load_model(bundle.checked_model()), bundle.manifest.recipe, graph)
    compared = {
        node.name: exact.operations[value].module
        for node in model.graph.node
        for value in node.output
        if value in exact.operations
    }
    assert len(compared) > len(nodes) / 2
    assert {name: nodes[name].module for name in compared} == compared


def test_without_a_model_modules_have_their_names_in_the_graph(bundles: Bundles) -> None:
    modules = {node.module for node in source_nodes(loaded(bundles(), "step"), None).values()}
    assert "GraphStep.layers.0.self_attention.q_proj" in modules and "GraphStep" in modules


@pytest.mark.parametrize("layout", ["token", "latent"])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_operations_add_up_to_those_of_the_manifest(
    bundles: Bundles, layout: str, precision: str
) -> None:
    bundle = bundles(layout, precision)
    for graph, record in bundle.manifest.graphs.items():
        model = loaded(bundle, graph)
        nodes = source_nodes(model, None)
        assert None not in [node.operations for node in nodes.values()]
        counted = {node.name: nodes[node.name].operations or 0 for node in model.graph.node}
        attention = [n.name for n in model.graph.node if n.op_type == "Attention"]
        masked = graph in ("prefill", "step")  # which torch's counter, behind the manifest, skips
        left_out = sum(counted[name] for name in attention) if masked else 0
        assert attention and sum(counted.values()) == record.flops + left_out, graph


def test_a_module_that_the_model_lacks_is_refused(bundles: Bundles) -> None:
    name_of = names_in_model(bundles(), "step")
    with pytest.raises(BundleError, match="a node of step names the module 'layers.9', which its"):
        name_of("layers.9")


def test_nodes_belong_to_a_name_to_a_value_or_to_what_is_behind_them() -> None:
    make = helper.make_node
    source = helper.make_graph(
        [make("Conv", ["x"], ["a"], "conv"), make("Relu", ["a"], ["b"], "relu"),
         make("Softmax", ["b"], ["c"], "softmax")],
        "g", [], [],
    )  # fmt: skip
    executed = [
        make("Conv", ["x"], ["blocked"], "InsertedPrecisionFreeCast_a_nchwc"),
        make("ReorderOutput", ["blocked"], ["r"], "ReorderOutput_token_1"),
        make("QuickGelu", ["r"], ["q"], "relu/QuickGeluFusion/"),
        make("Cast", ["q"], ["InsertedPrecisionFreeCast_b"], "InsertedPrecisionFreeCast_b"),
        make("Shape", ["q"], ["s"]),
        make("Softmax", ["InsertedPrecisionFreeCast_b", "s"], ["c"], "another"),
        make("Identity", ["c"], ["nobody"]),
    ]
    found = owners(executed, source)
    assert found == ["conv", "relu", "relu", "relu", "softmax", "softmax", None]
