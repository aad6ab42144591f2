"""Distilling a student decoder: it learns, resumes exactly, and refuses what does not fit."""

import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from tests.squares import square_clip, write_squares
from tests.training.test_train import MICRO, Killed, assert_equal_weights, weights
from wmdeploy.clips import write_npz
from wmdeploy.clips.folder import INDEX_NAME
from wmdeploy.errors import CheckpointError, ClipError, TrainingError
from wmdeploy.exporters.export import ExportOptions, export_bundle
from wmdeploy.families import load_family, load_model, save_model
from wmdeploy.families.directory import read_notes, read_training
from wmdeploy.families.reference.family import reference_model
from wmdeploy.families.reference.world_model import WorldModel
from wmdeploy.quality.measure import evaluate
from wmdeploy.quality.report import GroupReport
from wmdeploy.quality.tables import quality_tables
from wmdeploy.training import TrainOptions, TrainSummary
from wmdeploy.training.data import find_data
from wmdeploy.training.distill import DistillOptions, distill
from wmdeploy.training.plan import Part
from wmdeploy.training.train import train


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of the squares, with notes as a training leaves them."""
    path = tmp_path_factory.mktemp("source") / "model"
    model = WorldModel(MICRO.with_actions(2)).initialize(seed=3).eval().requires_grad_(False)
    save_model(model, path, {"training": {"options": {"seed": 0}, "clips": ["0" * 64]}})
    return path


def options(data: Path, output: Path, **changes: Any) -> TrainOptions:
    given: dict[str, Any] = {"stages": {"student.steps": 12.0}, "checkpoint_every": 5}
    return TrainOptions(data=(data,), output=output, **given | changes)


def run(
    source: Path | str,
    training: TrainOptions,
    kill_at: int | None = None,
    student: str = "lite",
    part: Part = "decoder",
    lines: list[str] | None = None,
) -> tuple[TrainSummary, list[float]]:
    losses: list[float] = []

    def progress(task: str, done: int, total: int, detail: str = "") -> None:
        if task in ("student", "encoder"):
            losses.append(float(detail.removeprefix("loss ")))
            if done == kill_at:
                raise Killed

    chosen = DistillOptions(source=str(source), student=student, part=part, training=training)
    summary = distill(chosen, progress, (lines if lines is not None else []).append)
    assert summary is not None
    return summary, losses


@pytest.fixture(scope="module")
def reference(
    source: Path, squares: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, TrainSummary]:
    """A short distillation that was never interrupted."""
    output = tmp_path_factory.mktemp("uninterrupted") / "model"
    summary, _ = run(source, options(squares, output))
    return output, summary


def test_the_model_stays_as_it_is_and_a_student_stands_beside_it(
    source: Path, reference: tuple[Path, TrainSummary]
) -> None:
    output, _ = reference
    before, after = weights(source), weights(output)
    for name, tensor in before.items():
        assert torch.equal(tensor, after[name]), name
    assert all(name.startswith("student.") for name in after.keys() - before.keys())
    student = reference_model(load_model(output)).config.student
    assert student is not None and student.name == "lite"


def test_what_it_measures_is_told_and_noted(reference: tuple[Path, TrainSummary]) -> None:
    output, summary = reference
    assert summary.quality is not None and summary.quality.decoder == "lite"
    scores = summary.quality.all
    assert {"model", "lite", "copy"} <= scores.following.keys()
    assert {"model", "lite"} <= scores.rollouts.keys()
    assert scores.against_full is not None
    assert scores.against_full.worst <= scores.against_full.psnr
    assert summary.operations["lite decoder"] < summary.operations["full decoder"] / 5
    noted = read_training(output, "distillation")
    assert noted.summary["operations"] == summary.operations
    assert noted.options["decoder"] == "lite"
    assert noted.summary["quality"]["groups"][-1]["against_full"]["psnr"] == pytest.approx(
        scores.against_full.psnr
    )
    clips = read_training(output).clips
    assert "0" * 64 in clips and len(clips) > 1  # those of both trainings
    assert read_notes(output)["training"]["options"] == {"seed": 0}


def test_a_killed_distillation_ends_with_the_same_weights(
    source: Path, squares: Path, reference: tuple[Path, TrainSummary], tmp_path: Path
) -> None:
    training = options(squares, tmp_path / "model")
    with pytest.raises(Killed):
        run(source, training, kill_at=8)
    assert (tmp_path / "model.train" / "state.pt").exists() and not training.output.exists()
    _, losses = run(source, training)
    assert len(losses) == 7  # from the checkpoint after the fifth step on
    assert_equal_weights(reference[0], training.output)
    assert not (tmp_path / "model.train").exists()
    again, losses = run(source, training)
    assert not again.fresh and not losses


def test_other_options_do_not_take_the_place_of_a_student(
    source: Path, squares: Path, reference: tuple[Path, TrainSummary]
) -> None:
    with pytest.raises(TrainingError, match=r"finished model of other options \(decoder"):
        run(source, options(squares, reference[0]), student="tiny")


def learned(data: Path, folder: Path, part: Part, steps: str) -> list[GroupReport]:
    """Scores of a trained model's student after one step and after 300; see the folder "300.0"."""
    of_model: dict[str, Any] = {"vqvae_steps": 400, "temporal_steps": 200, "checkpoint_every": 200}
    train(TrainOptions(data=(data,), output=folder / "model", **of_model), config=MICRO)
    scores = []
    for count in (1.0, 300.0):
        training = options(data, folder / str(count), stages={steps: count})
        summary, _ = run(folder / "model", training, part=part)
        assert summary.quality is not None
        scores.append(summary.quality.all)
    return scores


