"""Checkpoints of the authors' program (IRIS): all sizes from the shapes of their tensors.

    tokenizer.encoder.conv_in.weight                            (64, 3, 3, 3)
    tokenizer.embedding.weight                                  (512, 512)
    world_model.transformer.blocks.0.attn.key.weight            (256, 256)
    world_model.embedder.embedding_tables.0.weight              (actions, 256)
    actor_critic...                                             left out

What the shapes do not tell is taken as published: 4 heads, and 20 frames where no tensor counts
them. Names are those of the published program, as facts; none of its code is here.
"""

import re
from collections.abc import Mapping

from torch import Tensor

from wmdeploy.errors import CheckpointError
from wmdeploy.families.tokens.config import TokenizerConfig, TokensConfig, TransformerConfig

HEADS, FRAMES = 4, 20  # as published
PARTS = ("tokenizer", "world_model")
# buffers and a perceptual loss that nothing here computes; the actor and critic are no part
LEFT_OUT = re.compile(r"tokenizer\.lpips\.|world_model\..*(\.attn\.mask|\.indices)$")


def convert(tensors: Mapping[str, Tensor]) -> tuple[TokensConfig, dict[str, Tensor]]:
    """Sizes and weights.

    Args:
        tensors: by name, with any keys before `tokenizer` and `world_model`.

    Raises:
        CheckpointError: it is no token model, or of sizes that none has.
        KeyError: a tensor is missing.
    """
    found: dict[str, Tensor] = {}
    for full, tensor in tensors.items():
        steps = full.split(".")
        start = next((at for at, step in enumerate(steps) if step in PARTS), None)
        if start is None or "actor_critic" in steps:
            continue
        name = ".".join(steps[start:])
        if name in found:
            raise CheckpointError(f'it holds the tensor "{name}" twice; save one agent alone')
        found[name] = tensor
    for part in PARTS:
        if not any(name.startswith(f"{part}.") for name in found):
            raise CheckpointError(
                f"every tensor of {part} is missing; expected an agent as the authors of IRIS save "
                "it, with tokenizer and world_model"
            )
    _check_mask(found)
    config = _config(found)
    state = {name: tensor for name, tensor in found.items() if not LEFT_OUT.match(name)}
    return config, state


def _config(found: Mapping[str, Tensor]) -> TokensConfig:
    encoder = "tokenizer.encoder"
    width = _shape(found, f"{encoder}.conv_in.weight", 4)[0]
    levels = _count(found, f"{encoder}.down")
    widths = [
        _shape(found, f"{encoder}.down.{level}.block.0.conv1.weight", 4)[0]
        for level in range(levels)
    ]
    codes, code_size = _shape(found, "tokenizer.embedding.weight", 2)
    actions, d_model = _shape(found, "world_model.embedder.embedding_tables.0.weight", 2)
    positions = _shape(found, "world_model.pos_emb.weight", 2)[0]
    counted = found.get("world_model.head_rewards.indices")
    frames = FRAMES if counted is None else counted.numel()
    tokens = positions // max(1, frames) - 1
    side = round(max(0, tokens) ** 0.5)
    if side < 2 or side**2 != tokens or positions != frames * (tokens + 1):
        raise CheckpointError(
            f"world_model.pos_emb.weight: got {positions} positions for {frames} frames, expected "
            "for each a square of tokens and one action"
        )
    size = side * 2 ** (levels - 1)
    attends = [lv for lv in range(levels) if f"{encoder}.down.{lv}.attn.0.norm.weight" in found]
    return TokensConfig(
        TokenizerConfig(
            image_size=size,
            width=width,
            multipliers=tuple(each // max(1, width) for each in widths),
            blocks=_count(found, f"{encoder}.down.0.block"),
            attention=tuple(size // 2**level for level in attends),
            latent_channels=_shape(found, f"{encoder}.conv_out.weight", 4)[0],
            codebook_size=codes,
            code_size=code_size,
        ),
        TransformerConfig(
            num_actions=actions,
            frames=frames,
            layers=_count(found, "world_model.transformer.blocks"),
            heads=HEADS,
            d_model=d_model,
        ),
    )


def _check_mask(found: Mapping[str, Tensor]) -> None:
    """Its attention is causal; of the authors' other kind, tokens of a frame see each other."""
    mask = found.get("world_model.transformer.blocks.0.attn.mask")
    if mask is not None and mask.ndim == 2 and bool(mask.triu(1).any()):
        raise CheckpointError("its attention is not causal, and no frame can be drawn with it")


def _shape(found: Mapping[str, Tensor], name: str, axes: int) -> tuple[int, ...]:
    shape = tuple(found[name].shape)
    if len(shape) != axes:
        raise CheckpointError(f'tensor "{name}": got shape {shape}, expected {axes} axes')
    return shape


def _count(found: Mapping[str, Tensor], before: str) -> int:
    """How many numbered parts there are."""
    pattern = re.compile(re.escape(before) + r"\.(\d{1,4})\.")
    numbers = {int(match[1]) for name in found if (match := pattern.match(name))}
    return max(numbers, default=-1) + 1
