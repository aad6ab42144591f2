"""Bisect: planted faults are found at their node, and intact bundles have none."""

import dataclasses
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from tests.conftest import Bundles
from wmdeploy.benchmarks.bisect import node_errors
from wmdeploy.benchmarks.bisect.node_errors import error
from wmdeploy.benchmarks.bisect.onnx_values import OnnxValues
from wmdeploy.benchmarks.bisect.run import BisectOptions, Findings, bisect, examine
from wmdeploy.benchmarks.bisect.torch_values import Operation, PytorchValues
from wmdeploy.bundle import Bundle, describe_files
from wmdeploy.cli import main
from wmdeploy.clips.read import SAMPLE_CLIP
from wmdeploy.errors import BackendError, BundleError, ExportError, WmdeployError
from wmdeploy.families import GRAPHS, Case
from wmdeploy.manifest import DType, Layout, Precision, write_manifest
from wmdeploy.models.checkpoint import load_model
from wmdeploy.models.expected import world_model_cases

Exact = Callable[[Bundle, str], tuple[PytorchValues, Case]]
SHAPE = (6, 32, 32, 3)  # of a clip
ACTED: tuple[Layout, Precision, bool] = ("token", "fp32", True)  # layout, precision, actions
# micro is not trained: in float16 its rounding alone adds up to 4e-2
TOLERANCES: dict[Precision, float] = {"fp32": 1e-3, "fp16": 6e-2}


@pytest.fixture(scope="module")
def exact() -> Exact:
    """PyTorch's side of a graph, which no fault in a file changes, made once."""
    made: dict[tuple[Path, str], tuple[PytorchValues, Case]] = {}

    def get(bundle: Bundle, graph: str) -> tuple[PytorchValues, Case]:
        key = bundle.path, graph
        if key not in made:
            recipe = bundle.manifest.recipe
            model = load_model(bundle.checked_model())
            frames = torch.from_numpy(np.random.default_rng(0).integers(0, 256, SHAPE, np.uint8))
            acted = torch.arange(6) % 3 if model.config.temporal.num_actions else None
            dtype: DType = "float32" if recipe.precision == "fp32" else "float16"
            cases = world_model_cases(model, recipe.layout, dtype, frames, acted)
            made[key] = PytorchValues(model, recipe, graph), cases[graph]
        return made[key]

    return get


def planted(
    bundle: Bundle, graph: str, target: Path, fault: Callable[[onnx.ModelProto], object]
) -> Bundle:
    """A copy with a fault in a graph, and hashes that fit."""
    shutil.copytree(bundle.path, target)
    path = target / f"{graph}.onnx"
    model = onnx.load(path)
    fault(model)
    path.with_name(f"{path.name}.data").unlink()
    onnx.save(model, path, save_as_external_data=True, location=f"{path.name}.data")
    write_manifest(dataclasses.replace(bundle.manifest, files=describe_files(target)), target)
    return Bundle.open(target)


def examined(intact: Bundle, bundle: Bundle, graph: str, exact: Exact) -> Findings:
    pytorch, case = exact(intact, graph)
    tested = OnnxValues(bundle, graph, "ort-cpu", pytorch.operations)
    return examine(pytorch, tested, case, TOLERANCES[bundle.manifest.recipe.precision])


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


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("layout", ["token", "latent"])
def test_fault_is_found_at_its_node(
    bundles: Bundles, exact: Exact, tmp_path: Path, layout: Layout, graph: str
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
    bundles: Bundles, layout: Layout, precision: Precision, actions: bool
) -> None:
    bundle = bundles(layout, precision, actions)
    options = BisectOptions(bundle.path, SAMPLE_CLIP, tolerance=TOLERANCES[precision])
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


