"""How good a world model is on clips it has not seen. See `ValidationMetrics` for what is meant.

Computed clip by clip with the model as written, in float32. Knows nothing of training.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from wmdeploy.models.world_model import WorldModel, to_pixels, to_signal
from wmdeploy.training.data import Footage
from wmdeploy.training.stages import latents_of
from wmdeploy.training.summary import ValidationMetrics

BEST_PSNR = 100.0  # what equal pixels are given; JSON knows no infinity
_CHUNK_VALUES = 2**22  # latent or pixel values held at once


def psnr(mse: float) -> float:
    """10·log10(255² / mse) in dB, of pixels in 0..255; at most 100."""
    return BEST_PSNR if mse <= 0 else min(BEST_PSNR, 10 * math.log10(255**2 / mse))


@torch.inference_mode()
def encode_codes(
    model: WorldModel, frames: np.ndarray, progress: Callable[[int], None] = lambda done: None
) -> Tensor:
    """(T, H, W, 3) uint8 -> (T, N) int16, or int32 for a codebook of more than 32,768."""
    kind = torch.int16 if model.config.vqvae.codebook_size <= 2**15 else torch.int32
    size = max(1, _CHUNK_VALUES // (16 * frames[0].size))
    parts = []
    for start in range(0, len(frames), size):
        part = torch.from_numpy(np.ascontiguousarray(frames[start : start + size]))
        parts.append(model.vqvae.encode(to_signal(part))[1].to(kind))
        progress(start + len(part))
    return torch.cat(parts)


@torch.inference_mode()
def validate(
    model: WorldModel,
    footage: Footage,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> ValidationMetrics:
    """Measure a model in evaluation mode on held-out clips of at least two frames each.

    Args:
        progress: called with the clips done and their number.
    """
    errors: dict[str, list[Tensor]] = {"reconstruction": [], "next": [], "copy": [], "ceiling": []}
    uses = torch.zeros(model.config.vqvae.codebook_size, dtype=torch.int64)
    conditioned = model.config.temporal.num_actions > 0
    for done, clip in enumerate(footage.clips, start=1):
        frames = torch.from_numpy(np.ascontiguousarray(clip.frames))
        codes = encode_codes(model, clip.frames)
        latents = latents_of(model.vqvae.vq, codes)  # (T, L)
        given = clip.actions if conditioned else None
        actions = None if given is None else torch.from_numpy(given)
        decoded = _frame_errors(model, latents, frames)
        errors["reconstruction"].append(decoded)
        errors["ceiling"].append(decoded[1:])
        errors["next"].append(
            _frame_errors(model, _predict_next(model, latents, actions), frames[1:])
        )
        errors["copy"].append(_squared(frames[:-1], frames[1:]))
        uses += codes.flatten().long().bincount(minlength=len(uses))
        progress(done, len(footage.clips))
    found = {name: psnr(torch.cat(parts).mean().item()) for name, parts in errors.items()}
    shares = uses[uses > 0] / uses.sum()
    return ValidationMetrics(
        frames=len(footage),
        psnr_reconstruction=found["reconstruction"],
        psnr_next=found["next"],
        psnr_copy=found["copy"],
        psnr_ceiling=found["ceiling"],
        codes_used=len(shares),
        codebook_size=len(uses),
        perplexity=torch.exp(-(shares * shares.log()).sum()).item(),
    )


def _predict_next(model: WorldModel, latents: Tensor, actions: Tensor | None) -> Tensor:
    """(T, L) -> (T - 1, L): each latent after the first, from up to S true ones before it."""
    size = model.config.temporal.context
    temporal = model.temporal_model
    known = latents[:-1]  # the last one leads to nothing that is known
    taken = None if actions is None else actions[:-1]
    # causal: one pass over the first S gives the predictions with less than S before them
    parts = [temporal(known[None, :size], None if taken is None else taken[None, :size])[0]]
    rows = max(1, _CHUNK_VALUES // (size * latents.shape[1]))
    for start in range(1, len(known) - size + 1, rows):
        firsts = torch.arange(start, min(start + rows, len(known) - size + 1))
        numbers = firsts[:, None] + torch.arange(size)  # (rows, S)
        window = temporal(known[numbers], None if taken is None else taken[numbers])
        parts.append(window[:, -1])
    return torch.cat(parts)


def _frame_errors(model: WorldModel, latents: Tensor, frames: Tensor) -> Tensor:
    """Decode (T, L) and compare with (T, H, W, 3) uint8: each frame's MSE, (T,) float64."""
    vqvae = model.config.vqvae
    shape = (vqvae.latent_channels, vqvae.latent_size, vqvae.latent_size)
    size = max(1, _CHUNK_VALUES // (16 * frames[0].numel()))
    parts = []
    for part, true in zip(latents.split(size), frames.split(size), strict=True):
        parts.append(_squared(to_pixels(model.vqvae.decode(part.unflatten(1, shape))), true))
    return torch.cat(parts)


def _squared(left: Tensor, right: Tensor) -> Tensor:
    return (left.double() - right.double()).square().mean((1, 2, 3))
