"""The parts of a training: spans, footage, codes on disk, the codebook, losses."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.squares import square_clip
from tests.training.test_train import MICRO, options
from wmdeploy.clips import RecordOptions, record, write_npz
from wmdeploy.clips.footage import Footage, Spans, read_footage
from wmdeploy.errors import ClipError, TrainingError
from wmdeploy.families.reference.config import VQVAEConfig
from wmdeploy.families.reference.vqvae import VectorQuantizer
from wmdeploy.families.reference.world_model import WorldModel
from wmdeploy.training.codebook import merge_codes, revive_codes, start_codebook
from wmdeploy.training.codes import CodedFootage, load_codes, origin, save_codes
from wmdeploy.training.data import epoch_batch, find_data
from wmdeploy.training.loop import Share, learning_rate
from wmdeploy.training.temporal_stage import TemporalStage
from wmdeploy.training.vqvae_stage import VQVAEStage


@pytest.fixture(scope="module")
def data(squares: Path) -> Path:
    return squares


def footage(data: Path) -> Footage:
    return find_data([data], size=16, validation=0.2, seed=0, actions=True).training


def coded(footage: Footage, codes: torch.Tensor) -> CodedFootage:
    assert footage.actions is not None
    return CodedFootage(footage.spans, codes, torch.from_numpy(footage.actions))


def test_spans_know_where_clips_end() -> None:
    spans = Spans((3, 48), ("a", "b"))
    assert len(spans) == 51
    assert spans.windows(7).tolist() == [0, *range(3, 3 + 48 - 7 + 1)]
    numbers, inside = spans.window_frames(np.array([0, 3]), 4)
    assert numbers.tolist() == [[0, 1, 2, 2], [3, 4, 5, 6]]
    assert inside.tolist() == [[True, True, True, False], [True] * 4]
    assert [spans.place(n) for n in (0, 2, 3, 50)] == [
        "frame 0 of a", "frame 2 of a", "frame 0 of b", "frame 47 of b",
    ]  # fmt: skip


def test_footage_gives_back_every_frame_and_its_action(data: Path) -> None:
    clips = find_data([data], size=16, validation=0.4, seed=0, actions=True)
    assert [len(side) for side in clips.paths] == [3, 2]
    assert not set(clips.paths[0]) & set(clips.paths[1])
    found = clips.training
    for index, path in enumerate(clips.paths[0]):
        with np.load(path) as stored:
            assert np.array_equal(found.clip(index), stored["frames"])
            actions = found.clip_actions(index)
            assert actions is not None and np.array_equal(actions, stored["actions"])
    some = found.frames(np.array([50, 0, 50]))
    assert np.array_equal(some[0], some[2]) and np.array_equal(some[0], found.clip(1)[2])
    assert clips.training is found  # read once


def test_data_has_another_hash_when_a_file_or_the_split_changes(data: Path, tmp_path: Path) -> None:
    def digest(seed: int = 0) -> str:
        return find_data([data], size=16, validation=0.2, seed=seed, actions=True).sha256()

    first = digest()
    assert digest() == first and digest(seed=1) != first
    path = data / "clip-0.npz"
    kept = path.read_bytes()
    write_npz(path, *square_clip(48, 99))
    try:
        assert digest() != first
    finally:
        path.write_bytes(kept)


def test_games_whose_actions_differ_are_not_mixed(tmp_path: Path) -> None:
    pytest.importorskip("ale_py", reason="needs the extra 'train'")
    for game in ("pong", "breakout"):
        record(RecordOptions(game=game, frames=64, size=16), tmp_path / game)
        record(
            RecordOptions(game=game, frames=64, size=16, all_actions=True), tmp_path / f"{game}18"
        )
    both = [tmp_path / "pong", tmp_path / "breakout"]
    with pytest.raises(TrainingError, match=r"Pong has 6, Breakout has 4.*record all actions"):
        find_data(both, size=16, validation=0.1, seed=0, actions=True)
    assert find_data(both, size=16, validation=0.1, seed=0, actions=False).num_actions == 0
    both = [tmp_path / "pong18", tmp_path / "breakout18"]
    clips = find_data(both, size=16, validation=0.1, seed=0, actions=True)
    assert clips.num_actions == 18
    assert {path.parent.name for path in clips.paths[1]} == {"pong18", "breakout18"}


def test_epochs_draw_every_number_once() -> None:
    numbers = np.arange(10, 22)
    first = np.concatenate([epoch_batch(numbers, 4, (0, 1), step) for step in range(3)])
    second = np.concatenate([epoch_batch(numbers, 4, (0, 1), step) for step in range(3, 6)])
    assert sorted(first) == sorted(second) == numbers.tolist()
    assert first.tolist() != second.tolist()
    assert len(epoch_batch(numbers, 50, (0, 1), 7)) == 12


def test_codes_on_disk_are_used_only_if_they_are_the_right_ones(tmp_path: Path) -> None:
    path = tmp_path / "codes.safetensors"
    made = CodedFootage(
        Spans((2, 3), ("a", "b")),
        torch.arange(20, dtype=torch.int16).view(5, 4),
        torch.arange(5),
    )
    save_codes(made, path, "origin")
    found = load_codes(path, "origin")
    assert found is not None and found.spans == made.spans
    assert torch.equal(found.codes, made.codes)
    assert found.actions is not None and torch.equal(found.actions, torch.arange(5))
    assert load_codes(path, "another") is None
    assert load_codes(tmp_path / "none", "origin") is None
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))  # one bit of the last tensor
    assert load_codes(path, "origin") is None
    path.write_bytes(whole[:100])
    assert load_codes(path, "origin") is None


def test_origin_of_codes_is_the_vqvae_and_the_clips() -> None:
    left, right = (WorldModel(MICRO).initialize(0).vqvae for _ in range(2))
    assert origin(left, "clips") == origin(right, "clips") != origin(left, "others")
    with torch.no_grad():
        next(right.encoder.parameters())[0] += 1e-6
    assert origin(left, "clips") != origin(right, "clips")


def test_clips_trained_on_before_are_not_held_out(data: Path, tmp_path: Path) -> None:
    for index in range(6):
        write_npz(tmp_path / "copies" / f"clip-{index}.npz", *square_clip(20, index % 3))
    clips = find_data([tmp_path / "copies"], size=16, validation=0.5, seed=0, actions=True)
    held_out = set(clips.digests(1))
    shared = held_out & set(clips.digests(0))
    assert shared and held_out - shared  # of the three clips some lie on both sides
    before = len(clips.paths[1])
    clips.hold_out([])
    assert set(clips.digests(1)) == held_out - shared
    assert len(clips.validation) == 20 * len(clips.paths[1])
    assert len(clips.skipped) == before - len(clips.paths[1])
    with pytest.raises(ClipError, match="held-out clips were trained on before"):
        clips.hold_out(clips.digests(1))


def test_folders_of_the_same_name_are_told_apart(tmp_path: Path) -> None:
    paths = []
    for parent in ("one/pong", "two/pong", "two/boxing"):
        paths.append(tmp_path / parent / "clip.npz")
        write_npz(paths[-1], *square_clip(4, 0))
    found = read_footage(paths, 16, True, [])
    assert found.groups == (str(paths[0].parent), str(paths[1].parent), "boxing")


def test_footage_has_actions_only_if_every_clip_has_them(tmp_path: Path) -> None:
    paths = [tmp_path / "a.npz", tmp_path / "b.npz"]
    write_npz(paths[0], *square_clip(4, 0, actions=False))
    write_npz(paths[1], *square_clip(4, 0))
    assert read_footage(paths, 16, True, []).actions is None
    assert read_footage(paths[1:], 16, True, []).actions is not None


def test_codebook_in_use_is_not_started_again(data: Path) -> None:
    """Whatever share of the stage is over when it goes on: 0.15 is where it starts."""
    model = WorldModel(MICRO).initialize(0)
    stage = VQVAEStage(model.vqvae, footage(data), footage(data), options(data, data))
    for used in (0.0, 1.0):
        model.vqvae.vq.ema_cluster_size.fill_(used)
        stage.resume(0.15)
        assert stage.module.started == (used > 0)


def test_learning_rate_rises_and_falls() -> None:
    rates = [learning_rate(step / 1000, step, 1000, 2.0) for step in range(1000)]
    assert rates[0] == pytest.approx(2 / 50, rel=0.01)
    assert max(rates) == pytest.approx(2.0, rel=0.02) and rates.index(max(rates)) == 49
    assert rates[-1] == pytest.approx(0.04, rel=0.1)


def test_pairs_say_what_moves_and_what_stands_still(data: Path) -> None:
    model = WorldModel(MICRO).initialize(0)
    shown = footage(data)
    stage = VQVAEStage(model.vqvae, shown, shown, options(data, data / "out"))
    batch = stage.batch(0, Share())
    before, after = (part.numpy().astype(int) for part in batch["frames"].chunk(2))
    moved = np.abs(before - after).max(3)
    assert batch["changed"].any() and np.array_equal(batch["changed"].numpy(), moved > 16)
    patches = moved.reshape(len(moved), 4, 4, 4, 4).max((2, 4)).reshape(len(moved), -1)
    assert np.array_equal(batch["static"].numpy(), patches == 0)


def test_still_positions_are_given_the_code_of_the_frame_before(data: Path) -> None:
    model = WorldModel(MICRO).initialize(0)
    shown = footage(data)
    stage = VQVAEStage(model.vqvae, shown, shown, options(data, data / "out"))
    module = stage.module.eval()
    torch.manual_seed(0)
    z = torch.randn(4, 8, 4, 4)
    static = torch.zeros(2, 16, dtype=torch.bool)
    static[:, :10] = True
    given, _ = module._quantised(z, static)
    before, after = model.vqvae.vq.nearest(given).chunk(2)
    assert torch.equal(before[:, :10], after[:, :10])
    own = model.vqvae.vq.nearest(z)
    assert torch.equal(before, own[:2]) and torch.equal(after[:, 10:], own[2:, 10:])
    leaf = z.clone().requires_grad_()
    chosen, commitment = module._quantised(leaf, static)
    (gradient,) = torch.autograd.grad(chosen.sum(), leaf)
    assert torch.equal(gradient, torch.ones_like(z))  # straight through
    assert commitment.item() > 0


def test_loss_is_the_error_of_the_next_latent_over_their_variance(data: Path) -> None:
    model = WorldModel(MICRO).initialize(0).eval()
    shown = footage(data)
    torch.manual_seed(0)
    codes = coded(shown, torch.randint(0, 32, (len(shown), 16), dtype=torch.int16))
    stage = TemporalStage(model, codes, codes, options(data, data / "out"))
    batch = stage.batch(0, Share())
    batch.pop("actions", None)
    batch["inside"][:, -2:] = False  # as at the end of a clip
    latents = model.vqvae.vq.embedding(batch["codes"].long()).transpose(2, 3).flatten(2)
    predicted = model.temporal_model(latents[:, :-1])
    error = (predicted - latents[:, 1:]).square()[:, :-2].mean() / stage.module.variance
    assert stage.module(**batch).item() == pytest.approx(error.item(), rel=1e-3)


def test_dead_codes_are_revived_at_outputs() -> None:
    torch.manual_seed(0)
    vq = VectorQuantizer(MICRO.vqvae)
    z = torch.randn(4, 8, 4, 4)
    start_codebook(vq, z)
    codes = vq.nearest(z)
    vq.ema_cluster_size[5] = 0
    vq.embedding.weight.data[5] = 1e3
    revive_codes(vq, z, codes)
    outputs = z.permute(0, 2, 3, 1).reshape(-1, 8)
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
    shown = footage(data)
    codes = coded(shown, torch.zeros(len(shown), MICRO.vqvae.positions, dtype=torch.int16))
    module = TemporalStage(model, codes, codes, options(data, data / "out")).module
    model.temporal_model.eval()  # no dropout: both passes predict the same
    latents = torch.randn(8, 6, MICRO.vqvae.latent_values)
    assert torch.equal(module.self_fed(latents, None), latents)
    shares = []
    for done in (0.4, 0.99):
        module.done = done
        given = module.self_fed(latents, None)
        assert torch.equal(given[:, 0], latents[:, 0]) and not given.requires_grad
        shares.append((given != latents).any(2).float().mean().item())
    assert 0 < shares[0] < shares[1] < 0.9
    first = (given != latents).any(2)[:, 1]  # where only real latents came before
    predicted = model.temporal_model(latents, None)[:, 0]
    torch.testing.assert_close(given[first, 1], predicted[first], rtol=1e-4, atol=1e-5)
