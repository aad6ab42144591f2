"""Every verb on every family that ships, as a user types it."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.families.test_plugins import ran, refused
from wmdeploy.clips.read import SAMPLE_CLIP, read_clip
from wmdeploy.clips.write import write_npz
from wmdeploy.families import load_family, load_model, save_model
from wmdeploy.families.find import SHIPPED

FAMILIES = tuple(name for name in SHIPPED if name != "vqvae-transformer")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    frames = read_clip(SAMPLE_CLIP, size=64).frames
    for number in range(2):
        whole = np.concatenate([frames, frames[::-1]])[:44]
        write_npz(folder / f"{number}.npz", whole, np.arange(len(whole)) % 3)
    return folder


@pytest.mark.parametrize("family", FAMILIES)
def test_every_verb_takes_the_family(family: str, data: Path, tmp_path: Path) -> None:
    bundle, clip = tmp_path / "bundle", data / "0.npz"
    ran("export", "tiny", "--family", family, "-o", bundle, "--clip", clip)
    graphs = json.loads((bundle / "manifest.json").read_text())["graphs"]
    shown = ran("inspect", bundle)
    assert all(graph in shown for graph in graphs)
    for backend in ("ort-cpu", "eager"):
        made = tmp_path / f"{backend}.npz"
        ran("rollout", bundle, clip, "-o", made, "--backend", backend, "--horizon", "6")
    with np.load(tmp_path / "ort-cpu.npz") as ours, np.load(tmp_path / "eager.npz") as theirs:
        assert ours["frames"].shape == theirs["frames"].shape == (6, *ours["frames"].shape[1:])
    report = tmp_path / "bench.json"
    quick = ("--seconds", "0.01", "--horizon", "8")
    ran("bench", bundle, "--backend", "ort-cpu", *quick, "--clip", clip, "--json", report)
    rows = json.loads(report.read_text())["rows"]
    assert {row["verdict"] for row in rows} == {"pass"}
    assert {"frame", "imagine"} <= {row["stage"] for row in rows}
    ran("compare", report, report)
    for graph in graphs:
        assert graph in ran("bisect", bundle, "--graph", graph, "--clip", clip)
    scores = tmp_path / "scores.json"
    ran("evaluate", bundle, "--data", data, "--json", scores)
    assert json.loads(scores.read_text())["groups"][-1]["frames"] == 88


@pytest.mark.parametrize("family", FAMILIES)
def test_plans_are_built_of_every_graph(family: str, data: Path, tmp_path: Path) -> None:
    """TensorRT-RTX takes all float16 graphs; a float16 export passes its own gates."""
    pytest.importorskip("tensorrt_rtx")
    bundle = tmp_path / "bundle"
    half = ("--precision", "fp16", "--clip", data / "0.npz")
    ran("export", "tiny", "--family", family, "-o", bundle, *half)
    ran("build-engine", bundle, "--flavour", "tensorrt-rtx", "--arch", "sm_86")
    manifest = json.loads((bundle / "manifest.json").read_text())
    assert {plan["graph"] for plan in manifest["plans"]} == set(manifest["graphs"])


@pytest.mark.parametrize("family", FAMILIES)
def test_sweep_has_the_layouts_of_the_family(family: str, data: Path, tmp_path: Path) -> None:
    result = tmp_path / "sweep.json"
    ran(
        *("sweep", "tiny", "--family", family, "-o", tmp_path / "sweep", "--precision", "fp32"),
        *("--backend", "ort-cpu", "--seconds", "0.01", "--horizon", "8"),
        *("--clip", data / "0.npz", "--json", result),
    )
    cells = json.loads(result.read_text())["cells"]
    assert {cell["layout"] for cell in cells} == set(load_family(family).layouts)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_of_another_family_is_refused(family: str, tmp_path: Path) -> None:
    other = next(name for name in FAMILIES if name != family)
    save_model(load_model("tiny", family=family), tmp_path / "model")
    line = refused("export", tmp_path / "model", "--family", other, "-o", tmp_path / "x")
    assert f"family: got {other}" in line and f"is a model of the family {family}" in line
    line = refused("milestone", tmp_path / "model", "-o", tmp_path / "m")
    assert f"got one of the family {family}" in line
