import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.conftest import GOLDEN, MICRO
from wmdeploy.errors import CheckpointError, WmdeployError
from wmdeploy.families import load_model, save_model
from wmdeploy.families.reference.family import reference_model
from wmdeploy.families.reference.world_model import WorldModel


@pytest.fixture
def saved(micro: WorldModel, tmp_path: Path) -> Path:
    save_model(micro, tmp_path / "model", {"trained on": "nothing"})
    return tmp_path / "model"


def edit(saved: Path, change: Any) -> None:
    state = load_file(saved / "model.safetensors")
    change(state)
    save_file(state, saved / "model.safetensors")


def test_model_directory_round_trip_is_exact(micro: WorldModel, saved: Path) -> None:
    loaded = reference_model(load_model(saved))
    assert loaded.config == MICRO and not loaded.training
    for name, tensor in micro.state_dict().items():
        assert torch.equal(tensor, loaded.state_dict()[name]), name
    latents = torch.zeros(1, 3, MICRO.vqvae.latent_values)
    assert torch.equal(micro.temporal_model(latents), loaded.temporal_model(latents))


def test_preset_gives_the_weights_of_the_seed() -> None:
    a, b = (reference_model(load_model("tiny", seed=seed)) for seed in (1, 2))
    assert not torch.equal(a.vqvae.vq.embedding.weight, b.vqvae.vq.embedding.weight)


def test_reference_checkpoint_saved_by_us_is_the_same_model(tmp_path: Path) -> None:
    original = reference_model(load_model(GOLDEN / "best.pt"))
    save_model(original, tmp_path / "model")
    again = reference_model(load_model(tmp_path / "model"))
    latents = torch.randn(1, 3, 4096, generator=torch.Generator().manual_seed(0))
    assert torch.equal(original.temporal_model(latents), again.temporal_model(latents))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("temporal_model.norm.bias"), "temporal_model.norm.bias.* is missing"),
        (lambda s: s.update(stray=torch.zeros(1)), 'tensor "stray" is not one of this model'),
        (
            lambda s: s.update({"temporal_model.norm.bias": torch.zeros(3)}),
            r"got shape \(3,\), expected \(32,\)",
        ),
        (
            lambda s: s.update(
                {"temporal_model.norm.bias": torch.full((32,), 1e300, dtype=torch.float64)}
            ),
            "holds NaN or infinity in float32",
        ),
        (lambda s: s["temporal_model.norm.bias"].fill_(float("nan")), "holds NaN or infinity"),
        (
            lambda s: s.update({"temporal_model.norm.bias": torch.zeros(32, dtype=torch.int64)}),
            "expected finite floats",
        ),
    ],
)
def test_wrong_tensors_are_named(saved: Path, change: Any, message: str) -> None:
    edit(saved, change)
    with pytest.raises(CheckpointError, match=message):
        load_model(saved)


def test_truncated_weights_are_refused(saved: Path) -> None:
    os.truncate(saved / "model.safetensors", 1000)
    with pytest.raises(CheckpointError, match="damaged or no safetensors file"):
        load_model(saved)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not readable as JSON"),
        ("[]", "got schema None, expected 1"),
        ('{"schema": 2}', "got schema 2, expected 1"),
        ('{"schema": 1, "config": {"vqvae": 3}}', "Expected `object`, got `int`"),
        ('{"schema": 1}', "Expected `object`, got `null`"),
    ],
)
def test_wrong_config_is_explained(saved: Path, text: str, message: str) -> None:
    (saved / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match=message):
        load_model(saved)


def test_config_that_does_not_fit_the_weights_is_refused(saved: Path) -> None:
    document = json.loads((saved / "config.json").read_text())
    document["config"]["temporal"]["d_model"] = 64
    (saved / "config.json").write_text(json.dumps(document))
    with pytest.raises(CheckpointError, match="got shape .* expected"):
        load_model(saved)


