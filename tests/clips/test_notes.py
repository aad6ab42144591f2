"""What a model's config.json notes on its training is converted to its type, or refused."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import GOLDEN
from wmdeploy.benchmarks.evaluation.evaluate import EvaluateOptions
from wmdeploy.benchmarks.evaluation.evaluate import evaluate as run_evaluation
from wmdeploy.benchmarks.evaluation.milestone import MilestoneOptions, run_milestone
from wmdeploy.clips.read import SAMPLE_CLIP
from wmdeploy.errors import CheckpointError
from wmdeploy.families import save_model
from wmdeploy.families.directory import TrainingNotes, read_notes, read_training
from wmdeploy.families.reference.world_model import WorldModel
from wmdeploy.training import TrainOptions
from wmdeploy.training.train import train

DAMAGED: list[Any] = [
    [1],
    {"clips": 5},
    {"clips": [[1]]},
    {"summary": [1]},
    {"options": "x"},
]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    for name in "ab":
        shutil.copy(SAMPLE_CLIP, tmp_path / "data" / f"{name}.mkv")
    return tmp_path / "data"


@pytest.mark.parametrize("training", DAMAGED)
def test_damaged_notes_are_explained(
    micro: WorldModel, tmp_path: Path, data: Path, training: Any
) -> None:
    model = tmp_path / "model"
    save_model(micro, model, about={"training": training})
    with pytest.raises(CheckpointError, match=f"{model}/config.json: its notes are damaged"):
        run_evaluation(EvaluateOptions(source=str(model), data=(data,)))
    with pytest.raises(CheckpointError, match="its notes are damaged"):
        run_milestone(MilestoneOptions(source=str(model), device="cpu"))
    options = TrainOptions(data=(data,), output=tmp_path / "new", vqvae=model, device="cpu")
    with pytest.raises(CheckpointError, match="its notes are damaged"):
        train(options)
    with pytest.raises(CheckpointError, match="its notes are damaged"):
        train(TrainOptions(data=(data,), output=model))


@pytest.mark.parametrize(
    "quality",
    [
        5,
        {"groups": [1]},
        {
            "model": "m",
            "backend": None,
            "context": 8,
            "codebook_size": 4,
            "groups": [],
            "skipped": [],
        },
    ],
)
def test_damaged_scores_are_explained(micro: WorldModel, tmp_path: Path, quality: Any) -> None:
    model = tmp_path / "model"
    save_model(micro, model, about={"training": {"summary": {"quality": quality}}})
    with pytest.raises(CheckpointError, match="scores that its training stored are damaged"):
        run_milestone(MilestoneOptions(source=str(model), device="cpu"))


@pytest.mark.parametrize("about", [[1], 5, "x"])
def test_notes_that_are_no_object_are_refused(
    micro: WorldModel, tmp_path: Path, about: Any
) -> None:
    save_model(micro, tmp_path / "model", about=about)
    with pytest.raises(CheckpointError, match="its notes are damaged"):
        read_notes(tmp_path / "model")


@pytest.mark.parametrize("source", [GOLDEN / "best.pt", "tiny"])
def test_models_of_other_origin_have_no_notes(source: str | Path) -> None:
    assert read_notes(source) == {} and read_training(source) == TrainingNotes()
