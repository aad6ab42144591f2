"""Training, on a square that moves: it learns, resumes exactly, and refuses what it must."""

import dataclasses
import gc
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.squares import square_clip
from wmdeploy.clips import write_npz
from wmdeploy.errors import ClipError, TrainingError
from wmdeploy.families import load_model
from wmdeploy.families.directory import read_notes
from wmdeploy.families.reference.config import TemporalConfig, VQVAEConfig, WorldModelConfig
from wmdeploy.families.reference.temporal import TemporalTransformer
from wmdeploy.quality.measure import evaluate
from wmdeploy.quality.tally import psnr
from wmdeploy.training import TrainOptions, TrainSummary
from wmdeploy.training.data import find_data
from wmdeploy.training.train import train

MICRO = WorldModelConfig(
    VQVAEConfig(16, (8, 8, 16), latent_channels=8, codebook_size=32),
    TemporalConfig(d_model=32, layers=1, heads=2, context=6),
)
SHORT = {"vqvae_steps": 12, "temporal_steps": 12, "checkpoint_every": 5}
Losses = dict[str, list[float]]


class Killed(BaseException):
    """Stands for a process that is killed: nothing may catch it."""


@pytest.fixture(scope="module")
def data(squares: Path) -> Path:
    return squares


def options(data: Path, output: Path, **changes: Any) -> TrainOptions:
    return TrainOptions(data=(data,), output=output, **{**SHORT, **changes})


def run(
    chosen: TrainOptions, kill_at: tuple[str, int] | None = None
) -> tuple[TrainSummary, Losses]:
    losses: Losses = {}

    def progress(task: str, done: int, total: int, detail: str = "") -> None:
        assert 1 <= done <= total
        if detail.startswith("loss "):
            losses.setdefault(task, []).append(float(detail.removeprefix("loss ")))
        if (task, done) == kill_at:
            raise Killed

    summary = train(chosen, progress, MICRO)
    assert summary is not None
    return summary, losses


def weights(model: Path) -> dict[str, torch.Tensor]:
    return load_model(model).state_dict()


def assert_equal_weights(left: Path, right: Path) -> None:
    others = weights(right)
    for name, tensor in weights(left).items():
        assert torch.equal(tensor, others[name]), name


