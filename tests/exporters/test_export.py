import dataclasses
import os
import resource
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto
from torch import Tensor

from tests.cli.test_cli import ROOT
from tests.conftest import MICRO, Bundles
from wmdeploy.bundle import Bundle
from wmdeploy.clips.read import SAMPLE_CLIP
from wmdeploy.clips.write import write_npz
from wmdeploy.errors import ClipError, ExportError, WmdeployError
from wmdeploy.exporters.export import ExportOptions, export_bundle
from wmdeploy.exporters.to_onnx import write_onnx
from wmdeploy.exporters.verify import compare
from wmdeploy.families import Graph, save_model
from wmdeploy.families.reference.graphs import Feedback, GraphStep, deployment
from wmdeploy.families.reference.world_model import WorldModel
from wmdeploy.programs.contract import TensorSpec
from wmdeploy.programs.modules import module_backend
from wmdeploy.programs.record import recording
from wmdeploy.programs.session import Session

VARIANTS = [("token", "fp32"), ("latent", "fp32"), ("token", "fp16"), ("latent", "fp16")]


def options(source: str | Path, output: Path, **changes: object) -> ExportOptions:
    return ExportOptions(source=str(source), output=output, clip=SAMPLE_CLIP, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(("layout", "precision"), VARIANTS)
def test_every_output_is_verified_and_within_tolerance(
    bundles: Bundles, layout: str, precision: str
) -> None:
    bundle = bundles(layout, precision)
    for name, graph in bundle.manifest.graphs.items():
        assert set(graph.parity) == {spec.name for spec in graph.outputs}, name
        for parity in graph.parity.values():
            if parity.agreement is None:
                assert parity.relative <= parity.tolerance
            else:
                assert parity.agreement >= parity.tolerance
        assert graph.flops > 0 and graph.weight_bytes > 0


@pytest.mark.parametrize(("layout", "precision"), VARIANTS)
def test_norms_and_attention_are_single_ops(bundles: Bundles, layout: str, precision: str) -> None:
    bundle = bundles(layout, precision)
    ops = {
        name: [node.op_type for node in onnx.load(bundle.path / graph.file).graph.node]
        for name, graph in bundle.manifest.graphs.items()
    }
    assert ops["step"].count("Attention") == MICRO.temporal.layers
    assert ops["step"].count("LayerNormalization") == 2 * MICRO.temporal.layers + 1
    assert ops["decoder"].count("GroupNormalization") > 0
    assert ops["decoder"].count("Attention") == 2
    forbidden = {"ReduceMean", "Softmax", "InstanceNormalization", "ScatterND", "ScatterElements"}
    assert not forbidden & {op for names in ops.values() for op in names}


def test_fp16_graphs_hold_half_weights_and_float_islands(bundles: Bundles) -> None:
    bundle = bundles("token", "fp16")
    assert bundle.manifest.graphs["step"].inputs[0].dtype == "float16"
    model = onnx.load(bundle.path / "encoder.onnx")
    kinds = {t.name: t.data_type for t in model.graph.initializer if len(t.dims) >= 2}
    floats = [name for name, kind in kinds.items() if kind == TensorProto.FLOAT]
    halves = [name for name, kind in kinds.items() if kind == TensorProto.FLOAT16]
    assert len(halves) > 10 and 1 <= len(floats) <= 3  # the codebook, and its transpose


def test_fp16_softmax_and_norms_compute_in_float32(bundles: Bundles) -> None:
    bundle = bundles("token", "fp16")
    for graph in bundle.manifest.graphs.values():
        for node in onnx.load(bundle.path / graph.file, load_external_data=False).graph.node:
            values = {a.name: a.i for a in node.attribute}
            if node.op_type == "Attention":
                assert values["softmax_precision"] == TensorProto.FLOAT
            if node.op_type in ("LayerNormalization", "GroupNormalization"):
                assert values.get("stash_type", TensorProto.FLOAT) == TensorProto.FLOAT


@pytest.mark.slow
def test_same_recipe_is_not_made_again(micro: WorldModel, tmp_path: Path) -> None:
    save_model(micro, tmp_path / "model")
    first, made = export_bundle(options(tmp_path / "model", tmp_path / "b"))
    stamp = os.stat(tmp_path / "b" / "manifest.json").st_mtime_ns
    again, made_again = export_bundle(options(tmp_path / "model", tmp_path / "b"))
    assert made and not made_again and again.manifest == first.manifest
    assert os.stat(tmp_path / "b" / "manifest.json").st_mtime_ns == stamp
    (tmp_path / "b" / "step.onnx").write_bytes(b"damaged")
    _, repaired = export_bundle(options(tmp_path / "model", tmp_path / "b"))
    assert repaired
    Bundle.open(tmp_path / "b").verify()


@pytest.mark.slow
def test_slim_bundle_says_what_it_lacks(micro: WorldModel, tmp_path: Path) -> None:
    from wmdeploy.engines.base import load_backend

    save_model(micro, tmp_path / "model")
    bundle, _ = export_bundle(options(tmp_path / "model", tmp_path / "b", slim=True))
    assert not (tmp_path / "b" / "model").exists()
    for backend in ("eager", "compile"):
        with pytest.raises(WmdeployError, match="exported slim.*export the model again, not slim"):
            load_backend(backend, bundle)
    assert load_backend("ort-cpu", bundle).name == "ort-cpu"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"opset": 17}, "opset: got 17, expected one of 21"),
        ({"opset": 21, "precision": "fp16"}, "opset: got 21 with fp16, expected 23"),
        ({"max_batch": 0}, "max_batch: got 0, expected 1 to"),
    ],
)
def test_option_out_of_range_is_refused(tmp_path: Path, changes: dict, message: str) -> None:
    with pytest.raises(ExportError, match=message):
        export_bundle(options("tiny", tmp_path / "b", **changes))
    assert not list(tmp_path.iterdir())