def test_setting_that_this_version_lacks_is_refused(saved: Path) -> None:
    document = json.loads((saved / "config.json").read_text())
    document["config"]["temporal"]["residual"] = False  # what older versions wrote of all models
    (saved / "config.json").write_text(json.dumps(document))
    assert load_model(saved).config == MICRO
    document["config"]["temporal"]["residual"] = True
    (saved / "config.json").write_text(json.dumps(document))
    with pytest.raises(CheckpointError, match=r"temporal.residual: got True, .* no such setting"):
        load_model(saved)


class Bomb:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return Path.touch, (self.target,)


@pytest.mark.parametrize("writer", ["torch", "pickle"])
def test_pickle_with_code_is_refused_and_not_executed(tmp_path: Path, writer: str) -> None:
    path, fuse = tmp_path / "evil.pt", tmp_path / "exploded"
    if writer == "torch":
        torch.save({"model_state_dict": Bomb(fuse)}, path)
    else:
        path.write_bytes(pickle.dumps(Bomb(fuse)))
    with pytest.raises(CheckpointError, match="it was not executed"):
        load_model(path)
    assert not fuse.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"epoch": 3}, "expected a dict with 'model_state_dict'"),
        ([1, 2], "got list"),
        ({"model_state_dict": {"x": torch.zeros(1)}}, "is missing; not a world model"),
        ({"model_state_dict": {"x": "text"}}, "expected a dict with 'model_state_dict'"),
    ],
)
def test_pt_that_is_no_world_model_is_explained(tmp_path: Path, content: Any, message: str) -> None:
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match=message):
        load_model(tmp_path / "other.pt")


def reference_state() -> dict[str, torch.Tensor]:
    document = torch.load(GOLDEN / "best.pt", weights_only=True)
    state: dict[str, torch.Tensor] = document["model_state_dict"]
    return state


def test_half_precision_reference_checkpoint_loads(tmp_path: Path) -> None:
    half = {name: tensor.half() for name, tensor in reference_state().items()}
    torch.save(half, tmp_path / "half.pt")
    model = reference_model(load_model(tmp_path / "half.pt"))
    assert model.dtype == torch.float32 and model.config.temporal.context == 6


@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        ("temporal_model.pos_encoding.pe", torch.zeros(1, 6, 32)),
        ("temporal_model.pos_encoding.pe", torch.zeros(1, 0, 64)),
        ("temporal_model.pos_encoding.pe", torch.zeros(1, 6, 64)),
        ("vqvae.vq.embedding.weight", torch.zeros(32, 0)),
        ("vqvae.vq.embedding.weight", torch.zeros(32, 4).to_sparse()),
        ("vqvae.encoder.encoder.x.1.conv1.weight", torch.zeros(1)),
        ("temporal_model.latent_proj.weight", torch.zeros(3)),
    ],
)
def test_malformed_reference_checkpoint_is_explained(
    tmp_path: Path, name: str, tensor: torch.Tensor
) -> None:
    torch.save(reference_state() | {name: tensor}, tmp_path / "bad.pt")
    with pytest.raises(CheckpointError, match="bad.pt|tensor|model config"):
        load_model(tmp_path / "bad.pt")


@pytest.mark.parametrize("content", [b"this is no model", b"\x80", bytes(300), b"PK\x03\x04" * 9])
def test_bytes_that_are_no_checkpoint_are_explained(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "noise.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match="noise.pt"):
        load_model(tmp_path / "noise.pt")


@pytest.mark.parametrize("size", [0, 100, 100_000])
def test_truncated_pt_is_explained(tmp_path: Path, size: int) -> None:
    path = tmp_path / "short.pt"
    path.write_bytes((GOLDEN / "best.pt").read_bytes()[:size])
    with pytest.raises(CheckpointError, match=str(path)):
        load_model(path)


def test_unknown_source_lists_what_is_possible() -> None:
    with pytest.raises(CheckpointError, match="one of the presets reference, small, tiny"):
        load_model("referense")


def test_saving_never_replaces_a_strangers_directory(micro: WorldModel, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.tex").write_text("mine")
    with pytest.raises(WmdeployError, match="not ours to replace"):
        save_model(micro, tmp_path / "thesis")
    assert (tmp_path / "thesis" / "chapter1.tex").read_text() == "mine"
