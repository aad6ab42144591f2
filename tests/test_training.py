"""Training, on a square that moves: it learns, resumes exactly, and refuses what it must."""

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from wmdeploy.clips import write_npz
from wmdeploy.errors import ClipError, TrainingError
from wmdeploy.models.checkpoint import load_model
from wmdeploy.models.config import TemporalConfig, VQVAEConfig, WorldModelConfig
from wmdeploy.models.vqvae import VectorQuantizer
from wmdeploy.models.world_model import WorldModel
from wmdeploy.training import TrainOptions, TrainSummary
from wmdeploy.training.codebook import (
    merge_codes,
    revive_codes,
    start_codebook,
    straight_through,
)
from wmdeploy.training.data import Footage, epoch_batch, load_data
from wmdeploy.training.metrics import psnr
from wmdeploy.training.stages import TemporalStage
from wmdeploy.training.train import train

MICRO = WorldModelConfig(
    VQVAEConfig(16, (8, 8, 16), latent_channels=8, codebook_size=32),
    TemporalConfig(d_model=32, layers=1, heads=2, context=6),
)
SHORT = {"vqvae_steps": 12, "temporal_steps": 12, "checkpoint_every": 5}
Losses = dict[str, list[float]]


class Killed(BaseException):
    """Stands for a process that is killed: nothing may catch it."""


def square_clip(length: int, seed: int, actions: bool = True) -> tuple[np.ndarray, Any]:
    """A square of 4 pixels that action 1 moves right and action 0 left, around a ring of 16."""
    chosen = np.random.default_rng(seed).integers(0, 2, length)
    x = np.cumsum(np.r_[seed, 4 * chosen[:-1] - 2]) % 16
    frames = np.full((length, 16, 16, 3), (20, 40, 90), np.uint8)
    for t, left in enumerate(x):
        columns = (left + np.arange(4)) % 16
        frames[t][6:10, columns] = (240, 220, 60)
    return frames, chosen.astype(np.int64) if actions else None


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("squares")
    for index in range(5):
        write_npz(folder / f"clip-{index}.npz", *square_clip(48, index))
    return folder


def options(data: Path, output: Path, **changes: Any) -> TrainOptions:
    return TrainOptions((data,), output, **{**SHORT, **changes})


def run(
    chosen: TrainOptions, kill_at: tuple[str, int] | None = None
) -> tuple[TrainSummary, Losses]:
    losses: Losses = {}

    def report(stage: str, step: int, total: int, loss: float | None) -> None:
        assert 1 <= step <= total
        if loss is not None:
            losses.setdefault(stage, []).append(loss)
        if (stage, step) == kill_at:
            raise Killed

    return train(chosen, report, MICRO), losses


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


def test_training_learns_to_reconstruct_and_to_predict(data: Path, tmp_path: Path) -> None:
    steps = {"vqvae_steps": 400, "temporal_steps": 400, "checkpoint_every": 200}
    long = options(data, tmp_path / "model", **steps)
    summary, losses = run(long)
    for stage in ("vqvae", "temporal"):
        assert np.mean(losses[stage][-20:]) < 0.5 * np.mean(losses[stage][:20])
    found = summary.validation
    split = load_data([data], size=16, validation=0.1, seed=0, actions=True)
    held_out = np.concatenate([c.frames for c in split.validation.clips]).astype(float)
    mean_frame = split.training.frames(np.arange(len(split.training))).mean(0)
    assert found.psnr_reconstruction > psnr(float(np.square(held_out - mean_frame).mean())) + 3
    assert found.psnr_next > found.psnr_copy  # which needs the action: it decides the direction
    assert found.psnr_next <= found.psnr_ceiling + 0.5
    assert 1 < found.perplexity <= found.codes_used <= found.codebook_size == 32


def test_summary_tells_what_was_done(data: Path, tmp_path: Path) -> None:
    summary, losses = run(options(data, tmp_path / "model"))
    assert summary.fresh
    assert (summary.training_frames, summary.validation.frames) == (4 * 48, 48)
    assert summary.num_actions == 2
    assert len(losses["vqvae"]) == summary.vqvae_steps == 12
    assert len(losses["temporal"]) == summary.temporal_steps == 12
    assert summary.vqvae_seconds > 0 and summary.temporal_seconds > 0
    images = 12 * TrainOptions((data,), tmp_path).vqvae_batch
    assert summary.images_per_second == pytest.approx(images / summary.vqvae_seconds)
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
    [("vqvae", 3), ("vqvae", 10), ("vqvae", 12), ("encode", 48), ("temporal", 7), ("validate", 1)],
)
def test_killed_training_goes_on_to_the_same_weights(
    data: Path, tmp_path: Path, reference: Path, kill_at: tuple[str, int]
) -> None:
    chosen = options(data, tmp_path / "model")
    with pytest.raises(Killed):
        run(chosen, kill_at)
    assert not chosen.output.exists()
    _, losses = run(chosen)
    # steps from the last multiple of 5 on are done again, or none of a stage that was over
    repeated = {("vqvae", 3): 12, ("vqvae", 10): 2, ("vqvae", 12): 2}.get(kill_at, 0)
    assert len(losses.get("vqvae", [])) == repeated
    assert_equal_weights(chosen.output, reference)


