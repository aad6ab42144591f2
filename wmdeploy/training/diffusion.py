"""The diffusion family's training: the denoiser, then the model of rewards and ends.

As published for DIAMOND (Alonso et al. 2024, arXiv:2405.12399) and EDM (Karras et al. 2022,
arXiv:2206.00364): what the network says is compared with the clean frame, scaled so that every
noise level counts alike; and as rollouts build on predictions, a second frame is denoised on the
first one's. All noise comes with the batch, so that held-out losses can be compared.

Not as published: convolutions are optimised by Muon, as those of the VQ-VAE. After 80 steps of
`tiny` on Boxing (batches of 8) the held-out loss is 0.05, and 0.15 with AdamW alone at its better
rate of 1e-3 and 3e-3. Neither saves nor prints.
"""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from wmdeploy.clips.footage import Footage
from wmdeploy.errors import TrainingError
from wmdeploy.families.diffusion.config import DiffusionConfig
from wmdeploy.families.diffusion.network import (
    REWARDS,
    Denoiser,
    DiffusionModel,
    ResBlock,
    RewardEndModel,
    to_levels,
    to_signal,
)
from wmdeploy.training.loop import Batch, Share, shared_mean
from wmdeploy.training.optimizer import muon_and_adamw
from wmdeploy.training.plan import Job, StagePlan, StageSettings, Training
from wmdeploy.training.windows import WindowStage, spread

LOG_SIGMA = (-0.4, 1.2)  # mean and standard deviation of the noise levels' logarithms
SIGMA_RANGE = (2e-3, 20.0)
PREDICTED = 2  # frames denoised in a window, each on the one before as it was denoised
SEQUENCE = 15  # transitions of a window that rewards and ends are learned from
DENOISER_SHARE = 0.85  # of the minutes
HELD_OUT_WINDOWS = 64
TRAINED, HELD_OUT = 1, 2  # end the keys that noise is drawn from, so that no two are the same


class DiffusionTraining(Training):
    """See `wmdeploy.training.plan.Training`."""

    defaults = {
        "denoiser": StageSettings(steps=10_000, batch=16, rate=4e-3),
        "rewards": StageSettings(steps=2_000, batch=16, rate=3e-3),
    }

    def sized(self, config: DiffusionConfig, num_actions: int) -> DiffusionConfig:
        if not num_actions:
            raise TrainingError(
                "actions: got none, and a diffusion model is conditioned on them; train on clips "
                "with actions"
            )
        return replace(config, num_actions=num_actions)

    def stages(self, job: Job) -> list[StagePlan]:
        settings = job.settings
        model: DiffusionModel = job.model
        training, validation = job.clips.training, job.clips.validation
        context = model.config.context
        known = training.rewards is not None and validation.rewards is not None
        _refuse_short(training, "training", context, known)
        _refuse_short(validation, "held-out", context, known)
        line = ""
        if not known:
            line = (
                "rewards: not all clips have rewards and ends, so the model's stay untrained, and "
                "mean nothing; record the clips again to have them"
            )
        elif training.ends is not None and not (training.ends & learnable(training, context)).any():
            line = (
                f"ends: {training.ends.sum()} in the clips for training, none of them with "
                f"{context} transitions before it and a picture behind it, so no end is learned, "
                "and the model's mean nothing; give clips of whole episodes, with `final`"
            )
        if line:
            job.tell(line)
            job.clips.skipped.append(line)

        def denoiser() -> "DenoiserStage":
            return DenoiserStage(model, training, validation, job)

        def rewards() -> "RewardStage":
            return RewardStage(model, training, validation, job)

        share = DENOISER_SHARE if known else 1.0
        plans = [StagePlan("denoiser", settings["denoiser"].steps, share, denoiser)]
        if known:
            plans.append(StagePlan("rewards", settings["rewards"].steps, 1 - share, rewards))
        return plans


