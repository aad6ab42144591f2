"""The reference project's checkpoints: names and shapes of their tensors tell a model's sizes.

What trainers wrap around the tensors is the business of `weights`.
"""

import math
import re
from pathlib import Path

import torch
from torch import Tensor

from wmdeploy.errors import CheckpointError
from wmdeploy.families.reference.config import TemporalConfig, VQVAEConfig, WorldModelConfig
from wmdeploy.families.reference.temporal import sinusoidal_positions
from wmdeploy.families.reference.weights import FoundWeights, find_weights

HEADS = 8  # fixed in the reference project, and not to be seen in its tensors
# the convolution of each stage that halves the resolution
HALVING = re.compile(r"vqvae\.encoder\.encoder\.(\d+)\.1\.conv1\.weight")
FIRST = "vqvae.encoder.input_conv.weight"
POSITIONS = "temporal_model.pos_encoding.pe"


def load_reference(path: Path) -> tuple[WorldModelConfig, FoundWeights]:
    """Sizes and weights of a model that another program saved; see `FoundWeights.remarks`.

    Args:
        path: a file of torch.save or safetensors, an index of shards, or a folder with one of them.

    Raises:
        CheckpointError: it cannot be read, or is no world model.
    """
    weights = find_weights(path, complete=frozenset((FIRST, POSITIONS)))
    try:
        config = infer_reference_config(weights.state)
    except KeyError as error:
        raise CheckpointError(f"{path}: tensor {error} is missing; not a world model") from None
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
    _check_positions(weights.state.pop(POSITIONS), config.temporal, path)
    return config, weights


def _check_positions(table: Tensor, temporal: TemporalConfig, path: Path) -> None:
    """Refuse (1, S, D) positions that are not those which the model will compute itself."""
    table = table.float()
    # half of the spacing just below 1 of bfloat16 and of float16: weights saved in half precision,
    # and those that were converted back to float32 later
    half = torch.equal(table.bfloat16().float(), table)
    tolerance = 4e-3 if half else 5e-4
    right = tuple(table.shape) == (1, temporal.context, temporal.d_model) and torch.allclose(
        table[0],
        sinusoidal_positions(temporal.context, temporal.d_model),
        rtol=0,
        atol=tolerance,
    )
    if not right:
        raise CheckpointError(f"{path}: {POSITIONS} is not the sinusoidal table")


def infer_reference_config(state: dict[str, Tensor]) -> WorldModelConfig:
    """Sizes of a reference checkpoint, read from its tensors' shapes.

    Raises:
        KeyError: a tensor that tells a size is missing.
        CheckpointError: a tensor has a shape that no world model has.
    """

    def shape(name: str, rank: int) -> tuple[int, ...]:
        shape = tuple(state[name].shape)
        if len(shape) != rank:
            raise CheckpointError(f'tensor "{name}": got shape {shape}, expected {rank} dimensions')
        return shape

    widths = [shape(FIRST, 4)[0]]
    halvings = sorted((int(match[1]), name) for name in state if (match := HALVING.fullmatch(name)))
    widths += [shape(name, 4)[0] for _, name in halvings]
    codebook_size, latent_channels = shape("vqvae.vq.embedding.weight", 2)
    d_model, latent_values = shape("temporal_model.latent_proj.weight", 2)
    if not latent_channels:
        raise CheckpointError('tensor "vqvae.vq.embedding.weight": got 0 channels, expected some')
    latent_size = math.isqrt(latent_values // latent_channels)
    layers = len([n for n in state if n.endswith(".self_attention.q_proj.weight")])
    actions = state.get("temporal_model.action_embedding.weight")
    return WorldModelConfig(
        VQVAEConfig(
            latent_size * 2 ** (len(widths) - 1), tuple(widths), latent_channels, codebook_size
        ),
        TemporalConfig(
            d_model=d_model,
            layers=layers,
            heads=HEADS,
            context=shape(POSITIONS, 3)[1],
            num_actions=0
            if actions is None
            else shape("temporal_model.action_embedding.weight", 2)[0],
        ),
    )