def test_finished_model_is_not_trained_again(data: Path, reference: Path) -> None:
    summary, losses = run(options(data, reference, checkpoint_every=3))
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
    with pytest.raises(TrainingError, match="is no model directory"):
        run(options(data, tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_stranger_in_the_place_of_the_state_is_left_alone(data: Path, tmp_path: Path) -> None:
    (tmp_path / "model.train").mkdir()
    (tmp_path / "model.train" / "notes.txt").write_text("mine")
    with pytest.raises(TrainingError, match="no folder of an unfinished training"):
        run(options(data, tmp_path / "model"))
    assert (tmp_path / "model.train" / "notes.txt").read_text() == "mine"


def test_diverging_training_stops_and_keeps_the_last_state(data: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"vqvae, step \d+ of 12.*finite.*learning rate"):
        run(options(data, tmp_path / "model", vqvae_rate=1e30, checkpoint_every=1))
    state = torch.load(tmp_path / "model.train" / "state.pt", weights_only=True)
    assert state["step"] >= 1
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": ()}, "data: got no folder"),
        ({"vqvae_steps": 0}, "vqvae_steps: got 0, expected 1 or more"),
        ({"temporal_batch": -1}, "temporal_batch: got -1"),
        ({"temporal_rate": float("nan")}, "temporal_rate: got nan"),
        ({"validation": 1.0}, "validation: got 1.0"),
        ({"seed": -1}, "seed: got -1, expected 0 or more"),
    ],
)
def test_options_out_of_range_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        dataclasses.replace(TrainOptions((Path("a"),), Path("b")), **change)


def test_every_option_but_two_decides_the_weights() -> None:
    names = {field.name for field in dataclasses.fields(TrainOptions)}
    chosen = TrainOptions((Path("a"),), Path("b")).deciding()
    assert names - set(chosen) == {"output", "checkpoint_every"}
    assert json.loads(json.dumps(chosen)) == chosen


def test_clips_are_split_whole(data: Path) -> None:
    split = load_data([data], size=16, validation=0.4, seed=0, actions=True)
    names = [{clip.name for clip in part.clips} for part in (split.training, split.validation)]
    assert len(names[0]) == 3 and len(names[1]) == 2 and not names[0] & names[1]
    assert all(len(clip) == 48 for clip in (*split.training.clips, *split.validation.clips))


def test_footage_knows_where_clips_end(data: Path) -> None:
    clips = load_data([data], size=16, validation=0.1, seed=0, actions=True).training.clips
    short = dataclasses.replace(clips[0], frames=clips[0].frames[:3], actions=None)
    footage = Footage((short, clips[1]))
    assert footage.windows(7).tolist() == [0, *range(3, 3 + 48 - 7 + 1)]
    numbers, inside = footage.window_frames(np.array([0, 3]), 4)
    assert numbers.tolist() == [[0, 1, 2, 2], [3, 4, 5, 6]]
    assert inside.tolist() == [[True, True, True, False], [True] * 4]
    before, after = footage.neighbours(np.array([0, 2, 3, 50]))
    assert (before.tolist(), after.tolist()) == ([0, 1, 3, 49], [1, 2, 4, 50])
    assert np.array_equal(footage.frames(np.array([3]))[0], clips[1].frames[0])


def test_epochs_draw_every_number_once() -> None:
    numbers = np.arange(10, 22)
    first = np.concatenate([epoch_batch(numbers, 4, (0, 1), step) for step in range(3)])
    second = np.concatenate([epoch_batch(numbers, 4, (0, 1), step) for step in range(3, 6)])
    assert sorted(first) == sorted(second) == numbers.tolist()
    assert first.tolist() != second.tolist()
    assert len(epoch_batch(numbers, 50, (0, 1), 7)) == 12


def write_two(folder: Path, change: Callable[[np.ndarray, Any], tuple[np.ndarray, Any]]) -> Path:
    write_npz(folder / "0.npz", *square_clip(12, 0))
    write_npz(folder / "1.npz", *change(*square_clip(12, 1)))
    return folder


def test_single_frame_clip_is_named(tmp_path: Path) -> None:
    folder = write_two(tmp_path / "data", lambda frames, actions: (frames[:1], actions[:1]))
    with pytest.raises(TrainingError, match=r"1\.npz: has 1 frame"):
        run(options(folder, tmp_path / "model"))


def test_actions_of_only_some_clips_are_refused_unless_unused(tmp_path: Path) -> None:
    folder = write_two(tmp_path / "data", lambda frames, actions: (frames, None))
    with pytest.raises(TrainingError, match=r"1 of 2 clips have them, clip 1 has none"):
        run(options(folder, tmp_path / "model"))
    summary, _ = run(options(folder, tmp_path / "model", actions=False))
    assert summary.num_actions == 0


