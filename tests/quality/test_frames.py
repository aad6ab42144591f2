"""Scores of frames alone, which a model of any family has."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.plugins import PRESETS
from wmdeploy.benchmarks.evaluation.evaluate import EvaluateOptions, evaluate
from wmdeploy.clips.read import SAMPLE_CLIP, read_clip
from wmdeploy.clips.write import write_npz
from wmdeploy.engines.pytorch.eager import baseline
from wmdeploy.errors import ClipError
from wmdeploy.exporters.export import ExportOptions, export_bundle
from wmdeploy.families import load_model
from wmdeploy.quality.frames import SessionRunner
from wmdeploy.quality.tables import quality_tables
from wmdeploy.quality.tally import FrameSums

pytestmark = pytest.mark.usefixtures("plugins")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    clip = read_clip(SAMPLE_CLIP, size=16)
    (tmp_path / "data").mkdir()
    frames = np.concatenate([clip.frames, clip.frames])[:44]
    for number in range(2):
        write_npz(tmp_path / "data" / f"{number}.npz", frames, np.arange(len(frames)) % 3)
    return tmp_path / "data"


def test_model_of_any_family_and_its_bundle_are_evaluated(data: Path, tmp_path: Path) -> None:
    sampled = ExportOptions(
        source=PRESETS["sampled"],
        family="sampled",
        output=tmp_path / "bundle",
        clip=data / "0.npz",
    )
    bundle, _ = export_bundle(sampled)
    options = EvaluateOptions(source=str(bundle.path), data=(data,), pictures=True)
    report, strip = evaluate(options)
    scores = report.all
    assert (scores.clips, scores.frames, report.backend) == (2, 88, "ort-cpu")
    assert scores.following["model"] == scores.following["ort-cpu"] != scores.following["copy"]
    assert scores.rollouts["model"] == scores.rollouts["ort-cpu"]
    assert report.codebook_size is None and scores.latents == {} and strip is not None
    assert {row for table in quality_tables(report) for row in table.columns[0].cells} >= {
        "frames",
        "sharpness, model",
    }


def test_each_frame_is_predicted_from_the_true_ones_before_it(data: Path) -> None:
    """As by a session that is reset on them; the model's noise is that of the frame's number."""
    model = load_model(PRESETS["mean-pool"], family="mean-pool")
    frames = read_clip(data / "0.npz", size=16, count=9).frames
    runner = SessionRunner(baseline(model))
    found = list(runner.following(iter(frames), None))
    assert len(found) == len(frames) - 1
    for index, frame in enumerate(found, start=1):
        np.testing.assert_array_equal(frame, runner.rollout(frames[:index], 1, None)[0])


def test_clips_of_other_actions_are_refused(data: Path) -> None:
    options = EvaluateOptions(
        source=PRESETS["recurrent-like"], family="recurrent-like", data=(data,)
    )
    with pytest.raises(ClipError, match="no clip is left.*the model takes 2 floats"):
        evaluate(options)


def test_blurred_frames_are_less_sharp() -> None:
    rng = np.random.default_rng(0)
    true = rng.integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
    changed = np.ones((4, 8, 8), bool)
    for made, expected in ((true, 1.0), (np.full_like(true, 128), 0.0)):
        sums = FrameSums()
        sums.add(made, true, changed, torch.ones(4))
        assert sums.scores().sharpness == expected
