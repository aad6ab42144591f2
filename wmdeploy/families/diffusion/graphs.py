"""The modules that are exported, and the authors' way beside them.

A frame is `History` once, `Denoise` and `Euler` at each noise level, then `RewardEnd`. The first
layer over past frames and the embedding of actions are the same at all levels; what depends on the
level alone is a constant. Rounding to 8 bits is in `Euler`, in float32, so that what the other
graphs give is continuous.
"""

import copy
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wmdeploy.families.diffusion.network import (
    REWARDS,
    AdaptiveGroupNorm,
    DiffusionModel,
    FourierFeatures,
    InnerModel,
    Logits,
    RewardEndModel,
    noise_levels,
    to_levels,
    to_pixels,
    to_signal,
)


def with_instances(module: nn.Module) -> nn.Module:
    """A copy that shares all tensors, whose adaptive norms compute groups as instances."""
    tensors = {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}
    copied = copy.deepcopy(module, tensors)
    for part in copied.modules():
        if isinstance(part, AdaptiveGroupNorm):
            part.instances = True
    return copied


class Encode(nn.Module):
    def __init__(self, model: DiffusionModel) -> None:
        super().__init__()

    def forward(self, frames: Tensor) -> Tensor:
        return to_signal(frames)


class Decode(Encode):
    def forward(self, signal: Tensor) -> Tensor:
        return to_pixels(signal)


class History(nn.Module):
    """signals (B, S, 3, H, W), actions (B, S) -> past (B, C, H, W), acted (B, cond)."""

    weight: Tensor

    def __init__(self, model: DiffusionModel) -> None:
        super().__init__()
        inner, data = model.denoiser.inner_model, model.config.sigma_data
        self.register_buffer("weight", inner.conv_in.weight[:, :-3] / data)
        self.bias, self.act_emb = inner.conv_in.bias, inner.act_emb

    def forward(self, signals: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        x = signals.flatten(1, 2).to(self.weight.dtype)
        return F.conv2d(x, self.weight, self.bias, padding=1), self.act_emb(actions)


class Levels(nn.Module):
    """Constants of each noise level: index (B,) -> (B, 3, 1, 1, 1) and (B, cond), float32."""

    factors: Tensor
    features: Tensor

    def __init__(self, model: DiffusionModel) -> None:
        super().__init__()
        *factors, level = model.denoiser.precondition(noise_levels(model.config)[:-1])
        self.register_buffer("factors", torch.stack(factors, 1)[..., None, None, None])
        self.register_buffer("features", model.denoiser.inner_model.noise_emb(level))

    def forward(self, index: Tensor) -> tuple[Tensor, Tensor]:
        return self.factors[index], self.features[index]


class Denoise(nn.Module):
    """noisy (B, 3, H, W) float32, index (B,), and what `History` gave -> clean (B, 3, H, W)."""

    weight: Tensor

    def __init__(self, model: DiffusionModel) -> None:
        super().__init__()
        self.inner = cast(InnerModel, with_instances(model.denoiser.inner_model))
        self.levels = Levels(model)
        self.register_buffer("weight", self.inner.conv_in.weight[:, -3:].clone())

    def forward(self, noisy: Tensor, index: Tensor, past: Tensor, acted: Tensor) -> Tensor:
        factors, features = self.levels(index)
        inward, out, skip = factors.unbind(1)
        x = past + F.conv2d((noisy * inward).to(past.dtype), self.weight, padding=1)
        cond = self.inner.cond_proj(features.to(acted.dtype) + acted)
        return skip * noisy + out * self.inner.inside(x, cond).float()


class Euler(nn.Module):
    """From one noise level to the next, by the clean frame that was found: (B, 3, H, W)."""

    sigmas: Tensor

    def __init__(self, model: DiffusionModel) -> None:
        super().__init__()
        self.register_buffer("sigmas", noise_levels(model.config)[:, None, None, None])

    def forward(self, noisy: Tensor, clean: Tensor, index: Tensor) -> Tensor:
        sigma = self.sigmas[index]
        return noisy + (noisy - to_levels(clean)) / sigma * (self.sigmas[index + 1] - sigma)


class RewardEnd(nn.Module):
    """Of one transition: reward and end (B,) int64, their logits, the LSTM's h and c (B, D).

    Before a first frame (length 0) nothing happened: h and c stay.
    """

    def __init__(self, model: DiffusionModel) -> None:
        super().__init__()
        self.model = cast(RewardEndModel, with_instances(model.rew_end_model))

    def forward(
        self,
        before: Tensor,
        action: Tensor,
        after: Tensor,
        length: Tensor,
        h: Tensor,
        c: Tensor,
        reward_noise: Tensor,
        end_noise: Tensor,
    ) -> tuple[Tensor, ...]:
        hidden, cell = self.cell(self.model.features(before, action, after), h, c)
        logits = self.model.head(hidden)  # (B, 5)
        reward_logits, end_logits = logits[:, :REWARDS], logits[:, REWARDS:]
        reward = (reward_logits + reward_noise).argmax(1) - 1
        end = (end_logits + end_noise).argmax(1)
        known = (length > 0)[:, None]
        state = torch.where(known, hidden.float(), h), torch.where(known, cell, c)
        return reward, end, reward_logits, end_logits, *state

    def cell(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """The LSTM as single products, with c in float32."""
        inward, again, bias, bias_again = self.model.lstm.all_weights[0]
        gates = F.linear(x, inward, bias) + F.linear(h.to(x.dtype), again, bias_again)
        i, f, g, o = gates.float().chunk(4, 1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        return (o.sigmoid() * c.tanh()).to(x.dtype), c


class PublishedFrame(nn.Module):
    """The next signal as the authors compute it, step by step in one call."""

    def __init__(self, model: DiffusionModel) -> None:
        super().__init__()
        self.denoiser = model.denoiser

    def forward(self, signals: Tensor, actions: Tensor, noise: Tensor) -> Tensor:
        return self.denoiser.sample(noise, signals, actions)


class PublishedRewardEnd(RewardEnd):
    """The same, by PyTorch's LSTM and its group norms."""

    def __init__(self, model: DiffusionModel) -> None:
        super().__init__(model)
        self.model = model.rew_end_model

    def cell(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        y, (_, c) = self.model.lstm(x[:, None], (h[None].to(x.dtype), c[None].to(x.dtype)))
        return y[:, 0], c[0].float()


ENDS = {"encoder": Encode, "decoder": Decode}
EXPORTED = {
    **ENDS,
    "history": History,
    "denoise": Denoise,
    "euler": Euler,
    "reward_end": RewardEnd,
}
PUBLISHED = {**ENDS, "whole_frame": PublishedFrame, "reward_end": PublishedRewardEnd}
ISLANDS = (FourierFeatures, Levels, Euler, Logits)  # float32 in float16 graphs
