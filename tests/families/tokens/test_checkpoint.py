"""Checkpoints as the authors' program saves them."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from wmdeploy.errors import CheckpointError
from wmdeploy.families import family_of, load_model, save_model
from wmdeploy.families.convert import convert
from wmdeploy.families.tokens.config import PRESETS
from wmdeploy.families.tokens.family import TokensFamily
from wmdeploy.families.tokens.network import TokensModel

NAMES = {  # of the published program, with the published shapes
    "tokenizer.encoder.conv_in.weight": (64, 3, 3, 3),
    "tokenizer.encoder.down.0.block.1.norm1.weight": (64,),
    "tokenizer.encoder.down.2.attn.0.proj_out.weight": (64, 64, 1, 1),
    "tokenizer.encoder.down.3.downsample.conv.weight": (64, 64, 3, 3),
    "tokenizer.encoder.mid.attn_1.q.weight": (64, 64, 1, 1),
    "tokenizer.encoder.norm_out.bias": (64,),
    "tokenizer.encoder.conv_out.weight": (512, 64, 3, 3),
    "tokenizer.decoder.conv_in.weight": (64, 512, 3, 3),
    "tokenizer.decoder.up.3.attn.2.norm.weight": (64,),
    "tokenizer.decoder.up.4.upsample.conv.weight": (64, 64, 3, 3),
    "tokenizer.embedding.weight": (512, 512),
    "tokenizer.pre_quant_conv.weight": (512, 512, 1, 1),
    "tokenizer.post_quant_conv.bias": (512,),
    "world_model.pos_emb.weight": (340, 256),
    "world_model.embedder.embedding_tables.0.weight": (4, 256),
    "world_model.embedder.embedding_tables.1.weight": (512, 256),
    "world_model.transformer.blocks.9.ln1.weight": (256,),
    "world_model.transformer.blocks.9.attn.key.weight": (256, 256),
    "world_model.transformer.blocks.0.mlp.0.weight": (1024, 256),
    "world_model.transformer.ln_f.bias": (256,),
    "world_model.head_observations.head_module.2.weight": (512, 256),
    "world_model.head_rewards.head_module.2.weight": (3, 256),
    "world_model.head_ends.head_module.0.weight": (256, 256),
}


def test_published_sizes() -> None:
    with torch.device("meta"):
        model = TokensModel(PRESETS["iris"])
    state = model.state_dict()
    assert {name: tuple(state[name].shape) for name in NAMES} == NAMES
    parameters = TokensFamily().facts(model).parameters
    assert parameters == {"all": 12_475_016, "tokenizer": 4_027_523, "transformer": 8_447_493}


def authors(model: TokensModel, counted: bool = True) -> dict[str, Tensor]:
    """What the authors' program saves of an agent."""
    state = dict(model.state_dict())
    sizes = model.config.transformer
    positions = model.config.positions
    mask = torch.ones(positions, positions).tril()
    for layer in range(sizes.layers):
        state[f"world_model.transformer.blocks.{layer}.attn.mask"] = mask.clone()
    if counted:
        each = model.config.tokenizer.tokens + 1
        ends = torch.arange(sizes.frames) * each + each - 1
        state |= {f"world_model.head_{n}.indices": ends.clone() for n in ("rewards", "ends")}
    state["tokenizer.lpips.net.slice1.0.weight"] = torch.zeros(4, 3, 3, 3)
    state["actor_critic.lstm.weight_ih"] = torch.zeros(8, 4)
    state["actor_critic.model.world_model.weight"] = torch.zeros(2)
    return state


