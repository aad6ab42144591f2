"""Checkpoints of authors' code: what they share, and what they may not."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from wmdeploy.errors import CheckpointError
from wmdeploy.families import load_family, load_model
from wmdeploy.families.convert import convert


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> dict[str, Tensor]:
    """The tensors of a model, which the reference family here takes from behind `model.`."""
    family = load_family("vqvae-transformer")
    model: Any = load_model("tiny")

    def inside(tensors: dict[str, Tensor]) -> tuple[Any, dict[str, Tensor]]:
        held = {n.removeprefix("model."): t for n, t in tensors.items() if n.startswith("model.")}
        return model.config, held

    monkeypatch.setattr(family, "convert", inside)
    return {f"model.{name}": tensor for name, tensor in model.state_dict().items()}


def test_a_tensor_may_have_two_names(known: dict[str, Tensor], tmp_path: Path) -> None:
    """An agent's policy holds the world model again, and torch saves it once."""
    again = {f"policy.{name}": tensor for name, tensor in known.items()}
    torch.save({**known, **again}, tmp_path / "agent.pt")
    convert(tmp_path / "agent.pt", "vqvae-transformer", tmp_path / "model")
    state = load_model(tmp_path / "model").state_dict()
    assert all(torch.equal(tensor, known[f"model.{name}"]) for name, tensor in state.items())


def test_tensors_of_a_model_share_nothing(known: dict[str, Tensor], tmp_path: Path) -> None:
    """Else a small file would take any memory."""
    one = torch.zeros(max(tensor.numel() for tensor in known.values()))
    shared = {name: one[: t.numel()].view(t.shape) for name, t in known.items()}
    torch.save(shared, tmp_path / "agent.pt")
    with pytest.raises(CheckpointError, match="its tensors share memory"):
        convert(tmp_path / "agent.pt", "vqvae-transformer", tmp_path / "model")