class DenoiserLoss(nn.Module):
    """How far the network is from the clean frame, which is 1 for one that says nothing."""

    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.done, self.step = 0.0, 0

    def forward(
        self,
        frames: Tensor,
        actions: Tensor,
        inside: Tensor,
        sigma: Tensor,
        noise: Tensor,
        offset: Tensor,
    ) -> Tensor:
        """A scalar. P frames are predicted, on S before each.

        Args:
            frames: (B, S + P, H, W, 3) uint8.
            actions: (B, S + P - 1) int64.
            inside: (B, P) bool, where there is a frame to predict.
            sigma: (B, P) float32, the noise levels.
            noise: (B, P, 3, H, W) float32, normal; offset: (B, P, 3), of each frame's mean.
        """
        config = self.denoiser.config
        context, loss = config.context, sigma.new_zeros(())
        signals = list(_signals(frames).unbind(1))  # S + P of (B, 3, H, W)
        for k in range(sigma.shape[1]):
            window = slice(k, k + context)
            clean, level = signals[k + context], sigma[:, k]
            noisy = clean + config.sigma_offset * offset[:, k, :, None, None]
            noisy = noisy + level[:, None, None, None] * noise[:, k]
            condition = self.denoiser.precondition(level)
            out, skip = (part[:, None, None, None] for part in (condition.out, condition.skip))
            past = torch.stack(signals[window], 1)
            said = self.denoiser.network(noisy, level, past, actions[:, window])
            each = (said - (clean - skip * noisy) / out).square().mean((1, 2, 3))  # (B,)
            loss = loss + _mean(each, inside[:, k])
            signals[k + context] = to_levels((skip * noisy + out * said).detach())
        return loss / sigma.shape[1]


class RewardLoss(nn.Module):
    """Cross-entropy of the rewards' signs and of the ends."""

    def __init__(self, model: RewardEndModel) -> None:
        super().__init__()
        self.model = model
        self.done, self.step = 0.0, 0

    def forward(
        self, frames: Tensor, actions: Tensor, signs: Tensor, ends: Tensor, counts: Tensor
    ) -> Tensor:
        """A scalar.

        Args:
            frames: (B, T + 1, H, W, 3) uint8.
            actions: (B, T) int64, each leading from a frame to the next.
            signs: (B, T) int64, 0 to 2, of rewards below, at and above 0.
            ends: (B, T) int64, 0 or 1.
            counts: (B, T) bool, transitions that count.
        """
        signals = _signals(frames)
        logits, _ = self.model(signals[:, :-1], actions, signals[:, 1:])  # (B, T, 5)
        reward = F.cross_entropy(logits[..., :REWARDS].transpose(1, 2), signs, reduction="none")
        end = F.cross_entropy(logits[..., REWARDS:].transpose(1, 2), ends, reduction="none")
        return _mean(reward + end, counts)


class _DiffusionStage(WindowStage):
    """What both stages share. A subclass makes a batch of the windows that begin at some frames."""

    name: str
    kinds = (ResBlock,)

    def __init__(
        self, training: Footage, validation: Footage, length: int, job: Job, number: int
    ) -> None:
        settings = job.settings[self.name]
        self.steps, self.rate = settings.steps, settings.rate
        super().__init__(training.spans, length, settings.batch, (job.options.seed, number))
        self._footage = training
        parts = spread(validation.spans.windows(length), HELD_OUT_WINDOWS, 16)
        self._held_out = [
            self._batch(validation, part, np.random.default_rng([*self._key, at, 0, HELD_OUT]))
            for at, part in enumerate(parts)
        ]

    def _batch(self, footage: Footage, firsts: np.ndarray, rng: np.random.Generator) -> Batch:
        raise NotImplementedError

    def parameters(self) -> Iterable[nn.Parameter]:
        return self.module.parameters()

    def optimizers(self) -> list[Optimizer]:
        return muon_and_adamw(self.parameters(), self.rate)

    def batch(self, step: int, share: Share) -> Batch:
        rng = np.random.default_rng([*self._key, step, share.process, TRAINED])
        return self._batch(self._footage, self.numbers(step, share), rng)


