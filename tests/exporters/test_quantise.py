"""Weights of linear layers as integers: how close they are, which layers, and what fails."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tests.cli.test_cli import wmdeploy
from tests.conftest import MICRO, Bundles, quantise_micro
from wmdeploy.benchmarks.bench.options import BenchOptions
from wmdeploy.benchmarks.bench.run import bench
from wmdeploy.benchmarks.environment import Effort
from wmdeploy.bundle import Bundle
from wmdeploy.clips.read import SAMPLE_CLIP
from wmdeploy.engines.base import BACKENDS, load_backend
from wmdeploy.errors import BundleError, ExportError, MissingError
from wmdeploy.exporters import quantise as module
from wmdeploy.exporters.export import ExportOptions, export_bundle
from wmdeploy.exporters.quantise import BLOCK, LARGEST, find_layers, quantise
from wmdeploy.families import save_model
from wmdeploy.families.reference.world_model import WorldModel
from wmdeploy.manifest import MANIFEST_FILE
from wmdeploy.programs.session import Session


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("seed", range(8))
def test_each_weight_is_off_by_half_its_scale_at_most(seed: int, dtype: type) -> None:
    random = np.random.default_rng(seed)
    size = 10.0 ** random.uniform(-9, 4, (4, 1, 5))  # of each block, down to nothing in float16
    values = random.standard_normal((4, BLOCK, 5)) * size
    weight: np.ndarray = values.astype(dtype).reshape(-1, 5)
    integers, scales = quantise(weight)
    assert (integers.dtype, scales.dtype) == (np.int8, dtype)
    assert scales.shape == (4, 5) and (scales > 0).all()
    assert abs(integers.astype(int)).max() <= LARGEST
    each = scales.astype(np.float64).repeat(BLOCK, 0)
    error = np.abs(integers * each - weight.astype(np.float64))
    assert (error <= each * 0.5001).all()


def test_zeros_stay_zeros_and_the_largest_is_kept() -> None:
    weight = np.zeros((2 * BLOCK, 1), np.float32)
    weight[BLOCK + 3] = -2.54
    integers, scales = quantise(weight)
    assert integers.sum() == integers[BLOCK + 3, 0] == -LARGEST
    np.testing.assert_allclose(scales[:, 0], [1.0, 0.02], rtol=1e-6)


def initializers(bundle: Bundle, graph: str) -> dict[str, np.ndarray]:
    model = onnx.load(bundle.path / f"{graph}.onnx")
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def test_linear_layers_alone_are_integers(bundles: Bundles) -> None:
    bundle = bundles(weights="int8")
    assert bundle.manifest.recipe.weights == "int8" and bundle.manifest.other_layout is None
    integers = {
        name: [n for n, a in initializers(bundle, name).items() if a.dtype == np.int8]
        for name in bundle.manifest.graphs
    }
    assert integers["encoder"] == integers["decoder"] == ["project.weight/integers"]
    assert len(integers["step"]) == len(integers["prefill"]) == 2 * MICRO.temporal.layers
    encoder = onnx.load(bundle.path / "encoder.onnx")
    floats = {t.name for t in encoder.graph.initializer if t.data_type == onnx.TensorProto.FLOAT}
    assert "vq.embedding.weight" in floats  # and its transpose, which decides codes
    assert not list(find_layers(encoder))


def test_bundle_is_smaller_and_graphs_share_their_integers(bundles: Bundles) -> None:
    small, large = bundles(weights="int8"), bundles()
    bytes_of = {
        b.path: {n: g.weight_bytes for n, g in b.manifest.graphs.items()} for b in (small, large)
    }
    assert all(bytes_of[small.path][n] < bytes_of[large.path][n] for n in bytes_of[large.path])
    files = [b.manifest.files["weights.data"].bytes for b in (small, large)]
    assert files[0] < files[1]
    places = [
        {t.name: {e.key: e.value for e in t.external_data}["offset"] for t in graph.initializer
         if t.name.endswith("/integers") and t.external_data}
        for graph in (
            onnx.load(small.path / f"{name}.onnx", load_external_data=False).graph
            for name in ("prefill", "step")
        )
    ]  # fmt: skip
    assert set(places[0].values()) == set(places[1].values()) != set()


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_rollout_is_close_to_the_baselines(
    bundles: Bundles, frames: np.ndarray, precision: str
) -> None:
    try:
        integer = load_backend("ort-cpu", bundles(precision=precision, weights="int8"))
    except MissingError as error:
        pytest.skip(str(error))
    assert (integer.weights, integer.precision) == ("int8", precision)
    sides = [Session(integer), Session(load_backend("eager", bundles()))]
    for side in sides:
        side.reset(frames[:4])
    imagined = [np.concatenate([side.step() for _ in range(12)]).astype(float) for side in sides]
    assert 0 < np.square(imagined[0] - imagined[1]).mean() < 10  # 38 dB, of untrained weights


@pytest.mark.parametrize("name", [name for name, entry in BACKENDS.items() if not entry.integers])
def test_backends_without_integers_refuse(bundles: Bundles, name: str) -> None:
    with pytest.raises(MissingError, match=f"{name}: does not run int8 weights.*ort-cpu"):
        load_backend(name, bundles(weights="int8"))


def test_manifest_of_other_weights_is_refused(bundles: Bundles, tmp_path: Path) -> None:
    document = json.loads((bundles().path / MANIFEST_FILE).read_text())
    document["recipe"]["weights"] = "int7"
    (tmp_path / MANIFEST_FILE).write_text(json.dumps(document))
    with pytest.raises(BundleError, match="int7.*recipe.weights.*export the model again"):
        Bundle.open(tmp_path)


def order(model: WorldModel, tmp_path: Path, **changes: object) -> ExportOptions:
    save_model(model, tmp_path / "model")
    return dataclasses.replace(
        ExportOptions(
            source=str(tmp_path / "model"), output=tmp_path / "b", clip=SAMPLE_CLIP, weights="int8"
        ),
        **changes,  # type: ignore[arg-type]
    )


def test_nothing_to_gain_is_refused(micro: WorldModel, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="no linear layer has 4,194,304 weights and more"):
        export_bundle(order(micro, tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_unknown_layer_is_refused_with_those_there_are(
    micro: WorldModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quantise_micro(monkeypatch)
    message = "float_layers: got 'head', expected one of layers.0.feedforward.0, .*project"
    with pytest.raises(ExportError, match=message):
        export_bundle(order(micro, tmp_path, float_layers=("head",)))


def test_failed_gate_names_the_layer_and_floats_there_pass(
    micro: WorldModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Large weights of an input that is always zero take the scales of those that count."""
    model = WorldModel(micro.config)
    model.load_state_dict(micro.state_dict())
    model.eval().requires_grad_(False)
    weights = model.state_dict()
    block = "temporal_model.layers.1"
    weights[f"{block}.norm1.weight"][0] = weights[f"{block}.norm1.bias"][0] = 0
    weights[f"{block}.feedforward.0.weight"].mul_(20)[:, 0] = 1e3
    weights[f"{block}.feedforward.3.weight"].mul_(5)  # so that what it says is heard
    quantise_micro(monkeypatch)
    message = r"layers\.1\.feedforward\.0 of \w+ does most harm: alone it changes an output by"
    with pytest.raises(ExportError, match=message):
        export_bundle(order(model, tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    kept = order(model, tmp_path, float_layers=("layers.1.feedforward.0",))
    bundle, _ = export_bundle(kept)
    assert bundle.manifest.recipe.float_layers == ("layers.1.feedforward.0",)


@pytest.mark.slow
def test_tiny_goes_from_export_to_bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for the projections, whose rounding makes much of an untrained decoder's frames."""
    monkeypatch.setattr(module, "LEAST", 2**16)
    tiny = ExportOptions(source="tiny", output=tmp_path / "b", clip=SAMPLE_CLIP, weights="int8")
    bundle, _ = export_bundle(dataclasses.replace(tiny, float_layers=("project",)))
    shown = wmdeploy("inspect", bundle.path)
    assert shown.returncode == 0 and "fp32 with int8 weights" in shown.stdout
    chosen = BenchOptions(
        bundle=bundle.path,
        clips=(SAMPLE_CLIP,),
        backends=("ort-cpu", "compile"),
        horizon=20,
        effort=Effort(runs=2, seconds=0.01),
    )
    rows = bench(chosen).rows
    kinds = {(row.backend, row.precision, row.verdict) for row in rows}
    assert kinds == {
        ("eager", "fp32", "pass"), ("ort-cpu", "int8", "pass"), ("compile", None, "skipped")
    }  # fmt: skip