class WrongStep(torch.nn.Module):
    """A step whose hidden state is off by a hundredth."""

    def __init__(self, right: torch.nn.Module) -> None:
        super().__init__()
        self.right = right

    def forward(
        self, token: Tensor, position: Tensor, keys: Tensor, values: Tensor
    ) -> tuple[Tensor, ...]:
        hidden, *others = self.right(token, position, keys, values)
        return hidden * 1.01, *others


def test_graph_that_is_not_its_module_is_refused(
    micro: WorldModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an exporter with a fault would write it: PyTorch answers otherwise on the same feeds."""
    from wmdeploy.exporters import to_onnx

    right = to_onnx.translate

    def translate(graph: Graph, *given: Any, **more: Any) -> Any:
        if isinstance(graph.module, GraphStep):
            graph = dataclasses.replace(graph, module=WrongStep(graph.module))
        return right(graph, *given, **more)

    monkeypatch.setattr(to_onnx, "translate", translate)
    save_model(micro, tmp_path / "model")
    with pytest.raises(ExportError, match='step: output "hidden" differs from PyTorch by'):
        export_bundle(options(tmp_path / "model", tmp_path / "b"))
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def wrong_bias(patch: pytest.MonkeyPatch) -> None:
    """Next tokens that are projected wrongly: the rewriting of the layout `token` is not exact."""
    right = Feedback.__init__

    def wrong(self: Feedback, model: WorldModel) -> None:
        right(self, model)
        self.bias += 0.5

    patch.setattr(Feedback, "__init__", wrong)


def wrong_position(patch: pytest.MonkeyPatch) -> None:
    """A step that takes each frame for an earlier one, where the prefill does not."""
    right = GraphStep.forward

    def wrong(
        self: GraphStep, token: Tensor, position: Tensor, keys: Tensor, values: Tensor
    ) -> tuple[Tensor, ...]:
        return right(self, token, (position - 1).clamp_min(0), keys, values)

    patch.setattr(GraphStep, "forward", wrong)


@pytest.mark.parametrize("rewrite", [wrong_bias, wrong_position])
def test_rewriting_that_is_not_exact_is_refused(
    micro: WorldModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    rewrite: Callable[[pytest.MonkeyPatch], None],
) -> None:
    """Each ONNX graph is what its module is, and the modules are not the model."""
    rewrite(monkeypatch)
    save_model(micro, tmp_path / "model")
    with pytest.raises(ExportError, match=r"frame \d of a rollout: it is .* dB from"):
        export_bundle(options(tmp_path / "model", tmp_path / "b"))
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_full_disk_leaves_no_bundle(micro: WorldModel, tmp_path: Path) -> None:
    save_model(micro, tmp_path / "model")
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limit[1]))
    try:
        with pytest.raises(WmdeployError, match="cannot be written"):
            export_bundle(options(tmp_path / "model", tmp_path / "b"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_clip_that_is_too_short_is_refused(tmp_path: Path, frames: np.ndarray) -> None:
    write_npz(tmp_path / "one.npz", frames[:1])
    with pytest.raises(ClipError, match="one.npz"):
        export_bundle(
            ExportOptions(source="tiny", output=tmp_path / "b", clip=tmp_path / "one.npz")
        )


def test_signature_that_is_not_the_contract_is_refused(tmp_path: Path) -> None:
    wrong = Graph(
        torch.nn.Linear(3, 4),
        (TensorSpec("x", "float32", ("B", 3)),),
        (TensorSpec("y", "float32", ("B", 5)),),
    )
    with pytest.raises(ExportError, match="expected .*y: float32 .*5"):
        write_onnx(wrong, tmp_path / "wrong.onnx", opset=23, max_batch=4)


@pytest.mark.parametrize("layout", ["token", "latent"])
@pytest.mark.parametrize("kind", ["black", "white", "noise", "saturated"])
def test_float16_stays_finite_on_frames_that_no_clip_has(
    micro: WorldModel, layout: str, kind: str
) -> None:
    """In PyTorch's own float16: ONNX Runtime's CPU kernels compute in float32 and could hide it."""
    noise = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3))
    frames = {
        "black": np.zeros_like(noise),
        "white": np.full_like(noise, 255),
        "noise": noise,
        "saturated": (noise > 127) * 255,
    }[kind]
    seen: set[str] = set()

    def tell(
        name: str, feeds: Mapping[str, torch.Tensor], outputs: Mapping[str, torch.Tensor]
    ) -> None:
        seen.add(name)
        for output, value in outputs.items():
            assert value.isfinite().all(), f"{name}.{output}"

    deployed = deployment(micro, layout, "fp16")
    session = Session(recording(module_backend(deployed, name="modules", precision="fp16"), tell))
    session.reset(frames.astype(np.uint8))
    imagined = [session.step() for _ in range(2 * MICRO.temporal.context)]
    assert seen == set(deployed.graphs) and len({frame.tobytes() for frame in imagined}) > 1


def test_compare_measures_what_it_says() -> None:
    parity = compare(np.array([1.0, 2.5]), np.array([1.0, 2.0]), 0.1)
    assert (parity.max_abs, parity.mean_abs, parity.relative) == (0.5, 0.25, 0.25)
    frames = np.zeros((2, 2, 2, 3), np.uint8)
    other = frames.copy()
    other[1, 0] = 2  # half of the second frame's pixels
    assert compare(other, frames, 0.1).relative == pytest.approx(2**0.5 / 255)
    codes = compare(np.array([1, 2, 3, 4]), np.array([1, 2, 3, 5]), 0.9)
    assert codes.agreement == 0.75


def test_files_hold_no_path_of_the_machine(bundles: Bundles) -> None:
    for graph in bundles().manifest.graphs:
        content = (bundles().path / f"{graph}.onnx").read_bytes()
        assert str(ROOT).encode() not in content and b"site-packages" not in content
        assert b"pkg.torch.onnx.name_scopes" in content  # names of modules stay