class DenoiserStage(_DiffusionStage):
    """See the module's docstring, and `wmdeploy.training.loop.Stage`."""

    name = "denoiser"

    def __init__(
        self, model: DiffusionModel, training: Footage, validation: Footage, job: Job
    ) -> None:
        self.module = DenoiserLoss(model.denoiser)
        self._context = model.config.context
        super().__init__(training, validation, self._context + PREDICTED, job, 0)

    def _batch(self, footage: Footage, firsts: np.ndarray, rng: np.random.Generator) -> Batch:
        numbers, inside = footage.spans.window_frames(firsts, self._length)  # (B, S + P)
        assert footage.actions is not None
        shape, side = (len(numbers), PREDICTED), footage.size
        mean, deviation = LOG_SIGMA
        sigma = np.exp(mean + deviation * rng.standard_normal(shape, np.float32))
        return {
            "frames": _frames(footage, numbers),
            "actions": torch.from_numpy(footage.actions[numbers[:, :-1]]),
            "inside": torch.from_numpy(inside[:, self._context :]),
            "sigma": torch.from_numpy(sigma.clip(*SIGMA_RANGE)),
            "noise": torch.from_numpy(rng.standard_normal((*shape, 3, side, side), np.float32)),
            "offset": torch.from_numpy(rng.standard_normal((*shape, 3), np.float32)),
        }


class RewardStage(_DiffusionStage):
    """See the module's docstring, and `wmdeploy.training.loop.Stage`.

    The first S transitions of a window only bring the LSTM to a state, and do not count. Windows
    reach behind the end of a clip, so that its last transitions count as often as others.
    """

    name = "rewards"

    def __init__(
        self, model: DiffusionModel, training: Footage, validation: Footage, job: Job
    ) -> None:
        self.module = RewardLoss(model.rew_end_model)
        self._context = model.config.context
        super().__init__(training, validation, self._context + 1, job, 1)

    def images(self) -> int:
        return (self._context + SEQUENCE) * min(self._size, len(self._windows))

    def _batch(self, footage: Footage, firsts: np.ndarray, rng: np.random.Generator) -> Batch:
        length = self._context + SEQUENCE
        numbers, inside = footage.spans.window_frames(firsts, length + 1)
        assert footage.actions is not None
        assert footage.rewards is not None and footage.ends is not None
        frames, counts = _frames(footage, numbers), inside[:, 1:]
        for row, col in zip(*np.nonzero(inside[:, :-1] & ~counts), strict=True):
            if (last := int(numbers[row, col])) in footage.finals:
                frames[row, col + 1] = torch.from_numpy(footage.final(last).copy())
                counts[row, col] = True
        counts[:, : self._context] = False
        before = numbers[:, :-1]  # (B, T)
        return {
            "frames": frames,
            "actions": torch.from_numpy(footage.actions[before]),
            "signs": torch.from_numpy(np.sign(footage.rewards[before]).astype(np.int64) + 1),
            "ends": torch.from_numpy(footage.ends[before].astype(np.int64)),
            "counts": torch.from_numpy(counts),
        }


def learnable(footage: Footage, context: int) -> np.ndarray:
    """Transitions behind the first `context` ones of a clip, to a known picture: (F,) bool."""
    spans = footage.spans
    counts = np.arange(len(footage)) - np.repeat(spans.starts, spans.lengths) >= context
    counts[spans.ends - 1] &= [last in footage.finals for last in (spans.ends - 1).tolist()]
    return counts


def _refuse_short(footage: Footage, side: str, context: int, rewards: bool) -> None:
    """Refuse clips of which nothing would count, and the loss be 0."""
    longest = max(footage.spans.lengths)
    if longest <= context or (rewards and not learnable(footage, context).any()):
        raise TrainingError(
            f"data: the longest of {len(footage.spans.lengths)} {side} clips has {longest} frames, "
            f"expected {context + 1 + rewards} or more, as the first {context} are only looked "
            "back at; give longer clips"
        )


def _frames(footage: Footage, numbers: np.ndarray) -> Tensor:
    """(B, T) -> (B, T, H, W, 3) uint8."""
    return torch.from_numpy(
        footage.frames(numbers.ravel()).reshape(*numbers.shape, *[footage.size] * 2, 3)
    )


def _signals(frames: Tensor) -> Tensor:
    """(B, T, H, W, 3) uint8 -> (B, T, 3, H, W) float32 in [-1, 1]."""
    return rearrange(to_signal(frames.flatten(0, 1)), "(b t) ... -> b t ...", t=frames.shape[1])


def _mean(values: Tensor, counts: Tensor) -> Tensor:
    """The mean of those that count, over all processes."""
    return (values * counts).sum() / shared_mean(counts.sum()).clamp(min=1)
