"""The two stages: what is drawn for a step, and its loss.

The VQ-VAE learns to reconstruct single frames. The transformer then learns the latent that follows
each frame of a window, with the VQ-VAE frozen, from codes that were computed once. Neither saves
or prints.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from wmdeploy.models.vqvae import VectorQuantizer
from wmdeploy.models.world_model import WorldModel, to_signal
from wmdeploy.training.codebook import (
    merge_codes,
    revive_codes,
    start_codebook,
    straight_through,
    update_codebook,
)
from wmdeploy.training.data import Footage, epoch_batch
from wmdeploy.training.options import TrainOptions

CHANGED_WEIGHT = 20.0  # what a changed pixel counts more than one that stands still
CHANGED_LEVELS = 16  # of 255: differences up to this are taken for noise
L1_SHARE = 0.2
CONTINUOUS_SHARE = 0.15  # of the steps: first the codebook is left out, then it is learned
SELF_FED = 0.5  # of the latents that the transformer is given, at the last step
SELF_FED_FROM = 0.2  # of the steps; before, predictions are worth nothing
SELF_FED_PASSES = 2
REVIVAL_EVERY = 10
REVIVAL_UNTIL = 0.8  # of the steps; then codes settle


class VQVAEStage:
    """Reconstruction, L2 and a fifth of L1, with most weight on what moves; and the codebook.

    In the first steps latents are not quantised, so that the codebook starts at outputs of an
    encoder that has learned something.
    """

    name = "vqvae"

    def __init__(self, model: WorldModel, footage: Footage, options: TrainOptions) -> None:
        self.steps = options.vqvae_steps
        self.rate = options.vqvae_rate
        self._vqvae = model.vqvae.train()
        self._footage = footage
        self._frames = np.arange(len(footage))
        self._batch = options.vqvae_batch
        self._key = (options.seed, 0)
        self._continuous = int(self.steps * CONTINUOUS_SHARE)

    def parameters(self) -> Iterator[nn.Parameter]:
        """Encoder and decoder; the codebook moves by its running means."""
        yield from self._vqvae.encoder.parameters()
        yield from self._vqvae.decoder.parameters()

    def loss(self, step: int) -> Tensor:
        numbers = epoch_batch(self._frames, self._batch, self._key, step)
        frames = self._footage.frames(numbers)
        target = to_signal(torch.from_numpy(frames))  # (B, 3, H, W) in [-1, 1]
        z = self._vqvae.encoder(target)
        commitment = z.new_zeros(())
        # with NaN there is nothing to draw codes by; it goes on to the loss, which is then refused
        if step >= self._continuous and z.isfinite().all():
            z, commitment = self._quantised(z, step)
        error = self._vqvae.decoder(z) - target
        weight = self._weight(frames, numbers)  # (B, 1, H, W)
        each = error.square() + L1_SHARE * error.abs()
        return (each * weight).sum() / (3 * weight.sum()) + commitment

    def _quantised(self, z: Tensor, step: int) -> tuple[Tensor, Tensor]:
        vq: VectorQuantizer = self._vqvae.vq
        if step == self._continuous:
            start_codebook(vq, z)
        chosen, codes, commitment = straight_through(vq, z)
        update_codebook(vq, z, codes)
        if step % REVIVAL_EVERY == 0 and step < REVIVAL_UNTIL * self.steps:
            revive_codes(vq, z, codes)
        if step == self.steps - 1:
            error = (z - vq.lookup(codes)).square().sum(1).mean()
            merge_codes(vq, error.item())
        return chosen, commitment

    def _weight(self, frames: np.ndarray, numbers: np.ndarray) -> Tensor:
        """(B, 1, H, W): more where the frame before or after it in the clip is different."""
        now = frames.astype(np.int16)
        changed = np.zeros(frames.shape[:3], bool)
        for other in self._footage.neighbours(numbers):
            difference = np.abs(now - self._footage.frames(other))
            changed |= difference.max(axis=3) > CHANGED_LEVELS
        return 1 + CHANGED_WEIGHT * torch.from_numpy(changed).unsqueeze(1).float()


class TemporalStage:
    """Mean squared error of the next latent, over all positions of a window of S.

    More and more of the latents given are the model's own predictions, from a first pass over the
    same window: rollouts are made of these (scheduled sampling for transformers, Mihaylova and
    Martins 2019, arXiv:1906.07651). Divided by the latents' variance, which only scales the loss:
    1 is what the mean latent scores.
    """

    name = "temporal"

    def __init__(
        self, model: WorldModel, footage: Footage, codes: Tensor, options: TrainOptions
    ) -> None:
        """`codes`: (F, N), of all frames of `footage`."""
        self.steps = options.temporal_steps
        self.rate = options.temporal_rate
        self._temporal = model.temporal_model.train()
        self._vq = model.vqvae.vq
        self._footage = footage
        self._codes = codes
        self._length = model.config.temporal.context + 1
        self._windows = footage.windows(self._length)
        self._batch = options.temporal_batch
        self._key = (options.seed, 1)
        self._conditioned = model.config.temporal.num_actions > 0
        self._mean, self._variance = _moments(self._vq, codes)

    def start(self) -> None:
        """Let the first prediction be the mean latent."""
        with torch.no_grad():
            self._temporal.output_proj.bias.copy_(self._mean)

    def parameters(self) -> Iterator[nn.Parameter]:
        return self._temporal.parameters()

    def loss(self, step: int) -> Tensor:
        firsts = epoch_batch(self._windows, self._batch, self._key, step)
        numbers, inside = self._footage.window_frames(firsts, self._length)  # (B, S + 1)
        latents = latents_of(self._vq, self._codes[numbers])  # (B, S + 1, L)
        actions = self._footage.actions[numbers[:, :-1]] if self._conditioned else None
        taken = None if actions is None else torch.from_numpy(actions)
        given = self._self_fed(latents[:, :-1], taken, step)
        predicted = self._temporal(given, taken)
        error = (predicted - latents[:, 1:]).square().mean(2) / self._variance  # (B, S)
        counts = torch.from_numpy(inside[:, 1:]).to(error.dtype)
        return (error * counts).sum() / counts.sum()

    @torch.no_grad()
    def _self_fed(self, latents: Tensor, actions: Tensor | None, step: int) -> Tensor:
        """(B, S, L): some latents replaced by what the model predicts in their place."""
        share = SELF_FED * max(0.0, step / self.steps - SELF_FED_FROM) / (1 - SELF_FED_FROM)
        if share == 0:
            return latents
        given = latents
        for _ in range(SELF_FED_PASSES):  # each pass sees the predictions of the one before
            predicted = self._temporal(given, actions)
            # one share for each window, so that some are seen as they are and some as rollouts
            chance = 2 * share * torch.rand(len(latents), 1)
            replaced = torch.rand(latents.shape[:2]) < chance
            replaced[:, 0] = False  # there is nothing before it
            shifted = torch.cat([latents[:, :1], predicted[:, :-1]], dim=1)
            given = torch.where(replaced.unsqueeze(2), shifted, latents)
        return given


@torch.no_grad()
def latents_of(vq: VectorQuantizer, codes: Tensor) -> Tensor:
    """(..., N) integer codes -> (..., L), flattened `c h w`."""
    return vq.embedding(codes.long()).transpose(-1, -2).flatten(-2)


def _moments(vq: VectorQuantizer, codes: Tensor) -> tuple[Tensor, Tensor]:
    """The mean latent (L,), and the mean over values of their variance around it, a scalar."""
    total = torch.zeros(codes.shape[1] * vq.embedding.embedding_dim, dtype=torch.float64)
    squares = torch.zeros_like(total)
    for part in codes.split(64):
        latents = latents_of(vq, part).double()
        total += latents.sum(0)
        squares += latents.square().sum(0)
    mean = total / len(codes)
    variance = (squares / len(codes) - mean.square()).mean().clamp(min=1e-6)
    return mean.float(), variance.float()