def test_portions_change_no_error(
    bundles: Bundles, exact: Exact, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Codes are chosen in one portion and looked up in another."""
    intact = bundles(*ACTED)
    whole = examined(intact, intact, "encoder", exact)
    monkeypatch.setattr(node_errors, "BYTES_AT_ONCE", 1e5)
    pytorch, case = exact(intact, "encoder")
    tested = OnnxValues(intact, "encoder", "ort-cpu", pytorch.operations)
    calls, run = [], tested.run

    def counted(feeds: dict[str, torch.Tensor], names: list[str]) -> dict[str, torch.Tensor]:
        calls.append(len(names))
        return run(feeds, names)

    monkeypatch.setattr(tested, "run", counted)
    parts = examine(pytorch, tested, case, 1e-3)
    assert len(calls) > 5 and sum(calls) == len(whole.nodes)
    for one, other in zip(whole.nodes, parts.nodes, strict=True):
        assert one.accumulated == pytest.approx(other.accumulated, abs=1e-5)


def test_names_of_another_exporter_are_believed_if_their_metadata_agrees(
    bundles: Bundles, exact: Exact, tmp_path: Path
) -> None:
    def fault(model: onnx.ModelProto) -> None:
        del node_of(model, "node_silu_2").metadata_props[:]
        moved = node_of(model, "node_silu_4")
        scopes = next(e for e in moved.metadata_props if e.key.endswith("name_scopes"))
        scopes.value = scopes.value.replace("decoder.3.0", "decoder.1.0")

    bundle = planted(bundles(*ACTED), "decoder", tmp_path / "b", fault)
    operations = exact(bundles(*ACTED), "decoder")[0].operations
    trusted = OnnxValues(bundle, "decoder", "ort-cpu", operations)
    careful = OnnxValues(bundle, "decoder", "ort-cpu", operations, distrust=True)
    gone = {row.name for row in trusted.rows} - {row.name for row in careful.rows}
    assert gone == {"silu_2", "silu_4"}
    after = next(row for row in careful.rows if row.name == "conv2d_8")
    assert [node.op_type for node in after.nodes] == ["Sigmoid", "Mul", "Conv"]
    recipe = dataclasses.replace(bundle.manifest.recipe, tools={"torch": "2.0"})
    write_manifest(dataclasses.replace(bundle.manifest, recipe=recipe), bundle.path)
    (findings,) = bisect(BisectOptions(bundle.path, SAMPLE_CLIP, graphs=("decoder",)))
    assert findings.culprit is None and len(findings.nodes) == len(careful.rows)
    assert "exported with torch 2.0, here is" in findings.warnings[0]


def test_trace_that_is_not_the_module_is_refused(bundles: Bundles, exact: Exact) -> None:
    pytorch, case = exact(bundles(*ACTED), "step")
    outputs = pytorch.run(case.feeds, lambda operation, value, given: value)
    pytorch.check(case.feeds, outputs)
    with pytest.raises(ExportError, match="trace gives another hidden than the module"):
        pytorch.check(case.feeds, outputs | {"hidden": outputs["hidden"] * 1.01})


def test_choices_are_judged_by_what_they_cost() -> None:
    def of(kind: str) -> Operation:
        return Operation("x", kind, f"aten.{kind}.default", "", "")

    distances = torch.tensor([[4.0, 1.0, 1.001, -8.0 + 16]])
    best = torch.tensor([1])
    cost = {i: error(of("argmin"), torch.tensor([i]), best, (distances, -1)) for i in range(4)}
    assert cost[1] == 0 and cost[2] == pytest.approx(0.001 / 8, rel=1e-3)
    assert cost[0] == pytest.approx(3 / 8) and cost[3] == pytest.approx(7 / 8)
    assert error(of("argmin"), torch.tensor([4]), best, (distances, -1)) == math.inf
    half = torch.tensor([0.499, 100.0])
    up, down = torch.tensor([1.0, 100.0]), torch.tensor([0.0, 100.0])
    assert error(of("round"), up, down, (half,)) == pytest.approx(1e-5, rel=1e-3)
    assert error(of("round"), up + 1, down, (half,)) == pytest.approx(0.01001, rel=1e-3)
    values = torch.tensor([1.0, -math.inf, 2.0])
    assert error(of("add"), values, values, ()) == 0
    assert error(of("add"), torch.tensor([1.0, -math.inf, 2.5]), values, ()) == 0.25
    assert error(of("add"), torch.tensor([math.nan, -math.inf, 2.0]), values, ()) == math.inf
    assert error(of("add"), torch.tensor([1.0, 0.0, 2.0]), values, ()) == math.inf
    assert error(of("add"), values[:2], values, ()) == math.inf
    assert error(of("eq"), torch.tensor([True]), torch.tensor([False]), ()) == 1


def test_command_line_marks_the_culprit(
    bundles: Bundles, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = planted(
        bundles(*ACTED), "decoder", tmp_path / "b",
        lambda m: spoil(m, maker(m, "convolution")),
    )  # fmt: skip
    report = tmp_path / "errors.json"
    arguments = ["bisect", str(bundle.path), "--graph", "decoder", "--json", str(report)]
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 1
    said = capsys.readouterr().out
    assert "the first node past 0.001 is convolution (ConvTranspose of vqvae.decoder" in said
    assert "the fault is in this node" in said
    (graph,) = json.loads(report.read_text())["graphs"]
    assert graph["nodes"][graph["culprit"]]["name"] == "convolution"
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--tolerance", "0.5"])
    assert ended.value.code == 0
    assert "decoder: no node is past 0.5; the largest error is" in capsys.readouterr().out


def test_command_line_tells_rounding_that_adds_up(
    bundles: Bundles, capsys: pytest.CaptureFixture[str]
) -> None:
    path = bundles("latent", "fp16").path
    with pytest.raises(SystemExit) as ended:
        main(["bisect", str(path), "--graph", "decoder", "--tolerance", "5e-3"])
    assert ended.value.code == 1
    said = capsys.readouterr().out
    assert "errors before it add up, the largest of one node" in said
    assert "the fault is in" not in said


def test_bad_input_is_refused(bundles: Bundles, tmp_path: Path) -> None:
    bundle = bundles(*ACTED)
    path = bundle.path

    def refused(kind: type[WmdeployError], words: str, **options: Any) -> None:
        chosen = dataclasses.replace(BisectOptions(path, SAMPLE_CLIP), **options)
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
    with (tmp_path / "cut" / "decoder.onnx.data").open("r+b") as file:
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
