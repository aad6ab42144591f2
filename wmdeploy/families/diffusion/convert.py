"""Sizes and weights of a checkpoint that the authors' code saved."""

import math

from torch import Tensor

from wmdeploy.errors import CheckpointError
from wmdeploy.families.diffusion.config import DiffusionConfig
from wmdeploy.families.diffusion.network import ENDS, REWARDS

MARK = "denoiser.inner_model.conv_in.weight"
PARTS = ("denoiser.", "rew_end_model.")
OTHERS = ("actor_critic.",)  # of the authors' agent, and no part of the world model


def convert(tensors: dict[str, Tensor]) -> tuple[DiffusionConfig, dict[str, Tensor]]:
    """See `ModelFamily.convert`. How to sample is in no tensor: it is as published.

    Raises:
        CheckpointError: it is no checkpoint of DIAMOND's, or of other sizes than any has.
        KeyError: a tensor is missing.
    """
    lead = next((name.removesuffix(MARK) for name in tensors if name.endswith(MARK)), None)
    if lead is None:
        raise CheckpointError(
            f"family diffusion: got {len(tensors)} tensors, none of them {MARK}; expected a "
            "checkpoint that DIAMOND's code saved of its agent"
        )
    named = {name.removeprefix(lead): t for name, t in tensors.items() if name.startswith(lead)}
    state = {name: tensor for name, tensor in named.items() if name.startswith(PARTS)}
    if other := sorted(n for n in named if not n.startswith((*PARTS, *OTHERS))):
        raise CheckpointError(
            f"family diffusion: got the tensor {other[0]}, expected {', '.join(PARTS + OTHERS)} "
            "alone; models with an upsampler, as DIAMOND's of CS:GO, are not supported"
        )
    return _config(state), state


def _config(state: dict[str, Tensor]) -> DiffusionConfig:
    def sizes(name: str, axes: int) -> tuple[int, ...]:
        shape = tuple(state[name].shape)
        if len(shape) != axes or 0 in shape:
            raise CheckpointError(
                f'family diffusion: tensor "{name}": got shape {shape}, expected {axes} axes'
            )
        return shape

    inner, rewards = "denoiser.inner_model", "rew_end_model"
    actions, part = sizes(f"{inner}.act_emb.0.weight", 2)
    cond = sizes(f"{inner}.cond_proj.0.weight", 2)[0]
    reward_cond = sizes(f"{rewards}.act_emb.weight", 2)[1]
    down = _levels(state, f"{inner}.unet.d_blocks")
    # the encoder's last blocks are a middle, at the resolution before
    encoder = _levels(state, f"{rewards}.encoder.blocks")[:-1]
    gates, features = sizes(f"{rewards}.lstm.weight_ih_l0", 2)
    logits = sizes(f"{rewards}.head.2.weight", 2)[0]
    if logits != REWARDS + ENDS:
        raise CheckpointError(
            f"family diffusion: got {logits} logits of rewards and ends, expected {REWARDS + ENDS}"
        )
    if not encoder:
        raise CheckpointError("family diffusion: its model of rewards has no blocks")
    side = math.isqrt(features // max(1, encoder[-1][1]))
    return DiffusionConfig(
        image_size=side << (len(encoder) - 1),
        num_actions=actions,
        context=cond // part,
        cond=cond,
        depths=tuple(depth for depth, _, _ in down),
        channels=tuple(width for _, width, _ in down),
        attention=tuple(attends for _, _, attends in down),
        reward_cond=reward_cond,
        reward_depths=tuple(depth for depth, _, _ in encoder),
        reward_channels=tuple(width for _, width, _ in encoder),
        reward_attention=tuple(attends for _, _, attends in encoder),
        lstm=gates // 4,
    )


def _levels(state: dict[str, Tensor], prefix: str) -> list[tuple[int, int, bool]]:
    """Of each resolution: how many blocks, their channels, whether they attend."""
    levels: list[tuple[int, int, bool]] = []
    while f"{prefix}.{len(levels)}.resblocks.0.conv1.bias" in state:
        level, depth = f"{prefix}.{len(levels)}.resblocks", 0
        while f"{level}.{depth}.conv1.bias" in state:
            depth += 1
        width = state[f"{level}.0.conv1.bias"].numel()
        levels.append((depth, width, f"{level}.0.attn.qkv_proj.weight" in state))
    return levels