@pytest.fixture(scope="module")
def reference(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short training that was never interrupted."""
    output = tmp_path_factory.mktemp("uninterrupted") / "model"
    run(options(data, output))
    return output


@pytest.mark.slow
def test_training_learns_to_reconstruct_and_to_predict(tmp_path: Path) -> None:
    data = tmp_path / "data"
    for index in range(20):
        write_npz(data / f"clip-{index}.npz", *square_clip(64, index))
    steps = {"vqvae_steps": 600, "temporal_steps": 400, "checkpoint_every": 200}
    long = options(data, tmp_path / "model", **steps)
    summary, losses = run(long)
    for stage in ("vqvae", "temporal"):
        assert np.mean(losses[stage][-20:]) < 0.5 * np.mean(losses[stage][:20])
    assert summary.quality
    found = summary.quality.all
    clips = find_data([data], size=16, validation=0.1, seed=0, actions=True)
    held_out = clips.validation.frames(np.arange(len(clips.validation))).astype(float)
    mean_frame = clips.training.frames(np.arange(len(clips.training))).mean(0)
    of_mean = psnr(float(np.square(held_out - mean_frame).mean()))
    assert of_mean is not None and found.reconstruction and found.perplexity and found.codes_used
    assert found.reconstruction.psnr is not None and summary.quality.codebook_size == 32
    assert found.reconstruction.psnr > of_mean + 3
    scores = {name: part.psnr or 100 for name, part in found.following.items()}
    assert scores["model"] > scores["copy"]  # which needs the action: it decides the direction
    assert scores["model"] <= scores["ceiling"] + 0.5
    assert 1 < found.perplexity <= found.codes_used <= 32
    # on held-out clips the true action predicts better than another one
    model, shown = load_model(long.output), clips.validation
    true = shown.actions
    assert true is not None
    others = np.random.default_rng(0).permutation(true)
    shuffled = dataclasses.replace(shown, actions=others)
    other = evaluate(model, shuffled, name="shuffled").all.following["model"].psnr or 100
    assert scores["model"] > other + 1


def test_summary_tells_what_was_done(data: Path, tmp_path: Path) -> None:
    summary, losses = run(options(data, tmp_path / "model"))
    assert summary.fresh
    assert summary.quality
    assert (summary.training_frames, summary.quality.all.frames) == (4 * 48, 48)
    assert summary.num_actions == 2
    stages = summary.stages
    assert len(losses["vqvae"]) == stages["vqvae"].steps == 12
    assert len(losses["temporal"]) == stages["temporal"].steps == 12
    chosen = TrainOptions(data=(data,), output=tmp_path)
    frames = {"vqvae": chosen.vqvae_batch, "temporal": 6 * chosen.temporal_batch}
    for name, stage in stages.items():
        images = 12 * frames[name]
        assert stage.images_per_second == pytest.approx(images / stage.seconds)
        assert 0 < stage.in_model <= 1 and stage.ended == "steps"
    assert load_model(tmp_path / "model").config == MICRO.with_actions(2)
    assert not (tmp_path / "model.train").exists()


def test_two_trainings_give_the_same_weights(data: Path, tmp_path: Path, reference: Path) -> None:
    torch.manual_seed(123)  # the caller's generator is neither used nor moved
    before = torch.get_rng_state()
    run(options(data, tmp_path / "again"))
    assert torch.equal(torch.get_rng_state(), before)
    assert_equal_weights(tmp_path / "again", reference)
    run(options(data, tmp_path / "other", seed=1))
    name = "temporal_model.output_proj.weight"
    assert not torch.equal(weights(tmp_path / "other")[name], weights(reference)[name])


@pytest.mark.parametrize(
    "kill_at",
    [
        ("read", 2), ("vqvae", 3), ("vqvae", 10), ("vqvae", 12), ("encode", 48), ("temporal", 7),
        ("evaluate", 1),
    ],
)  # fmt: skip
def test_killed_training_goes_on_to_the_same_weights(
    data: Path, tmp_path: Path, reference: Path, kill_at: tuple[str, int]
) -> None:
    chosen = options(data, tmp_path / "model")
    with pytest.raises(Killed):
        run(chosen, kill_at)
    assert not chosen.output.exists()
    _, losses = run(chosen)
    # steps from the last multiple of 5 on are done again, or none of a stage that was over
    repeated = {("read", 2): 12, ("vqvae", 3): 12, ("vqvae", 10): 2, ("vqvae", 12): 2}
    assert len(losses.get("vqvae", [])) == repeated.get(kill_at, 0)
    assert_equal_weights(chosen.output, reference)


def test_finished_model_is_not_trained_again(data: Path, reference: Path) -> None:
    summary, losses = run(options(data, reference))
    assert not summary.fresh and not losses
    assert summary.output == reference and summary.num_actions == 2


def test_finished_model_of_other_options_is_refused(data: Path, reference: Path) -> None:
    with pytest.raises(TrainingError, match=r"other options \(vqvae_steps: there 12, now 13\)"):
        run(options(data, reference, vqvae_steps=13))


def test_finished_model_of_other_clips_is_refused(tmp_path: Path) -> None:
    for index in range(2):
        write_npz(tmp_path / "data" / f"{index}.npz", *square_clip(12, index))
    run(options(tmp_path / "data", tmp_path / "model"))
    write_npz(tmp_path / "data" / "1.npz", *square_clip(12, 5))
    with pytest.raises(TrainingError, match="clips_sha256"):
        run(options(tmp_path / "data", tmp_path / "model"))


def test_unfinished_training_of_other_options_is_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        run(options(data, tmp_path / "model"), kill_at=("vqvae", 6))
    with pytest.raises(TrainingError, match=r"seed: there 0, now 3.*same options.*remove"):
        run(options(data, tmp_path / "model", seed=3))


def test_damaged_state_is_one_clear_error(data: Path, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        run(options(data, tmp_path / "model"), kill_at=("vqvae", 6))
    state = tmp_path / "model.train" / "state.pt"
    state.write_bytes(state.read_bytes()[:1000])
    with pytest.raises(TrainingError, match=r"state\.pt: is damaged.*remove"):
        run(options(data, tmp_path / "model"))


def test_stranger_at_the_output_is_refused_before_training(data: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(TrainingError, match="is not a model directory"):
        run(options(data, tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_stranger_in_the_place_of_the_state_is_left_alone(data: Path, tmp_path: Path) -> None:
    (tmp_path / "model.train").mkdir()
    (tmp_path / "model.train" / "notes.txt").write_text("mine")
    with pytest.raises(TrainingError, match="not the folder of an unfinished training"):
        run(options(data, tmp_path / "model"))
    assert (tmp_path / "model.train" / "notes.txt").read_text() == "mine"


def test_time_limit_ends_both_stages_with_a_usable_model(data: Path, tmp_path: Path) -> None:
    long = options(
        data, tmp_path / "model", vqvae_steps=10**6, temporal_steps=10**6, max_minutes=0.1
    )
    summary, losses = run(long)
    ended = {name: stage.ended for name, stage in summary.stages.items()}
    assert ended == {"vqvae": "time", "temporal": "time"}
    seconds = [summary.stages[name].seconds for name in ("vqvae", "temporal")]
    assert seconds[0] == pytest.approx(6 * 0.7, abs=1.5)
    assert seconds[1] == pytest.approx(6 * 0.3, abs=1.5)
    assert load_model(long.output).config == MICRO.with_actions(2)
    rates = losses["vqvae"]
    assert len(rates) == summary.stages["vqvae"].steps


def test_no_progress_on_held_out_clips_ends_a_stage_early(data: Path, tmp_path: Path) -> None:
    chosen = options(
        data, tmp_path / "model", temporal_steps=400, patience=2, temporal_rate=1e-12,
        self_fed=0.0, checkpoint_every=5,
    )  # fmt: skip
    summary, _ = run(chosen)
    stage = summary.stages["temporal"]
    assert stage.ended == "patience" and stage.steps < 400


def test_best_weights_are_taken_rather_than_the_last(data: Path, tmp_path: Path) -> None:
    """The last steps are spoiled: what was best on held-out clips before them is what remains."""
    kept: list[dict[str, torch.Tensor]] = []
    spoiled = []

    def progress(task: str, done: int, total: int, detail: str = "") -> None:
        if (task, done) == ("temporal", 10):
            kept.append(load_file(tmp_path / "model.train" / "best.safetensors"))
        if (task, done) == ("temporal", 11):
            for module in gc.get_objects():
                if isinstance(module, TemporalTransformer) and module.training:
                    module.output_proj.weight.data.add_(10.0)
                    spoiled.append(module)

    summary = train(options(data, tmp_path / "model"), progress, MICRO)
    assert summary is not None
    assert len(spoiled) == 1
    assert (summary.stages["temporal"].held_out or 100) < 10
    for name, tensor in weights(tmp_path / "model").items():
        if name.startswith("temporal_model"):
            assert torch.equal(tensor, kept[0][name]), name


@pytest.mark.parametrize(
    ("change", "steps", "tolerance"),
    [({"checkpointing": True}, 5, 1e-5), ({"precision": "bf16"}, 1, 0.05)],
)
def test_first_losses_are_those_of_plain_training(
    data: Path, tmp_path: Path, change: dict[str, Any], steps: int, tolerance: float
) -> None:
    _, plain = run(options(data, tmp_path / "plain"))
    _, other = run(options(data, tmp_path / "other", **change))
    for stage in ("vqvae", "temporal")[: 1 if steps == 1 else 2]:
        assert other[stage][:steps] == pytest.approx(plain[stage][:steps], rel=tolerance)
    assert np.isfinite(other["temporal"]).all()
    assert weights(tmp_path / "other")["vqvae.vq.embedding.weight"].dtype == torch.float32


def test_accumulated_batches_are_one_step(data: Path, tmp_path: Path) -> None:
    summary, losses = run(options(data, tmp_path / "model", accumulate=3))
    assert len(losses["vqvae"]) == summary.stages["vqvae"].steps == 12
    per_second = summary.stages["vqvae"].images_per_second
    assert per_second * summary.stages["vqvae"].seconds == pytest.approx(3 * 12 * 16)


def test_curves_and_pictures_are_written_for_tensorboard(data: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run(options(data, tmp_path / "model", log=tmp_path / "log"))
    found = EventAccumulator(str(tmp_path / "log"))
    found.Reload()
    tags = found.Tags()
    assert {"vqvae/loss", "vqvae/rate", "vqvae/held_out", "vqvae/perplexity"} <= set(
        tags["scalars"]
    )
    assert {"temporal/loss", "temporal/held_out"} <= set(tags["scalars"])
    assert len(found.Scalars("vqvae/loss")) == 12
    assert set(tags["images"]) == {"vqvae", "temporal"}


def test_vqvae_of_another_model_is_kept(data: Path, tmp_path: Path, reference: Path) -> None:
    summary, losses = run(options(data, tmp_path / "model", vqvae=reference))
    assert "vqvae" not in losses and summary.stages["vqvae"].ended == "given"
    before, after = weights(reference), weights(tmp_path / "model")
    for name in (name for name in before if name.startswith("vqvae.")):
        assert torch.equal(before[name], after[name]), name
    with pytest.raises(TrainingError, match=r"vqvae: .* is not a model directory"):
        run(options(data, tmp_path / "other", vqvae=data))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_clips_of_the_given_vqvae_are_not_held_out(
    data: Path, tmp_path: Path, reference: Path
) -> None:
    """With another seed, clips that the VQ-VAE was trained on would be."""
    known = read_notes(reference)["training"]["clips"]
    for seed in range(1, 9):
        clips = find_data([data], size=16, validation=0.1, seed=seed, actions=True)
        if set(clips.digests(1)) <= set(known):
            break
    with pytest.raises(ClipError, match="held-out clips were trained on before"):
        run(options(data, tmp_path / "model", vqvae=reference, seed=seed))


@pytest.mark.parametrize(
    ("change", "message"),
    [({"device": "cuda"}, "device: got cuda"), ({"precision": "fp16"}, "fp16 needs a GPU")],
)
def test_what_needs_a_gpu_is_refused_without_one(
    data: Path, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(TrainingError, match=message):
        run(options(data, tmp_path / "model", **change))


def test_importing_the_package_loads_no_torch() -> None:
    program = "import sys, wmdeploy.training; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
