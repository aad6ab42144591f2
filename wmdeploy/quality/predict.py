"""What a model, in PyTorch as written, predicts of clips: latents, and frames decoded from them."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from wmdeploy.clips.footage import Footage
from wmdeploy.families.precision import exact_float32
from wmdeploy.families.reference.vqvae import VQVAE
from wmdeploy.families.reference.world_model import WorldModel, to_pixels, to_signal

_CHUNK_VALUES = 2**22  # latent or pixel values held at once


@torch.inference_mode()
@exact_float32()
def encode_frames(vqvae: VQVAE, frames: np.ndarray) -> Tensor:
    """(T, H, W, 3) uint8 -> (T, N) int16, or int32 for a codebook of more than 32,768."""
    kind = torch.int16 if vqvae.config.codebook_size <= 2**15 else torch.int32
    device = vqvae.vq.embedding.weight.device
    parts = []
    for part in torch.from_numpy(np.ascontiguousarray(frames)).split(_encoded_at_once(vqvae)):
        parts.append(vqvae.encode(to_signal(part.to(device)))[1].to(kind).cpu())
    return torch.cat(parts)


def encode_clip(
    vqvae: VQVAE,
    footage: Footage,
    index: int,
    progress: Callable[[int], None] = lambda done: None,
) -> Tensor:
    """The codes of one clip, (T, N) as `encode_frames`; of its frames only some are in memory.

    Args:
        progress: called with the frames done.
    """
    length, size = footage.spans.lengths[index], _encoded_at_once(vqvae)
    parts = []
    for start in range(0, length, size):
        end = min(start + size, length)
        parts.append(encode_frames(vqvae, footage.clip(index, start, end)))
        progress(end)
    return torch.cat(parts)


def _encoded_at_once(vqvae: VQVAE) -> int:
    return max(1, _CHUNK_VALUES // (16 * 3 * vqvae.config.image_size**2))


@exact_float32()
def decode_latents(
    model: WorldModel, latents: Tensor, decode: Callable[[Tensor], Tensor] | None = None
) -> np.ndarray:
    """(T, L) -> (T, H, W, 3) uint8.

    Args:
        decode: another decoder, (B, C, h, w) -> (B, 3, H, W); None: the model's own.
    """
    vqvae, decode = model.config.vqvae, decode or model.vqvae.decode
    size = max(1, _CHUNK_VALUES // (16 * 3 * vqvae.image_size**2))
    parts = [
        to_pixels(decode(part.unflatten(1, vqvae.latent_shape))).cpu()
        for part in latents.split(size)
    ]
    return torch.cat(parts).numpy()


@exact_float32()
def following_latents(model: WorldModel, latents: Tensor, actions: Tensor | None) -> Tensor:
    """(T, L) -> (T - 1, L): each latent after the first, from up to S true ones before it.

    Args:
        actions: (T,) int64 for a model with actions, else None.
    """
    size = model.config.temporal.context
    temporal = model.temporal_model
    past = latents[:-1]  # nothing follows the last one
    taken = None if actions is None else actions[:-1]
    # causal: one pass over the first S gives the predictions with less than S before them
    parts = [temporal(past[None, :size], None if taken is None else taken[None, :size])[0]]
    rows = max(1, _CHUNK_VALUES // (size * latents.shape[1]))
    for start in range(1, len(past) - size + 1, rows):
        firsts = torch.arange(start, min(start + rows, len(past) - size + 1))
        numbers = firsts[:, None] + torch.arange(size)  # (rows, S)
        window = temporal(past[numbers], None if taken is None else taken[numbers])
        parts.append(window[:, -1])
    return torch.cat(parts)


@exact_float32()
def rollout_latents(
    model: WorldModel,
    latents: Tensor,
    starts: list[int],
    context: int,
    horizon: int,
    actions: Tensor | None,
) -> Tensor:
    """Rollouts from several places of one clip: (rollouts, horizon, L).

    Args:
        latents: (T, L), the true ones.
        starts: first frames of the contexts; each has `context + horizon` frames from there on.
        actions: (T,) int64 for a model with actions, else None.
    """
    rows = max(1, _CHUNK_VALUES // (model.config.temporal.context * latents.shape[1]))
    parts = []
    for part in torch.tensor(starts).split(rows):
        given = latents[part[:, None] + torch.arange(context)]  # (rows, context, L)
        taken = None
        if actions is not None:
            taken = actions[part[:, None] + torch.arange(context + horizon - 1)]
        parts.append(model.imagine_latents(given, horizon, taken))
    return torch.cat(parts)
