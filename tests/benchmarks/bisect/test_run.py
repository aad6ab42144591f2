"""Bisect: planted faults are found at their node, and intact bundles have none."""

import dataclasses
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from tests.benchmarks.bisect.faults import (
    ACTED,
    TOLERANCES,
    Exact,
    examined,
    maker,
    node_of,
    spoil,
)
from tests.conftest import Bundles
from tests.families.reference.ties import Tied
from tests.planted import planted
from wmdeploy.benchmarks.bisect.onnx_values import OnnxValues
from wmdeploy.benchmarks.bisect.run import BisectOptions, bisect, examine, recorded_feeds
from wmdeploy.benchmarks.bisect.torch_values import PytorchValues
from wmdeploy.bundle import Bundle, describe_files
from wmdeploy.clips.clip import Clip
from wmdeploy.clips.read import SAMPLE_CLIP
from wmdeploy.errors import (
    BackendError,
    BundleError,
    WmdeployError,
)
from wmdeploy.families import load_model
from wmdeploy.graph_file import WEIGHTS_FILE
from wmdeploy.manifest import Precision, write_manifest

GRAPHS = ("encoder", "prefill", "step", "decoder")


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("layout", ["token", "latent"])
def test_fault_is_found_at_its_node(
    bundles: Bundles, exact: Exact, tmp_path: Path, layout: str, graph: str
) -> None:
    """In random places, of a model with actions."""
    intact = bundles(layout, "fp32", actions=True)
    names = [node.name for node in onnx.load(intact.path / f"{graph}.onnx").graph.node]
    order = np.random.default_rng([len(layout), len(graph)]).permutation(names)
    found = []
    for name in order:

        def fault(model: onnx.ModelProto, name: str = name) -> None:
            if not spoil(model, node_of(model, name)):
                raise LookupError

        try:
            wrong = planted(intact, graph, tmp_path / name, fault)
        except LookupError:
            continue
        findings = examined(intact, wrong, graph, exact)
        assert findings.culprit is not None, name
        culprit = findings.nodes[findings.culprit]
        assert name in culprit.nodes and findings.faults == [culprit], name
        found.append(name)
        if len(found) == 3:
            break
    assert len(found) == 3


@pytest.mark.parametrize(
    ("layout", "precision", "actions"),
    [("token", "fp32", True), ("latent", "fp16", False)],
)
def test_intact_bundle_has_no_fault(
    bundles: Bundles, layout: str, precision: Precision, actions: bool
) -> None:
    bundle = bundles(layout, precision, actions)
    options = BisectOptions(bundle=bundle.path, clip=SAMPLE_CLIP, tolerance=TOLERANCES[precision])
    progress: list[tuple[str, int, int]] = []

    def note(task: str, done: int, total: int, detail: str = "") -> None:
        progress.append((task, done, total))

    found = list(bisect(options, note))
    assert [f.graph for f in found] == list(GRAPHS)
    for findings in found:
        assert findings.culprit is None and not findings.faults and not findings.warnings
        assert len(findings.nodes) > 40
        # a node alone is much more exact than the whole, or float16 would hide faults
        assert max(node.own or 0 for node in findings.nodes) < findings.tolerance / 10
        assert all(node.own is not None for node in findings.nodes)
    assert [task for task, done, _ in progress if done == 0 and task != "load"][::2] == list(GRAPHS)
    assert progress[-1] == ("decoder", len(found[-1].nodes), len(found[-1].nodes))


def test_names_are_of_the_source_model(bundles: Bundles, exact: Exact) -> None:
    intact = bundles(*ACTED)
    nodes = {n.name: n for n in examined(intact, intact, "step", exact).nodes}
    linear = nodes["linear_1"]
    assert linear.module == "temporal_model.layers.0.self_attention.k_proj"
    assert linear.operation == "linear" and linear.ops == ("MatMul", "Add")
    assert nodes["next_token"].module == "GraphStep.outward"
    model = load_model(intact.checked_model())
    known = {name for name, _ in model.named_modules()}
    assert {n.module for n in nodes.values()} - known == {"GraphStep", "GraphStep.outward"}


def test_fault_in_float16_is_told_from_its_rounding(
    bundles: Bundles, exact: Exact, tmp_path: Path
) -> None:
    intact = bundles("latent", "fp16")
    wrong = planted(intact, "decoder", tmp_path / "b", lambda m: spoil(m, maker(m, "conv2d_13")))
    findings = examined(intact, wrong, "decoder", exact)
    assert [node.name for node in findings.faults] == ["conv2d_13"]
    assert findings.culprit is not None
    assert findings.nodes[findings.culprit].module == "vqvae.decoder.decoder.3.0.conv1"


