import dataclasses
import json

import pytest
import torch

from tests.conftest import MICRO
from wmdeploy.errors import CheckpointError
from wmdeploy.families.directory import parse_config
from wmdeploy.families.reference.config import PRESETS, VQVAEConfig
from wmdeploy.families.reference.family import ReferenceFamily
from wmdeploy.families.reference.temporal import sinusoidal_positions
from wmdeploy.families.reference.world_model import (
    WorldModel,
    count_parameters,
    to_pixels,
    to_signal,
)


def test_reference_parameter_counts_are_the_published_ones() -> None:
    with torch.device("meta"):
        model = WorldModel(PRESETS["reference"])
    assert count_parameters(model.vqvae) == 24_696_067
    assert count_parameters(model.temporal_model) == 287_613_440
    assert count_parameters(model) == 312_309_507


@pytest.mark.parametrize(("name", "values"), [("reference", 262_144), ("small", 16_384)])
def test_preset_latents_have_their_size(name: str, values: int) -> None:
    assert PRESETS[name].vqvae.latent_values == values


def test_num_actions_of_zero_adds_no_parameter() -> None:
    with torch.device("meta"):
        plain, acted = (WorldModel(MICRO.with_actions(n)) for n in (0, 5))
    assert set(acted.state_dict()) - set(plain.state_dict()) == {
        "temporal_model.action_embedding.weight"
    }


def test_config_survives_json_types() -> None:
    for config in PRESETS.values():
        data = json.loads(json.dumps(dataclasses.asdict(config)))
        assert parse_config(ReferenceFamily(), data) == config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"widths": (8, 12, 16)}, "widths: got .* expected positive multiples of 8"),
        ({"image_size": 66}, "image_size: got 66, expected a positive multiple of 8"),
        ({"codebook_size": 1}, "codebook_size: got 1, expected > 1"),
    ],
)
def test_config_refuses_sizes_that_cannot_work(change: dict, message: str) -> None:
    good = VQVAEConfig(64, (16, 32, 32, 64), 16, 128)
    with pytest.raises(CheckpointError, match=message):
        dataclasses.replace(good, **change)


def test_positions_are_the_table_of_the_paper() -> None:
    table = sinusoidal_positions(4, 6)
    for position in range(4):
        for i in range(3):
            angle = torch.tensor(position / 10000 ** (2 * i / 6))
            assert table[position, 2 * i] == pytest.approx(float(torch.sin(angle)), abs=1e-6)
            assert table[position, 2 * i + 1] == pytest.approx(float(torch.cos(angle)), abs=1e-6)


def test_initialize_depends_on_the_seed_alone() -> None:
    torch.manual_seed(5)
    a = WorldModel(MICRO).initialize(3).state_dict()
    torch.manual_seed(6)
    b = WorldModel(MICRO).initialize(3).state_dict()
    c = WorldModel(MICRO).initialize(4).state_dict()
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert not torch.equal(a["vqvae.vq.embedding.weight"], c["vqvae.vq.embedding.weight"])


def test_pixels_and_signal_are_inverse() -> None:
    every = torch.arange(256, dtype=torch.uint8).view(1, 16, 16, 1).expand(-1, -1, -1, 3)
    signal = to_signal(every)
    assert float(signal.min()) == -1 and float(signal.max()) == 1
    assert torch.equal(to_pixels(signal), every)
    assert to_pixels(torch.tensor([-3.0, 3.0]).view(1, 1, 1, 2)).flatten().tolist() == [0, 255]


def test_transformer_is_causal(micro: WorldModel) -> None:
    latents = torch.randn(
        1, 5, MICRO.vqvae.latent_values, generator=torch.Generator().manual_seed(0)
    )
    changed = latents.clone()
    changed[:, 3:] += 1
    a, b = micro.temporal_model(latents), micro.temporal_model(changed)
    torch.testing.assert_close(a[:, :3], b[:, :3])
    assert not torch.allclose(a[:, 3], b[:, 3])


def test_actions_change_the_prediction_and_are_required(micro_actions: WorldModel) -> None:
    latents = torch.zeros(1, 2, MICRO.vqvae.latent_values)
    a = micro_actions.temporal_model(latents, torch.tensor([[0, 1]]))
    b = micro_actions.temporal_model(latents, torch.tensor([[0, 2]]))
    torch.testing.assert_close(a[:, 0], b[:, 0])
    assert not torch.allclose(a[:, 1], b[:, 1])
    with pytest.raises(ValueError, match="expected an action for every frame"):
        micro_actions.temporal_model(latents)


def test_nearest_codes_are_nearest(micro: WorldModel) -> None:
    z = torch.randn(2, 8, 8, 8, generator=torch.Generator().manual_seed(0))
    codes = micro.vqvae.vq.nearest(z)
    distances = torch.cdist(z.flatten(2).transpose(1, 2), micro.vqvae.vq.embedding.weight[None])
    assert torch.equal(codes, distances.argmin(-1))
    assert micro.vqvae.vq.lookup(codes).shape == z.shape