def test_a_checkpoint_becomes_a_model_directory(tmp_path: Path) -> None:
    """Sizes from the shapes; the number of heads is the published one."""
    sizes = PRESETS["tiny"]
    config = type(sizes)(
        sizes.tokenizer,
        type(sizes.transformer)(num_actions=6, frames=5, layers=3, heads=4, d_model=64),
    )
    model = TokensFamily().initialized(config, 1)
    assert isinstance(model, TokensModel)
    torch.save(authors(model), tmp_path / "last.pt")
    assert convert(tmp_path / "last.pt", "tokens", tmp_path / "model") == []
    again = load_model(tmp_path / "model")
    assert again.config == config
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], tensor, rtol=0, atol=0)


def test_without_counts_frames_are_as_published() -> None:
    with torch.device("meta"):
        model = TokensModel(PRESETS["iris"])
    state = {name: torch.zeros(1).expand(t.shape) for name, t in model.state_dict().items()}
    config, _ = TokensFamily().convert({f"agent.{name}": t for name, t in state.items()})
    assert config == PRESETS["iris"]


def drop(name: str) -> Callable[[dict[str, Tensor]], object]:
    return lambda state: state.pop(name)


def put(name: str, tensor: Tensor) -> Callable[[dict[str, Tensor]], object]:
    return lambda state: state.__setitem__(name, tensor)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop("world_model.pos_emb.weight"), "pos_emb.weight' of the family tokens is missing"),
        (put("world_model.pos_emb.weight", torch.zeros(31, 64)), "got 31 positions for 6 frames"),
        (put("tokenizer.embedding.weight", torch.zeros(4)), r"got shape \(4,\), expected 2 axes"),
        (
            put("tokenizer.encoder.conv_in.weight", torch.zeros(20, 3, 3, 3)),
            "tokenizer.width: got 20, expected multiples of 32",
        ),
        (
            put("world_model.head_ends.head_module.2.weight", torch.zeros(7, 64)),
            r"head_ends.head_module.2.weight\": got shape \(7, 64\), expected \(2, 64\)",
        ),
        (drop("world_model.transformer.ln_f.bias"), 'ln_f.bias" is missing'),
        (put("tokenizer.more", torch.zeros(2)), 'tokenizer.more" is not one of this model'),
        (
            put("world_model.transformer.blocks.0.attn.mask", torch.ones(30, 30)),
            "attention is not causal",
        ),
        (
            put("old.world_model.pos_emb.weight", torch.zeros(30, 64)),
            'pos_emb.weight" twice',
        ),
    ],
)
def test_what_is_no_token_model_is_refused_in_one_line(
    change: Callable[[dict[str, Tensor]], object],
    message: str,
    tiny: TokensModel,
    tmp_path: Path,
) -> None:
    state = authors(tiny)
    change(state)
    torch.save(state, tmp_path / "last.pt")
    with pytest.raises(CheckpointError, match=message) as error:
        convert(tmp_path / "last.pt", "tokens", tmp_path / "model")
    assert "\n" not in str(error.value) and not (tmp_path / "model").exists()


def test_a_checkpoint_of_another_family_is_refused(tmp_path: Path) -> None:
    other = load_model("tiny")
    torch.save(other.state_dict(), tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match="every tensor of tokenizer is missing"):
        convert(tmp_path / "other.pt", "tokens", tmp_path / "model")


def test_a_model_directory_with_other_sizes_is_refused(tiny: TokensModel, tmp_path: Path) -> None:
    save_model(tiny, tmp_path / "model")
    config = tmp_path / "model" / "config.json"
    for old, new, message in (
        ('"layers": 2', '"layers": 3', "is missing"),
        ('"layers": 2', '"layers": 0', "transformer.layers: got 0"),
        ('"heads": 2', '"heads": 3', "transformer.d_model: got 64"),
        ('"image_size": 32', '"image_size": 30', "tokenizer.image_size: got 30"),
    ):
        text = config.read_text()
        assert old in text
        config.write_text(text.replace(old, new))
        with pytest.raises(CheckpointError, match=message):
            load_model(tmp_path / "model")
        config.write_text(text)
    assert family_of(load_model(tmp_path / "model")).name == "tokens"
