"""The second stage: the transformer learns the latent that follows each frame of a window.

The VQ-VAE is frozen, and all is learned from codes that were computed once. More and more of the
latents given are the model's own predictions, from passes over the same window: rollouts are made
of these (scheduled sampling for transformers, Mihaylova and Martins 2019, arXiv:1906.07651).
Neither saves nor prints.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from wmdeploy.families.reference.temporal import TemporalBlock
from wmdeploy.families.reference.vqvae import VectorQuantizer
from wmdeploy.families.reference.world_model import WorldModel
from wmdeploy.training.codes import CodedFootage
from wmdeploy.training.loop import Batch, Share, shared_mean
from wmdeploy.training.optimizer import adamw
from wmdeploy.training.options import TrainOptions
from wmdeploy.training.windows import WindowStage, spread

SELF_FED_FROM = 0.2  # of the stage; before, predictions are worth nothing
SELF_FED_PASSES = 2
VALIDATION_WINDOWS = 64


class TemporalLoss(nn.Module):
    """Mean squared error of the next latent over all positions of a window of S.

    Divided by the latents' variance, which only scales it: 1 is what the mean latent scores.
    """

    def __init__(self, model: WorldModel, options: TrainOptions, variance: Tensor) -> None:
        super().__init__()
        self.temporal = model.temporal_model
        self.frozen = [model.vqvae.vq]  # in a list: not a part of this module
        self.options = options
        self.variance = variance
        self.done = 0.0  # of the stage
        self.step = 0

    def forward(self, codes: Tensor, inside: Tensor, actions: Tensor | None = None) -> Tensor:
        """A scalar.

        Args:
            codes: (B, S + 1, N) integers.
            inside: (B, S) bool, where there is a frame that follows.
            actions: (B, S) int64 for a model with actions.
        """
        latents = latents_of(self.frozen[0], codes)  # (B, S + 1, L)
        given = self.self_fed(latents[:, :-1], actions)
        predicted = self.temporal(given, actions).float()
        each = (predicted - latents[:, 1:]).square().mean(2) / self.variance  # (B, S)
        return (each * inside).sum() / shared_mean(inside.sum())

    @torch.no_grad()
    def self_fed(self, latents: Tensor, actions: Tensor | None) -> Tensor:
        """(B, S, L): some latents replaced by what the model predicts in their place."""
        share = self.options.self_fed * max(0.0, self.done - SELF_FED_FROM) / (1 - SELF_FED_FROM)
        if share == 0 or not self.training:
            return latents
        given = latents
        for _ in range(SELF_FED_PASSES):  # each pass sees the predictions of the one before
            predicted = self.temporal(given, actions).float()
            # one share for each window, so that some are seen as they are and some as rollouts
            chance = 2 * share * torch.rand(len(latents), 1, device=latents.device)
            replaced = torch.rand(latents.shape[:2], device=latents.device) < chance
            replaced[:, 0] = False  # there is nothing before it
            shifted = torch.cat([latents[:, :1], predicted[:, :-1]], dim=1)
            given = torch.where(replaced.unsqueeze(2), shifted, latents)
        return given


class TemporalStage(WindowStage):
    """See the module's docstring, and `wmdeploy.training.loop.Stage`."""

    name = "temporal"
    kinds = (TemporalBlock,)

    def __init__(
        self,
        model: WorldModel,
        training: CodedFootage,
        validation: CodedFootage,
        options: TrainOptions,
    ) -> None:
        self.steps = options.temporal_steps
        self.rate = options.temporal_rate
        self._training = training
        length = model.config.temporal.context + 1
        super().__init__(training.spans, length, options.temporal_batch, (options.seed, 1))
        mean, variance = _moments(model.vqvae.vq, training.codes)
        self._mean = mean
        self.module = TemporalLoss(model, options, variance)
        parts = spread(validation.spans.windows(length), VALIDATION_WINDOWS, 16)
        self._held_out = [self._batch(validation, part) for part in parts]

    def parameters(self) -> Iterator[nn.Parameter]:
        return self.module.temporal.parameters()

    def optimizers(self) -> list[Optimizer]:
        return [adamw(self.parameters(), self.rate)]

    def batch(self, step: int, share: Share) -> Batch:
        return self._batch(self._training, self.numbers(step, share))

    def images(self) -> int:
        return (self._length - 1) * min(self._size, len(self._windows))

    def resume(self, done: float) -> None:
        """At the start, let the first prediction be the mean latent."""
        if done == 0:
            with torch.no_grad():
                self.module.temporal.output_proj.bias.copy_(self._mean)

    def _batch(self, footage: CodedFootage, firsts: np.ndarray) -> Batch:
        numbers, inside = footage.spans.window_frames(firsts, self._length)  # (B, S + 1)
        batch = {"codes": footage.codes[numbers], "inside": torch.from_numpy(inside[:, 1:])}
        if self.module.temporal.config.num_actions and footage.actions is not None:
            batch["actions"] = footage.actions[numbers[:, :-1]]
        return batch


@torch.no_grad()
def latents_of(vq: VectorQuantizer, codes: Tensor) -> Tensor:
    """(..., N) integer codes -> (..., L), flattened `c h w`."""
    return vq.embedding(codes.long()).transpose(-1, -2).flatten(-2)


def _moments(vq: VectorQuantizer, codes: Tensor) -> tuple[Tensor, Tensor]:
    """The mean latent (L,), and the mean over values of their variance around it, a scalar."""
    total = torch.zeros(codes.shape[1] * vq.embedding.embedding_dim, dtype=torch.float64)
    squares = torch.zeros_like(total)
    for part in codes.split(64):
        latents = latents_of(vq, part.to(vq.embedding.weight.device)).double().cpu()
        total += latents.sum(0)
        squares += latents.square().sum(0)
    mean = total / len(codes)
    variance = (squares / len(codes) - mean.square()).mean().clamp(min=1e-6)
    return mean.float(), variance.float()
