"""Families that sample, one of them with float actions: exported, rolled out, benched."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.benchmarks.bench import quick
from tests.families import sampled
from tests.lean.make_bundles import float_clip
from tests.plugins import PRESETS
from wmdeploy.benchmarks.bench.options import BenchOptions, write_clips
from wmdeploy.benchmarks.bisect.run import recorded_feeds
from wmdeploy.bundle import Bundle
from wmdeploy.clips.read import SAMPLE_CLIP, read_clip
from wmdeploy.engines.base import load_backend
from wmdeploy.engines.rollout import rollout
from wmdeploy.errors import ClipError, ExportError
from wmdeploy.exporters.export import ExportOptions, export_bundle
from wmdeploy.families import ModelFacts, load_model
from wmdeploy.programs import record
from wmdeploy.programs.check import find_fault
from wmdeploy.programs.contract import BATCH, TensorSpec
from wmdeploy.programs.record import Case, record_cases

INTEGERS = r"^clip-00000: got actions int64 \(\d+,\), and the model takes 2 floats"


pytestmark = pytest.mark.usefixtures("plugins")


@pytest.fixture(scope="module")
def floats(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return float_clip(tmp_path_factory.mktemp("clips") / "floats.npz")


@pytest.fixture(scope="module")
def recurrent(plugins: None, floats: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return exported("recurrent-like", floats, tmp_path_factory.mktemp("bundles"))


def exported(name: str, clip: Path, folder: Path) -> Bundle:
    options = ExportOptions(source=PRESETS[name], family=name, output=folder / name, clip=clip)
    return export_bundle(options)[0]


def benched(bundle: Bundle, clip: Path) -> None:
    report = quick.run(bundle, "ort-cpu", clips=(clip,))
    assert {row.verdict for row in report.rows} == {"pass"}
    parity = quick.row(report, "ort-cpu", "frame").parity
    assert parity and parity.psnr_db and min(parity.psnr_db.values()) > 60
    variation = parity.outputs["logits"].variation
    assert variation is not None and variation < 1e-5


@pytest.mark.slow
def test_another_reward_than_the_authors_is_found_at_export(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its frames are right, and so is each graph beside its module."""
    forward = sampled.WholeFrame.forward

    def more(self: Any, *feeds: Any) -> Any:
        *others, reward = forward(self, *feeds)
        return *others, reward + 1

    monkeypatch.setattr(sampled.WholeFrame, "forward", more)
    with pytest.raises(ExportError, match='frame 1 of a rollout: the output "reward" differs'):
        exported("sampled", SAMPLE_CLIP, tmp_path)
    assert not (tmp_path / "sampled").exists()


def test_a_graph_that_no_rollout_runs_is_not_exported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or it would be in a bundle, and nobody had compared it."""

    def without(*given: Any) -> dict[str, list[Case]]:
        return record_cases(*given) | {"absorb": []}

    monkeypatch.setattr(record, "record_cases", without)
    with pytest.raises(ExportError, match="no rollout runs the graph absorb"):
        exported("sampled", SAMPLE_CLIP, tmp_path)


@pytest.mark.slow
def test_sampled_tokens_are_benched(tmp_path: Path) -> None:
    benched(exported("sampled", SAMPLE_CLIP, tmp_path), SAMPLE_CLIP)


@pytest.mark.slow
def test_float_actions_are_benched(recurrent: Bundle, floats: Path) -> None:
    benched(recurrent, floats)


def test_float_actions_lead_a_rollout(recurrent: Bundle, floats: Path) -> None:
    assert recurrent.manifest.programs.action_size == 2
    ort, eager = (load_backend(name, recurrent) for name in ("ort-cpu", "eager"))
    clip = read_clip(floats, size=16, count=6)
    assert clip.actions is not None
    frames = np.array(list(rollout(ort, clip, 4, 12)))
    np.testing.assert_array_equal(list(rollout(eager, clip, 4, 12)), frames)
    # past the clip's end its last action is held, and which one that is matters
    held = np.concatenate([clip.actions, np.repeat(clip.actions[-1:], 9, axis=0)])
    np.testing.assert_array_equal(list(rollout(ort, clip, 4, 12, actions=held)), frames)
    held[9:] += 3
    changed = np.array(list(rollout(ort, clip, 4, 12, actions=held)))
    same = (changed == frames).reshape(12, -1).all(1)
    assert same[:6].all() and not same[6:].all()
    with pytest.raises(ClipError, match=INTEGERS):
        rollout(ort, read_clip(SAMPLE_CLIP, size=16, count=6), 4, 12)


def test_float_actions_reach_the_workers_and_bisect(
    recurrent: Bundle, floats: Path, tmp_path: Path
) -> None:
    options = BenchOptions(bundle=recurrent.path, clips=(floats,), context=4)
    (path,) = write_clips(options, recurrent, tmp_path, [])
    clip = read_clip(floats, size=16, count=8)
    assert clip.actions is not None
    with np.load(path) as written:
        np.testing.assert_array_equal(written["actions"][:8], clip.actions)
    model = load_model("recurrent-12", family="recurrent-like")
    feeds = recorded_feeds(model, recurrent, clip)
    asked = feeds["prior"]["action"].numpy()
    assert all((row == clip.actions).all(1).any() for row in asked)
    other = BenchOptions(bundle=recurrent.path, clips=(SAMPLE_CLIP,), context=4)
    with pytest.raises(ClipError, match=INTEGERS):
        write_clips(other, recurrent, tmp_path, [])
    with pytest.raises(ClipError, match=INTEGERS):
        recorded_feeds(
            load_model("recurrent-12", family="recurrent-like"),
            recurrent,
            read_clip(SAMPLE_CLIP, size=16, count=8),
        )


def test_float_actions_that_are_no_vectors_are_a_fault(recurrent: Bundle) -> None:
    manifest = recurrent.manifest
    assert find_fault(manifest.programs, manifest.graphs) is None
    flat = dataclasses.replace(manifest.programs, action=TensorSpec("action", "float32", (BATCH,)))
    assert find_fault(flat, manifest.graphs) == "actions of float32 (B)"


def test_other_actions_are_refused_at_export(floats: Path, tmp_path: Path) -> None:
    with pytest.raises(ClipError, match=INTEGERS):
        exported("recurrent-like", SAMPLE_CLIP, tmp_path)
    with pytest.raises(ClipError, match=r"^floats: got actions float32 \(8, 2\), .* from 0 to 2"):
        exported("sampled", floats, tmp_path)
    assert not list(tmp_path.iterdir())


def test_facts_that_are_not_the_programs_are_found_at_export(
    floats: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.families.recurrent_like import SIZE, RecurrentFamily

    facts = ModelFacts(SIZE, 0, {"all": 1})
    monkeypatch.setattr(RecurrentFamily, "facts", lambda self, model: facts)
    with pytest.raises(ExportError, match="facts have 0 actions of size 0, its programs 0 of 2"):
        exported("recurrent-like", floats, tmp_path)
