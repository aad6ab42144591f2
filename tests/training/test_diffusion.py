"""Training of another family than the reference family, and of none that can be trained."""

import dataclasses
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from tests.families.mean_pool import MeanPoolFamily
from tests.squares import square_clip
from tests.training.test_train import Killed, Losses, assert_equal_weights, weights
from wmdeploy.clips import write_npz
from wmdeploy.errors import CheckpointError, TrainingError
from wmdeploy.exporters.export import ExportOptions, export_bundle
from wmdeploy.families import load_family, load_model
from wmdeploy.families.diffusion.config import DiffusionConfig
from wmdeploy.families.diffusion.network import DiffusionModel
from wmdeploy.training import TrainOptions, TrainSummary, loop
from wmdeploy.training.data import find_data
from wmdeploy.training.diffusion import (
    DenoiserLoss,
    DenoiserStage,
    DiffusionTraining,
    RewardLoss,
    RewardStage,
)
from wmdeploy.training.loop import Share
from wmdeploy.training.plan import Job, StageSettings
from wmdeploy.training.train import train

MICRO = DiffusionConfig(
    image_size=16, num_actions=9, cond=16, depths=(1,), channels=(8,), attention=(False,),
    reward_cond=8, reward_depths=(1, 1), reward_channels=(8, 8),
    reward_attention=(False, False), lstm=8,
)  # fmt: skip
SHORT = {"denoiser.steps": 12, "denoiser.batch": 4, "rewards.steps": 12, "rewards.batch": 4}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Squares, which a reward of 1 is for when action 1 is taken, and that end after 24 frames."""
    folder = tmp_path_factory.mktemp("rewarded")
    for index in range(4):
        frames, actions = square_clip(24, index)
        ends = np.arange(23) == 22
        np.savez(folder / f"{index}.npz", frames=frames, actions=actions, ends=ends,
                 rewards=actions[:23].astype(np.float32))  # fmt: skip
    return folder


def options(data: Path, output: Path, **changes: Any) -> TrainOptions:
    given: dict[str, Any] = {"stages": SHORT, "checkpoint_every": 5, **changes}
    return TrainOptions(data=(data,), output=output, family="diffusion", **given)


def run(
    chosen: TrainOptions, kill_at: tuple[str, int] | None = None, lines: list[str] | None = None
) -> tuple[TrainSummary, Losses]:
    losses: Losses = {}

    def progress(task: str, done: int, total: int, detail: str = "") -> None:
        if detail.startswith("loss "):
            losses.setdefault(task, []).append(float(detail.removeprefix("loss ")))
        if (task, done) == kill_at:
            raise Killed

    told = [] if lines is None else lines
    summary = train(chosen, progress, MICRO, told.append)
    assert summary is not None
    return summary, losses


@pytest.fixture(scope="module")
def reference(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short training that was never interrupted."""
    output = tmp_path_factory.mktemp("diffusion") / "model"
    run(options(data, output))
    return output


@pytest.mark.slow
def test_both_stages_learn(data: Path, tmp_path: Path) -> None:
    stages = {"denoiser.steps": 150, "rewards.steps": 150, "rewards.rate": 3e-3}
    lines: list[str] = []
    summary, losses = run(options(data, tmp_path / "model", stages=stages), lines=lines)
    for stage, share in (("denoiser", 0.6), ("rewards", 0.5)):
        assert len(losses[stage]) == summary.stages[stage].steps == 150
        assert np.mean(losses[stage][-10:]) < share * np.mean(losses[stage][:10])
        assert (summary.stages[stage].held_out or 100) < share * losses[stage][0]
    assert summary.quality is None and not summary.skipped and not lines
    assert summary.num_actions == 2
    model = load_model(tmp_path / "model")
    assert isinstance(model, DiffusionModel) and model.config.num_actions == 2


@pytest.mark.parametrize(
    "kill_at", [("read", 2), ("denoiser", 7), ("denoiser", 12), ("rewards", 7), ("rewards", 12)]
)
def test_killed_training_goes_on_to_the_same_weights(
    data: Path, tmp_path: Path, reference: Path, kill_at: tuple[str, int]
) -> None:
    chosen = options(data, tmp_path / "model")
    with pytest.raises(Killed):
        run(chosen, kill_at)
    assert not chosen.output.exists()
    _, losses = run(chosen)
    repeated = {("read", 2): 12, ("denoiser", 7): 7, ("denoiser", 12): 2}
    assert len(losses.get("denoiser", [])) == repeated.get(kill_at, 0)
    assert_equal_weights(chosen.output, reference)
    again, losses = run(chosen)
    assert not again.fresh and not losses and again.quality is None


