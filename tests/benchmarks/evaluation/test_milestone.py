"""The reference report's tests: its own field names, on any model, and an honest page."""

import dataclasses
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import MICRO
from wmdeploy.benchmarks.evaluation.milestone import MilestoneOptions, run_milestone, to_markdown
from wmdeploy.errors import WmdeployError
from wmdeploy.families import save_model
from wmdeploy.families.reference.world_model import WorldModel, count_parameters
from wmdeploy.files import write_document
from wmdeploy.quality.report import (
    HORIZONS,
    FrameScores,
    GroupReport,
    LatentScores,
    QualityReport,
    RolloutScores,
)


def scores(next_frame: float, within: float, sequence: float) -> QualityReport:
    """A report with these figures; copying the last frame scores 26 dB."""
    frame = FrameScores(30.0, 0.9, 15.0)
    latent = LatentScores(within, 0.5, 0.9, 0.4)
    rollouts = {
        "model": RolloutScores(dict.fromkeys(HORIZONS, sequence), {}, ""),
        "copy": RolloutScores(dict.fromkeys(HORIZONS, 20.0), {}, ""),
    }
    following = {"model": FrameScores(next_frame, 0.9, 15.0), "copy": FrameScores(26.0, 0.9, 12.0)}
    group = GroupReport(
        name="all",
        clips=1,
        frames=99,
        reconstruction=frame,
        static_agreement=0.99,
        codes_used=9,
        perplexity=5.0,
        latent_deviation=1.0,
        following=following,
        latents={"model": latent},
        rollouts=rollouts,
    )
    return QualityReport(
        model="m", backend=None, context=8, codebook_size=32, groups=(group,), skipped=()
    )


def examined(model: WorldModel, path: Path, quality: QualityReport | None = None) -> dict:
    about = {}
    if quality is not None:
        write_document(quality, path.with_suffix(".json"))
        noted = json.loads(path.with_suffix(".json").read_text())
        about = {"training": {"summary": {"quality": noted}}}
    save_model(model, path, about)
    found = run_milestone(MilestoneOptions(source=str(path), device="cpu", runs=2))
    write_document(found, path.with_suffix(".out"))
    return {**json.loads(path.with_suffix(".out").read_text()), "page": to_markdown(found)}


def test_fields_are_the_reports_own(micro: WorldModel, tmp_path: Path) -> None:
    found = examined(micro, tmp_path / "model")
    total = count_parameters(micro)
    architecture = found["architecture"]
    assert architecture["total_parameters"] == total
    assert architecture["vqvae_parameters"] + architecture["temporal_parameters"] == total
    assert architecture["model_size_mb"] == pytest.approx(total * 4 / 2**20)
    assert found["prediction"]["prediction_shape"] == [1, 6, MICRO.vqvae.latent_values]
    assert found["prediction"]["target_shape"] == [1, 6, MICRO.vqvae.latent_values]
    # the report's own formula, by which its MSE of 1.031 is -0.13 dB
    decibels = -10 * math.log10(found["prediction"]["mse"])
    assert found["prediction"]["psnr"] == pytest.approx(decibels)
    assert set(found["memory"]["memory_scaling"]) == {"4"}  # 8 and 16 are more than S + 1 = 7
    assert found["memory"]["under_8gb_limit"] and found["memory"]["max_memory_gb"] < 8
    speed = found["speed"]
    assert speed["time_per_frame_ms"] == pytest.approx(speed["avg_time_ms"] / 7)
    assert speed["under_100ms"] and speed["real_time_capable"]


def test_untrained_model_reaches_no_milestone(micro: WorldModel, tmp_path: Path) -> None:
    found = examined(micro, tmp_path / "model")
    assert found["quality"] is None
    assert "| prediction accuracy above 80% | not trained | no |" in found["page"]
    assert "on the CPU" in found["page"] and "milestones" in found["page"]


@pytest.mark.parametrize(
    ("quality", "reached"),
    [
        (scores(29.0, 0.9, 25.0), ["yes", "yes", "yes"]),
        (scores(25.5, 0.9, 25.0), ["yes", "no", "yes"]),  # above 25 dB, but below the copy
        (scores(29.0, 0.9, 19.0), ["yes", "yes", "no"]),
    ],
)
def test_milestones_are_judged_beside_copying(
    micro_actions: WorldModel, tmp_path: Path, quality: QualityReport, reached: list[str]
) -> None:
    page = examined(micro_actions, tmp_path / "model", quality)["page"]
    rows = [line for line in page.splitlines() if line.startswith(("| 1 ", "| 2 ", "| 3 "))]
    assert [row.rstrip(" |").rpartition("| ")[2] for row in rows] == reached


def test_device_that_is_not_there_is_refused(micro_model: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    with pytest.raises(WmdeployError, match="device: got cuda"):
        run_milestone(MilestoneOptions(source=str(micro_model), device="cuda"))


def test_model_with_the_shortest_context_is_examined(tmp_path: Path) -> None:
    short = dataclasses.replace(MICRO.temporal, context=2)
    model = WorldModel(dataclasses.replace(MICRO, temporal=short)).initialize(0).eval()
    found = examined(model, tmp_path / "model")
    assert list(found["memory"]["memory_scaling"]) == ["3"]
    assert found["prediction"]["prediction_shape"][1] == 2


def test_folder_of_a_model_is_no_place_for_a_report(micro_model: Path) -> None:
    before = sorted(micro_model.iterdir())
    result = subprocess.run(
        [sys.executable, "-m", "wmdeploy.cli", "milestone", str(micro_model), "-o", micro_model],
        capture_output=True, text=True,
    )  # fmt: skip
    assert (
        result.returncode == 1 and "contains a config.json; choose another folder" in result.stderr
    )
    assert sorted(micro_model.iterdir()) == before