def test_fault_that_no_output_shows_is_found(
    bundles: Bundles, exact: Exact, tmp_path: Path
) -> None:
    """A scaled convolution before a norm: the frame is the same, the graph is not the model's."""
    intact = bundles(*ACTED)
    wrong = planted(intact, "decoder", tmp_path / "b", lambda m: spoil(m, maker(m, "conv2d_5")))
    findings = examined(intact, wrong, "decoder", exact)
    assert findings.culprit is not None and findings.nodes[findings.culprit].name == "conv2d_5"
    after = findings.nodes[findings.culprit + 1]
    assert after.ops == ("GroupNormalization",) and after.accumulated < findings.tolerance


def test_node_that_does_not_run_is_the_culprit(
    bundles: Bundles, exact: Exact, tmp_path: Path
) -> None:
    def fault(model: onnx.ModelProto) -> None:
        perm = next(a for a in node_of(model, "node_permute_1").attribute if a.name == "perm")
        perm.ints[:] = [0, 2, 1, 3]

    intact = bundles(*ACTED)
    findings = examined(intact, planted(intact, "decoder", tmp_path / "b", fault), "decoder", exact)
    assert findings.culprit is not None
    culprit = findings.nodes[findings.culprit]
    assert culprit.nodes == ("node_permute_1",) and culprit.accumulated == math.inf
    before = findings.nodes[findings.culprit - 1]
    assert before.accumulated < findings.tolerance


def test_bad_input_is_refused(bundles: Bundles, tmp_path: Path) -> None:
    bundle = bundles(*ACTED)
    path = bundle.path

    def refused(kind: type[WmdeployError], words: str, **options: Any) -> None:
        chosen = dataclasses.replace(BisectOptions(bundle=path, clip=SAMPLE_CLIP), **options)
        with pytest.raises(kind, match=words) as caught:
            next(bisect(chosen))
        assert "\n" not in str(caught.value)

    for tolerance in (0.0, -1.0, math.nan, math.inf):
        refused(WmdeployError, "expected a number above 0", tolerance=tolerance)
    refused(BackendError, "got 'x', expected one of ort-cpu", backend="x")
    refused(BackendError, "shows no values inside an ONNX graph", backend="eager")
    refused(BackendError, "shows no values inside an ONNX graph", backend="tensorrt")
    refused(BundleError, 'no graph "x"; it has encoder', graphs=("x",))
    if not torch.cuda.is_available():
        refused(BackendError, "ort-cuda", backend="ort-cuda")
    slim, manifest = tmp_path / "slim", bundle.manifest
    shutil.copytree(path, slim, ignore=shutil.ignore_patterns("model"))
    write_manifest(dataclasses.replace(manifest, files=describe_files(slim)), slim)
    refused(BundleError, "carries no PyTorch model", bundle=slim)
    shutil.copytree(path, tmp_path / "cut")
    with (tmp_path / "cut" / WEIGHTS_FILE).open("r+b") as file:
        file.write(b"wrong")
    refused(BundleError, "the file was altered", bundle=tmp_path / "cut", graphs=("decoder",))
    renamed = planted(
        bundle, "decoder", tmp_path / "renamed",
        lambda m: setattr(m.graph.output[0], "name", "round_1"),
    )  # fmt: skip
    refused(BundleError, "has other tensors", bundle=renamed.path, graphs=("decoder",))
    doubled = planted(
        bundles(*ACTED),
        "decoder",
        tmp_path / "doubled",
        lambda m: m.graph.node.append(m.graph.node[0]),
    )
    refused(BundleError, "not a graph as exports", bundle=doubled.path, graphs=("decoder",))


def test_bisect_counts_a_tie_and_finds_no_culprit(
    tie_bundle: Bundle, tied: Tied, pictures: np.ndarray
) -> None:
    exact = PytorchValues(tied.model, tie_bundle.manifest.recipe, "encoder")
    feeds = recorded_feeds(tied.model, tie_bundle, Clip(pictures, None, "pictures"))
    tested = OnnxValues(tie_bundle, "encoder", "ort-cpu", exact.operations)
    found = examine(exact, tested, feeds["encoder"], 1e-3)
    assert found.culprit is None
    assert found.codes and (found.codes.tied, found.codes.wrong) == (1, 0)
    node = next(node for node in found.nodes if node.operation == "argmin")
    assert node.accumulated == 0