@pytest.mark.slow
def test_time_limit_ends_both_stages_with_a_model_that_is_exported(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    budgets = []

    def run_stage(*args: Any, **named: Any) -> None:
        budgets.append(named["budget"])
        loop.run_stage(*args, **named)

    monkeypatch.setattr("wmdeploy.training.train.run_stage", run_stage)
    stages = {"denoiser.steps": 10**6, "rewards.steps": 10**6}
    summary, _ = run(options(data, tmp_path / "model", stages=stages, max_minutes=0.1))
    assert {stage.ended for stage in summary.stages.values()} == {"time"}
    assert all(0 < stage.steps < 10**6 for stage in summary.stages.values())
    assert budgets == pytest.approx([6 * 0.85, 6 * 0.15])  # how long it took is a matter of load
    source = str(tmp_path / "model")
    bundle = tmp_path / "bundle"
    export_bundle(ExportOptions(source=source, clip=data / "0.npz", output=bundle))
    assert (bundle / "manifest.json").is_file()


def test_clips_without_rewards_leave_their_model_untrained_and_say_so(
    squares: Path, tmp_path: Path
) -> None:
    lines: list[str] = []
    summary, losses = run(options(squares, tmp_path / "model"), lines=lines)
    assert set(summary.stages) == set(losses) == {"denoiser"}
    assert len(lines) == 1 and lines[0] in summary.skipped and "stay untrained" in lines[0]
    before = {
        name: tensor for name, tensor in weights(tmp_path / "model").items() if "rew_end" in name
    }
    config = load_model(tmp_path / "model").config
    untrained = load_family("diffusion").initialized(config, 0).state_dict()
    assert before and all(torch.equal(tensor, untrained[name]) for name, tensor in before.items())


@pytest.mark.parametrize("change", [{"checkpointing": True}, {"precision": "bf16"}])
def test_first_losses_are_those_of_plain_training(
    data: Path, tmp_path: Path, change: dict[str, Any]
) -> None:
    _, plain = run(options(data, tmp_path / "plain"))
    _, other = run(options(data, tmp_path / "other", **change))
    for stage in ("denoiser", "rewards"):
        assert other[stage][0] == pytest.approx(plain[stage][0], rel=0.05)
        assert np.isfinite(other[stage]).all()


def test_second_frame_is_denoised_on_the_first_as_it_was_predicted() -> None:
    """The loss beside a plain computation of it, frame by frame."""
    torch.manual_seed(0)
    model = DiffusionModel(MICRO)
    frames = torch.randint(0, 256, (3, 6, 16, 16, 3), dtype=torch.uint8)
    actions, sigma = torch.randint(0, 9, (3, 5)), torch.rand(3, 2) + 0.1
    noise, offset = torch.randn(3, 2, 3, 16, 16), torch.randn(3, 2, 3)
    inside = torch.tensor([[True, True], [True, True], [True, False]])
    found = DenoiserLoss(model.denoiser)(frames, actions, inside, sigma, noise, offset)
    shown = frames.permute(0, 1, 4, 2, 3).float() / 127.5 - 1
    errors = []
    for row in range(3):
        past = shown[row, :4]
        for k in range(2):
            clean, s = shown[row, 4 + k], sigma[row, k]
            noisy = clean + 0.3 * offset[row, k][:, None, None] + s * noise[row, k]
            denoised = model.denoiser(
                noisy[None], s[None], past[None], actions[row, k : k + 4][None]
            )[0]
            total = s**2 + 0.3**2
            weight = (total + 0.25) / (total * 0.25)  # Karras et al. 2022, table 1
            errors.append(((denoised - clean).square().mean() * weight).item())
            levels = (((denoised.clamp(-1, 1) + 1) / 2 * 255).floor() / 255) * 2 - 1
            past = torch.cat([past[1:], levels[None]])
    expected = np.mean(
        [np.mean([errors[0], errors[2], errors[4]]), np.mean([errors[1], errors[3]])]
    )
    assert found.item() == pytest.approx(expected, rel=1e-3)


def job_of(folder: Path) -> Job:
    clips = find_data([folder], size=16, validation=0.5, seed=0, actions=True)
    settings = dict.fromkeys(("denoiser", "rewards"), StageSettings(1, 64, 1e-3))
    rest: dict[str, Any] = {"accelerator": None, "progress": None, "tell": None}
    return Job(
        model=DiffusionModel(MICRO), clips=clips, options=options(folder, folder / "out"),
        settings=settings, **rest,
    )  # fmt: skip


def reward_stage(folder: Path) -> RewardStage:
    job = job_of(folder)
    return RewardStage(job.model, job.clips.training, job.clips.validation, job)


def test_noise_of_held_out_batches_is_of_no_step(data: Path) -> None:
    job = job_of(data)
    stage = DenoiserStage(job.model, job.clips.training, job.clips.validation, job)
    held_out = {value for batch in stage.held_out() for value in batch["sigma"].flatten().tolist()}
    assert len(stage.held_out()) > 1
    for step in range(len(stage.held_out())):
        assert held_out.isdisjoint(stage.batch(step, Share())["sigma"].flatten().tolist())


def test_rewards_and_ends_are_those_of_the_transitions_that_count(data: Path) -> None:
    batch = reward_stage(data).batch(0, Share())
    counts, actions = batch["counts"], batch["actions"]
    assert not counts[:, :4].any() and counts[:, 4].any()
    assert torch.equal(batch["signs"][counts], actions[counts] + 1)  # the reward is the action
    assert batch["ends"][counts].any() and not batch["ends"][counts].all()
    # where the episode ends, the frame behind is its final picture, and nothing counts after it
    for row, col in (batch["ends"].bool() & counts).nonzero().tolist():
        assert not counts[row, col + 1 :].any()
        moved = batch["frames"][row, col] != batch["frames"][row, col + 1]
        assert moved.any()


@pytest.mark.parametrize(
    ("count", "ends", "final", "line"),
    [
        (12, [], False, "ends: 0 in the clips for training, none of them with 4 transitions "),
        (12, [11], False, "ends: 1 in the clips for training, none of them with 4 transitions "),
        (12, [11], True, ""),
        (11, [10], False, ""),  # the last frame is the final picture
        (11, [2], False, "ends: 1 in the clips for training, none of them with 4 transitions "),
    ],
)
def test_ends_that_cannot_be_learned_are_one_line(
    tmp_path: Path, count: int, ends: list[int], final: bool, line: str
) -> None:
    for index in range(2):
        frames, actions = square_clip(12, index)
        given: dict[str, Any] = {"rewards": np.ones(count), "ends": np.isin(np.arange(count), ends)}
        if final:
            given["final"] = frames[0]
        np.savez(tmp_path / f"{index}.npz", frames=frames, actions=actions, **given)
    lines: list[str] = []
    job = dataclasses.replace(job_of(tmp_path), tell=lines.append)
    plans = DiffusionTraining().stages(job)
    assert [plan.name for plan in plans] == ["denoiser", "rewards"]
    assert lines == job.clips.skipped and len(lines) == bool(line)
    assert not line or lines[0].startswith(line)
    batch = reward_stage(tmp_path).batch(0, Share())
    assert (batch["ends"].bool() & batch["counts"]).any() == (not line)


@pytest.mark.parametrize(
    ("length", "rewards", "message"),
    [
        (4, False, "data: the longest of 1 training clips has 4 frames, expected 5 or more"),
        (5, False, ""),
        (5, True, "data: the longest of 1 training clips has 5 frames, expected 6 or more"),
        (6, True, ""),
    ],
)
def test_clips_of_which_nothing_counts_are_refused(
    tmp_path: Path, length: int, rewards: bool, message: str
) -> None:
    brought = (np.ones(length, np.float32), np.zeros(length, bool)) if rewards else ()
    for index in range(2):
        write_npz(tmp_path / f"{index}.npz", *square_clip(length, index), *brought)
    job = dataclasses.replace(job_of(tmp_path), tell=lambda line: None)
    if message:
        with pytest.raises(TrainingError, match=message):
            DiffusionTraining().stages(job)
        return
    DiffusionTraining().stages(job)
    held_out = DenoiserStage(job.model, job.clips.training, job.clips.validation, job).held_out()
    assert held_out[0]["inside"].any()
    if rewards:
        assert reward_stage(tmp_path).held_out()[0]["counts"].any()


def test_short_held_out_clips_are_refused_before_a_step(data: Path, tmp_path: Path) -> None:
    chosen = options(data, tmp_path / "model")
    clips = find_data([data], size=16, validation=0.1, seed=0, actions=True)
    for path in clips.paths[1]:
        write_npz(tmp_path / "data" / path.name, *square_clip(3, 0))
    for path in clips.paths[0]:
        (tmp_path / "data" / path.name).write_bytes(path.read_bytes())
    with pytest.raises(TrainingError, match=r"the longest of \d held-out clips has 3 frames"):
        run(dataclasses.replace(chosen, data=(tmp_path / "data",)))


def test_final_picture_of_a_recording_is_behind_its_last_frame(
    tmp_path: Path,
) -> None:
    for index in range(2):
        frames, actions = square_clip(12, index)
        write_npz(tmp_path / f"{index}.npz", frames, actions, np.ones(12, np.float32),
                  np.arange(12) == 11)  # fmt: skip
    stage = reward_stage(tmp_path)
    without = stage.batch(0, Share())
    assert not without["ends"][without["counts"]].any()  # nothing is known of what came behind
    picture = np.full((16, 16, 3), 7, np.uint8)
    finals = {len(stage._footage) - 1: zlib.compress(picture.tobytes())}
    stage._footage = dataclasses.replace(stage._footage, finals=finals)
    batch = stage.batch(0, Share())
    told = (batch["ends"].bool() & batch["counts"]).nonzero().tolist()
    assert len(told) == 8  # in each window with it behind the first four
    assert int(batch["counts"].sum()) == int(without["counts"].sum()) + 8
    for row, col in told:
        assert (batch["frames"][row, col + 1] == 7).all()


def test_loss_of_rewards_is_the_cross_entropy_of_what_counts() -> None:
    torch.manual_seed(0)
    model = DiffusionModel(MICRO).rew_end_model
    frames = torch.randint(0, 256, (2, 4, 16, 16, 3), dtype=torch.uint8)
    actions, signs = torch.randint(0, 9, (2, 3)), torch.randint(0, 3, (2, 3))
    ends, counts = torch.randint(0, 2, (2, 3)), torch.tensor([[False, True, True], [True] * 3])
    found = RewardLoss(model)(frames, actions, signs, ends, counts)
    shown = frames.permute(0, 1, 4, 2, 3).float() / 127.5 - 1
    logits, _ = model(shown[:, :-1], actions, shown[:, 1:])
    each = [
        F.cross_entropy(logits[b, t, :3], signs[b, t])
        + F.cross_entropy(logits[b, t, 3:], ends[b, t])
        for b, t in counts.nonzero().tolist()
    ]
    assert found.item() == pytest.approx(torch.stack(each).mean().item(), rel=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vqvae": Path("m")}, "vqvae: is of the family vqvae-transformer, got"),
        ({"vqvae_steps": 5}, "vqvae_steps: is of the family"),
        ({"self_fed": 0.1}, "self_fed: is of the family"),
        ({"stages": {"denoiser.depth": 5}}, "got denoiser.depth, expected denoiser.steps, "),
        ({"stages": {"vqvae.steps": 5}}, "stage: got vqvae.steps, expected denoiser.steps"),
        ({"stages": {"rewards.batch": 0.5}}, "got rewards.batch=0.5, expected a whole number"),
        ({"stages": {"rewards.rate": float("nan")}}, "got rewards.rate=nan, expected a number"),
        ({"actions": False}, "actions: got none, and a diffusion model is conditioned on them"),
    ],
)  # fmt: skip
def test_options_of_another_family_are_refused(
    data: Path, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(TrainingError, match=message):
        run(options(data, tmp_path / "model", **change))
    assert not list(tmp_path.iterdir())


def test_stage_settings_are_not_of_the_reference_family(data: Path, tmp_path: Path) -> None:
    chosen = TrainOptions(data=(data,), output=tmp_path / "m", stages={"vqvae.steps": 5})
    with pytest.raises(TrainingError, match="expected none, of the family vqvae-tr.*its own"):
        train(chosen)


def test_unknown_preset_is_refused_with_those_of_the_family(data: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="preset: got 'reference', expected one of diamond"):
        train(options(data, tmp_path / "model", preset="reference"))


def test_family_that_is_not_trained_here_says_so() -> None:
    with pytest.raises(TrainingError, match="family mean-pool: its models are not trained here"):
        MeanPoolFamily().training()