@pytest.mark.slow
def test_a_student_learns_the_full_decoder_and_real_frames(tmp_path: Path) -> None:
    data = write_squares(tmp_path / "data", clips=10)
    before, after = learned(data, tmp_path, "decoder", "student.steps")
    assert before.against_full is not None and after.against_full is not None
    assert after.against_full.psnr > before.against_full.psnr + 3
    assert (after.following["lite"].psnr or 0) > (before.following["lite"].psnr or 0) + 3


def test_a_preset_gives_a_student_of_noise_and_says_so(squares: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    for index in range(3):
        frames, _ = square_clip(20, index)
        write_npz(data / f"clip-{index}.npz", frames.repeat(4, 1).repeat(4, 2), None)
    lines: list[str] = []
    training = options(data, tmp_path / "model", stages={"student.steps": 1.0})
    run("tiny", training, student="tiny", lines=lines)
    assert any("weights are untrained, so the student will be one of noise" in x for x in lines)


def test_clips_with_other_actions_are_refused(source: Path, tmp_path: Path) -> None:
    for index in range(3):
        frames, _ = square_clip(20, index)
        write_npz(tmp_path / "bare" / f"clip-{index}.npz", frames, None)
    with pytest.raises(TrainingError, match="its clips have 0 actions, and the model takes 2"):
        run(source, options(tmp_path / "bare", tmp_path / "model"))
    assert not list(tmp_path.glob("model*"))


def test_recordings_of_another_size_are_refused(source: Path, tmp_path: Path) -> None:
    pytest.importorskip("ale_py", reason="needs the extra 'train'")
    from wmdeploy.clips import RecordOptions, record

    record(RecordOptions(game="pong", frames=64, size=24), tmp_path / "data")
    assert json.loads((tmp_path / "data" / INDEX_NAME).read_text())["size"] == 24
    with pytest.raises(TrainingError, match="recorded at 24 x 24, and the model's frames are 16"):
        run(source, options(tmp_path / "data", tmp_path / "model"))
    assert not list(tmp_path.glob("model*"))


def test_another_family_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    training = options(tmp_path / "nothing", tmp_path / "model")
    chosen = DistillOptions(source="tiny", student="lite", training=training, family="tokens")
    with pytest.raises(TrainingError, match="family tokens: its models have no students"):
        distill(chosen)


def test_clips_that_the_model_was_trained_on_are_not_held_out(
    source: Path, squares: Path, tmp_path: Path
) -> None:
    from wmdeploy.clips.footage import clip_digest

    seen = [clip_digest(path) for path in squares.glob("*.npz")]
    model = load_model(source)
    save_model(model, tmp_path / "source", {"training": {"clips": seen}})
    with pytest.raises(ClipError, match="held-out clips were trained on before"):
        run(tmp_path / "source", options(squares, tmp_path / "model"))


def test_a_batch_has_the_frames_of_its_places(source: Path, squares: Path) -> None:
    from accelerate import Accelerator

    from wmdeploy.training.loop import Share
    from wmdeploy.training.plan import Job, StageSettings
    from wmdeploy.training.student_stage import PLACES, StudentDistillation, StudentStage

    course = load_family("vqvae-transformer").distillation("decoder")
    assert isinstance(course, StudentDistillation)
    model = course.begin(reference_model(load_model(source)), "lite", 0)
    clips = find_data([squares], size=16, validation=0.2, seed=0, actions=True)
    job = Job(
        model=model,
        clips=clips,
        options=options(squares, squares / "none"),
        settings={"student": StageSettings(4, 8, 1e-3)},
        accelerator=Accelerator(cpu=True),
        progress=lambda *_: None,
        tell=lambda line: None,
    )
    (plan,) = course.stages(job)
    assert plan.make is not None
    stage = plan.make()
    assert isinstance(stage, StudentStage)
    share = Share()
    batch, firsts = stage.batch(3, share), stage.numbers(3, share)
    assert batch["frames"].shape == (2, PLACES, 16, 16, 3) and stage.images() == 8
    for row, first in enumerate(firsts):
        for at, place in enumerate(batch["places"][row].tolist()):
            pair = clips.training.frames(np.array([first + place, first + place + 1]))
            assert np.array_equal(batch["frames"][row, at].numpy(), pair[1])
            moved = np.abs(np.diff(pair.astype(int), axis=0)[0]).max(2) > 16
            assert np.array_equal(batch["changed"][row, at].numpy(), moved)
    for name, tensor in stage.batch(3, share).items():
        assert torch.equal(tensor, batch[name]), name
    latents = stage.module.latents(batch["codes"], batch["places"], batch["actions"])
    with torch.no_grad():
        own = model.encode(batch["frames"][:, -1:])[0][:, 0]
    assert torch.equal(latents[:, -1].flatten(1), own)  # the last place: the frame's own latent
    loss = stage.module(**batch)
    loss.backward()
    assert all(p.grad is not None for p in stage.parameters())
    others = [p for name, p in model.named_parameters() if not name.startswith("student.")]
    assert not any(p.requires_grad for p in others)
    assert dataclasses.is_dataclass(model.config.student)


@pytest.fixture(scope="module")
def observing(
    source: Path, squares: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, TrainSummary]:
    """A model with a student encoder, after a short distillation."""
    output = tmp_path_factory.mktemp("observing") / "model"
    training = options(squares, output, stages={"encoder.steps": 12.0})
    summary, losses = run(source, training, part="encoder")
    assert len(losses) == 12
    return output, summary


def test_a_student_encoder_takes_the_place_of_the_full_one_alone(
    source: Path, observing: tuple[Path, TrainSummary]
) -> None:
    before, after = weights(source), weights(observing[0])
    same = {name for name in before.keys() & after.keys() if torch.equal(before[name], after[name])}
    encoders = {name for name in (*before, *after) if name.startswith("vqvae.encoder.")}
    assert same == (before.keys() | after.keys()) - encoders
    assert reference_model(load_model(observing[0])).config.vqvae.encoder == "lite"


def test_the_codes_agreement_is_told_and_noted(observing: tuple[Path, TrainSummary]) -> None:
    output, summary = observing
    assert summary.quality is not None
    scores = summary.quality.all
    assert scores.encoder is not None and 0 < scores.encoder.codes < 1
    assert {"model", "full encoder", "copy"} <= scores.following.keys()
    assert summary.operations["lite encoder"] < summary.operations["full encoder"] / 3
    noted = read_training(output, "encoder distillation")
    assert noted.summary["quality"]["groups"][-1]["encoder"]["codes"] == scores.encoder.codes
    assert read_notes(output)["training"]["options"] == {"seed": 0}
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(*quality_tables(summary.quality))
    assert "codes of the full encoder where moved" in console.export_text()


def test_codes_agree_where_a_student_encoder_is_the_full_one(source: Path, squares: Path) -> None:
    model, clips = (
        reference_model(load_model(source)),
        find_data([squares], size=16, validation=0.2, seed=0, actions=True),
    )
    found = evaluate(model, clips.validation, name="itself", full=model.vqvae).all
    assert found.encoder is not None and found.encoder.codes == 1
    assert found.following["full encoder"] == found.following["model"]


def test_a_killed_distillation_of_an_encoder_ends_with_the_same_weights(
    source: Path, squares: Path, observing: tuple[Path, TrainSummary], tmp_path: Path
) -> None:
    training = options(squares, tmp_path / "model", stages={"encoder.steps": 12.0})
    with pytest.raises(Killed):
        run(source, training, kill_at=8, part="encoder")
    run(source, training, part="encoder")
    assert_equal_weights(observing[0], training.output)


def test_both_students_stand_in_one_model(
    squares: Path, reference: tuple[Path, TrainSummary], tmp_path: Path
) -> None:
    training = options(squares, tmp_path / "model", stages={"encoder.steps": 2.0})
    run(reference[0], training, part="encoder")
    both = reference_model(load_model(training.output)).config
    assert both.vqvae.encoder == "lite" and both.student is not None
    assert read_training(training.output, "distillation").summary
    again = options(squares, tmp_path / "again", stages={"encoder.steps": 2.0})
    with pytest.raises(CheckpointError, match="its encoder is the student lite; give the model"):
        run(training.output, again, part="encoder")


def test_another_distillation_does_not_take_the_place_of_the_last(
    source: Path, squares: Path, reference: tuple[Path, TrainSummary], tmp_path: Path
) -> None:
    """The notes of the decoder's stand in the model of both, which that command did not make."""
    both = options(squares, tmp_path / "both", stages={"encoder.steps": 1.0})
    run(reference[0], both, part="encoder")
    again = options(squares, both.output)  # as the student decoder was made
    with pytest.raises(TrainingError, match="it was not trained by this command"):
        run(source, again)


def test_scores_of_a_training_are_those_of_the_model_as_it_is(
    source: Path, squares: Path, tmp_path: Path
) -> None:
    notes = {"training": {"options": {"seed": 0}, "summary": {"quality": "of before"}}}
    save_model(load_model(source), tmp_path / "source", notes)
    for part, stage in (("decoder", "student"), ("encoder", "encoder")):
        training = options(squares, tmp_path / part, stages={f"{stage}.steps": 1.0})
        run(tmp_path / "source", training, part=part)  # type: ignore[arg-type]
    assert read_training(tmp_path / "decoder").summary["quality"] == "of before"
    own = read_training(tmp_path / "encoder", "encoder distillation").summary["quality"]
    assert read_training(tmp_path / "encoder").summary["quality"] == own


def test_vqvae_with_a_student_encoder_is_not_trained_on(
    squares: Path, observing: tuple[Path, TrainSummary], tmp_path: Path
) -> None:
    chosen = TrainOptions(data=(squares,), output=tmp_path / "model", vqvae=observing[0])
    with pytest.raises(TrainingError, match="is the student lite; give the model"):
        train(chosen, config=MICRO)


@pytest.mark.slow
def test_a_student_encoder_learns_the_codes_and_is_exported(tmp_path: Path) -> None:
    data = write_squares(tmp_path / "data", clips=10)
    before, after = (s.encoder for s in learned(data, tmp_path, "encoder", "encoder.steps"))
    assert before is not None and after is not None
    # the full one's norms see the whole frame, and its codes of still places follow them
    assert after.codes > before.codes + 0.3
    assert (after.codes_changed or 0) > (before.codes_changed or 0) + 0.5
    exported = ExportOptions(
        source=str(tmp_path / "300.0"),
        output=tmp_path / "bundle",
        clip=next(data.glob("*.npz")),
        max_batch=2,
    )
    bundle, _ = export_bundle(exported)
    assert bundle.manifest.graphs["encoder"].parity["codes"].relative == 0
