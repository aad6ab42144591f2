"""Model families: one object each, and nobody else looks into a model."""

import ast
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.test_imports import FOLDERS, ROOT
from wmdeploy.benchmarks.bench.options import BenchOptions, Effort
from wmdeploy.benchmarks.bench.run import bench
from wmdeploy.bundle import Bundle
from wmdeploy.clips.clip import Clip
from wmdeploy.clips.read import SAMPLE_CLIP, read_clip
from wmdeploy.engines.base import load_backend
from wmdeploy.engines.rollout import rollout
from wmdeploy.errors import BundleError, FamilyError, WmdeployError
from wmdeploy.exporters.export import ExportOptions, export_bundle
from wmdeploy.families import (
    family_names,
    family_of,
    find_family,
    load_family,
    load_model,
    save_model,
)
from wmdeploy.families.find import VARIABLE
from wmdeploy.families.reference.family import reference_model

SOURCE = "mean-pool-16"
GRAPHS = ["levels", "add", "pool", "draw"]  # of the second family
# The reference family: its modules, and what is of it alone.
REFERENCE = ("families/reference", "training", "quality")
pytestmark = pytest.mark.usefixtures("plugins")
# Studies of the reference family's own choices: they take its modules apart.
STUDIES = ROOT / "benchmarks" / "studies"
INSIDE = {"WorldModel", "deployment", "baseline_deployment"}


def options(tmp_path: Path) -> ExportOptions:
    return ExportOptions(
        source=SOURCE, family="mean-pool", output=tmp_path / "bundle", clip=SAMPLE_CLIP
    )


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return export_bundle(options(tmp_path))[0]


def imported(path: Path) -> set[str]:
    """What a module imports from the reference family's modules, by name."""
    nodes = [node for node in ast.walk(ast.parse(path.read_text()))]
    return {
        alias.name
        for node in nodes
        if isinstance(node, ast.ImportFrom)
        and (node.module or "").startswith("wmdeploy.families.reference")
        for alias in node.names
    }


def test_no_module_outside_the_family_names_its_model() -> None:
    ours = [ROOT / "wmdeploy" / name for name in REFERENCE]
    seen = 0
    for folder in ("wmdeploy", *FOLDERS):
        for path in (ROOT / folder).rglob("*.py"):
            if not any(path.is_relative_to(place) for place in ours):
                assert not imported(path) & INSIDE, path
                seen += 1
    assert seen > 80
    assert imported(ROOT / "wmdeploy" / "quality" / "measure.py") & INSIDE  # it would be seen


def test_source_tells_its_family(micro_model: Path, tmp_path: Path) -> None:
    assert find_family(str(micro_model)).name == find_family("tiny").name == "vqvae-transformer"
    assert family_of(load_model(micro_model)).name == "vqvae-transformer"
    save_model(load_model(SOURCE, family="mean-pool"), tmp_path / "model")
    assert find_family(str(tmp_path / "model")).name == "mean-pool"
    assert family_of(load_model(tmp_path / "model")).name == "mean-pool"
    with pytest.raises(FamilyError, match="got tokens, and .* is a model of the family mean-pool"):
        find_family(str(tmp_path / "model"), "tokens")
    for name in family_names():
        assert load_family(name).name == name
    with pytest.raises(FamilyError, match="model family: got 'mamba', expected one of vqvae-tran"):
        load_family("mamba")


def test_bundle_of_a_family_that_is_not_there_runs_without_it(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(VARIABLE)
    with pytest.raises(FamilyError, match="got 'mean-pool', expected one of vqvae-transformer"):
        load_backend("eager", bundle)
    clip = read_clip(SAMPLE_CLIP, size=16, count=4)
    assert len(list(rollout(load_backend("ort-cpu", bundle), clip, 4, 2))) == 2


def test_model_that_is_not_the_manifests_is_refused(bundle: Bundle) -> None:
    bundle.manifest.model["context"] = 7
    with pytest.raises(BundleError, match="other sizes than the manifest"):
        load_backend("eager", bundle)


def test_second_family_is_exported_and_verified(bundle: Bundle) -> None:
    manifest = bundle.manifest
    assert manifest.family == "mean-pool"
    assert manifest.model == {"size": 16, "context": 6}
    parity = {name: graph.parity for name, graph in manifest.graphs.items()}
    assert list(parity) == GRAPHS
    assert parity["levels"]["codes"].agreement == 1
    assert 0 <= parity["add"]["next_token"].relative < 1e-5
    assert manifest.recipe.layout == "default" and manifest.other_layout is None
    assert not export_bundle(options(bundle.path.parent))[1]


def test_wrong_programs_of_a_second_family_are_found_at_export(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A graph that is what its module is, and not what the model is."""
    from tests.families.mean_pool import Add, MeanPool

    def forgetful(self: Add, token: torch.Tensor, position: torch.Tensor, total: torch.Tensor):  # type: ignore[no-untyped-def]
        return self.model.following(total, position + 1), total + token

    monkeypatch.setattr(Add, "forward", forgetful)
    with pytest.raises(WmdeployError, match=r"frame \d of a rollout: it is .* dB from"):
        export_bundle(options(tmp_path))
    assert MeanPool.family == "mean-pool" and not (tmp_path / "bundle").exists()


def test_second_family_imagines_the_same_on_every_backend(bundle: Bundle) -> None:
    clip = read_clip(SAMPLE_CLIP, size=16, count=8)
    expected = as_written(clip)
    for name in ("eager", "ort-cpu"):
        frames = np.stack(list(rollout(load_backend(name, bundle), clip, 4, 12)))
        assert np.abs(frames.astype(int) - expected).max() <= 1, name


def as_written(clip: Clip) -> np.ndarray:
    """(12, 16, 16, 3) uint8: what the definition of the model says of the first four frames."""
    from tests.families.mean_pool import LEVELS, MeanPool

    model = load_model(SOURCE, family="mean-pool")
    assert isinstance(model, MeanPool)
    tokens = [token / (LEVELS - 1) for token in model.levels(torch.tensor(clip.frames[:4])).round()]
    with torch.inference_mode():
        for _ in range(12):
            mean = torch.stack(tokens[-6:]).mean(0)
            tokens.append(torch.sigmoid(model.mix(mean)))
        frames = model.draw(torch.stack(tokens[4:]))
    return np.asarray(frames.numpy())


@pytest.mark.slow
def test_second_family_is_benched(bundle: Bundle) -> None:
    effort = Effort(runs=3, seconds=0, block_ms=1)
    asked = BenchOptions(
        bundle=bundle.path,
        clips=(SAMPLE_CLIP,),
        backends=("ort-cpu",),
        context=4,
        effort=effort,
        swap=True,
    )
    report = bench(asked)
    assert {row.verdict for row in report.rows} == {"pass"}
    (frame,) = (r for r in report.rows if (r.stage, r.backend) == ("frame", "ort-cpu"))
    assert frame.parity and frame.parity.psnr_db and min(frame.parity.psnr_db.values()) > 60
    assert set(report.substitutions["ort-cpu"]) == set(GRAPHS)


def test_scores_are_of_the_reference_family_alone() -> None:
    with pytest.raises(WmdeployError, match="got one of the family mean-pool, expected vqvae-tran"):
        reference_model(load_model(SOURCE, family="mean-pool"))