def test_unreadable_clip_is_named(tmp_path: Path) -> None:
    folder = write_two(tmp_path / "data", lambda frames, actions: (frames, actions))
    (folder / "2.npz").write_bytes(b"PK damaged")
    with pytest.raises(ClipError, match=r"2\.npz"):
        run(options(folder, tmp_path / "model"))


def test_too_many_frames_are_refused(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wmdeploy.training.data.MOST_BYTES", 100_000)
    with pytest.raises(TrainingError, match="240 frames of 16 x 16 need"):
        load_data([data], size=16, validation=0.1, seed=0, actions=True)


def test_clip_shorter_than_the_context_is_learned_from(tmp_path: Path) -> None:
    folder = write_two(tmp_path / "data", lambda frames, actions: (frames[:2], actions[:2]))
    write_npz(folder / "2.npz", *[part[:3] for part in square_clip(9, 2)])
    summary, losses = run(options(folder, tmp_path / "model"))
    assert np.isfinite(losses["temporal"]).all()
    assert np.isfinite(summary.validation.psnr_next)


def test_quantiser_passes_the_gradient_and_revives_dead_codes() -> None:
    torch.manual_seed(0)
    vq = VectorQuantizer(MICRO.vqvae)
    z = torch.randn(4, 8, 4, 4, requires_grad=True)
    start_codebook(vq, z)
    chosen, codes, commitment = straight_through(vq, z)
    assert torch.allclose(chosen, vq.lookup(codes), atol=1e-6)
    (gradient,) = torch.autograd.grad(chosen.sum(), z)
    assert torch.equal(gradient, torch.ones_like(z))
    assert commitment.item() > 0
    vq.ema_cluster_size[5] = 0
    vq.embedding.weight.data[5] = 1e3
    revive_codes(vq, z, codes)
    outputs = z.detach().permute(0, 2, 3, 1).reshape(-1, 8)
    assert (outputs == vq.embedding.weight[5]).all(1).any()


def near_codes() -> VectorQuantizer:
    """Four codes on a line: 0 and 1 nearly the same, 1 and 2 too, 3 far away; 1 is used most."""
    vq = VectorQuantizer(VQVAEConfig(16, (8, 8, 16), latent_channels=8, codebook_size=4))
    with torch.no_grad():
        vq.embedding.weight.zero_()
        vq.embedding.weight[:, 0] = torch.tensor([0.0, 0.3, 0.5, 9.0])
        vq.ema_cluster_size.copy_(torch.tensor([5.0, 50.0, 6.0, 7.0]))
    return vq


def test_codes_that_say_the_same_become_one() -> None:
    vq = near_codes()
    assert merge_codes(vq, error=0.03) == 2
    assert vq.embedding.weight[:, 0].tolist() == pytest.approx([0.3, 0.3, 0.3, 9.0])
    z = torch.zeros(1, 8, 2, 2)
    assert vq.nearest(z).unique().tolist() == [0]  # the first of equals, in any arithmetic
    assert merge_codes(near_codes(), error=0.0) == 0


def test_redundant_codes_start_again_where_they_are_needed() -> None:
    vq = near_codes()
    z = torch.zeros(1, 8, 2, 2)
    z[0, 0] = torch.tensor([[0.3, 0.3], [0.3, 5.0]])
    vq.ema_embed_avg.copy_(vq.embedding.weight * vq.ema_cluster_size[:, None])
    revive_codes(vq, z, vq.nearest(z))
    found = vq.embedding.weight[:, 0].tolist()
    assert found[1] == pytest.approx(0.3) and found[3] == pytest.approx(9.0)
    assert 5.0 in found  # the badly served output has a code of its own now


def test_transformer_is_fed_its_own_predictions_more_and_more(data: Path) -> None:
    torch.manual_seed(0)
    model = WorldModel(MICRO).initialize(0)
    footage = load_data([data], size=16, validation=0.2, seed=0, actions=False).training
    codes = torch.zeros(len(footage), MICRO.vqvae.positions, dtype=torch.int16)
    stage = TemporalStage(model, footage, codes, options(data, data / "out", temporal_steps=100))
    model.temporal_model.eval()  # no dropout: both passes predict the same
    latents = torch.randn(8, 6, MICRO.vqvae.latent_values)
    assert torch.equal(stage._self_fed(latents, None, 0), latents)
    shares = []
    for step in (40, 99):
        given = stage._self_fed(latents, None, step)
        assert torch.equal(given[:, 0], latents[:, 0]) and not given.requires_grad
        shares.append((given != latents).any(2).float().mean().item())
    assert 0 < shares[0] < shares[1] < 0.9
    first = (given != latents).any(2)[:, 1]  # where only real latents came before
    predicted = model.temporal_model(latents, None)[:, 0]
    torch.testing.assert_close(given[first, 1], predicted[first], rtol=1e-4, atol=1e-5)


def test_psnr_of_known_errors() -> None:
    assert psnr(255.0**2) == 0
    assert psnr(1.0) == pytest.approx(48.13, abs=0.01)
    assert psnr(0.0) == 100.0


def test_importing_the_package_loads_no_torch() -> None:
    program = "import sys, wmdeploy.training; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
