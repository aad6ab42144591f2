"""The modules that are exported, and the authors' way beside them.

A frame is `History` once, `Denoise` and `Euler` at each noise level, then `RewardEnd`. The first
layer over past frames is the same at all levels; the scales and shifts of all adaptive norms, which
come of actions and levels, are one product for all levels, or a table where there is no level.
Rounding to 8 bits is in `Euler`, in float32, so that what the other graphs give is continuous.
"""

from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wmdeploy.families.diffusion.network import (
    REWARDS,
    AdaptiveGroupNorm,
    DiffusionModel,
    FourierFeatures,
    Logits,
    noise_levels,
    to_levels,
    to_pixels,
    to_signal,
)
from wmdeploy.families.half import copy_with_same_tensors

N = TypeVar("N", bound=nn.Module)


class InstanceNorm(nn.Module):
    """An adaptive norm that finds its scale and shift among those of all, from the place `at` on.

    It computes each group as an instance of its own: the same but for rounding, and quicker in ONNX
    Runtime.
    """

    ones: Tensor
    zeros: Tensor

    def __init__(self, norm: AdaptiveGroupNorm, at: int) -> None:
        super().__init__()
        width = len(norm.ones)
        self.scale, self.shift = slice(at, at + width), slice(at + width, at + 2 * width)
        # given by name, because an export without them makes them anew in every run
        self.register_buffer("ones", norm.ones[: norm.groups])
        self.register_buffer("zeros", norm.zeros[: norm.groups])

    def forward(self, x: Tensor, scales: Tensor) -> Tensor:
        groups = x.float().unflatten(1, (len(self.ones), -1)).flatten(2)  # (B, G, C/G·H·W)
        y = F.instance_norm(groups, weight=self.ones.float(), bias=self.zeros.float())
        return y.reshape(x.shape).to(x.dtype) * scales[:, self.scale] + scales[:, self.shift]


def with_instances(network: N) -> tuple[N, nn.Linear]:
    """A copy whose adaptive norms are `InstanceNorm`, and one layer that gives the scales of all.

    The copy takes these in place of the condition, (B, all, 1, 1); its other tensors are shared.
    """
    copied, at = copy_with_same_tensors(network), 0
    weights, biases = [], []
    for part in list(copied.modules()):
        for name, norm in part.named_children():
            if isinstance(norm, AdaptiveGroupNorm):
                setattr(part, name, InstanceNorm(norm, at))
                weights.append(norm.linear.weight)
                biases += [
                    norm.linear.bias[: len(norm.ones)] + 1,
                    norm.linear.bias[len(norm.ones) :],
                ]
                at += 2 * len(norm.ones)
    scales = nn.Linear(weights[0].shape[1], at)
    scales.weight, scales.bias = nn.Parameter(torch.cat(weights)), nn.Parameter(torch.cat(biases))
    return copied, scales


class Encode(nn.Module):
    def __init__(self, model: DiffusionModel) -> None:
        super().__init__()

    def forward(self, frames: Tensor) -> Tensor:
        return to_signal(frames)


class Decode(Encode):
    def forward(self, signal: Tensor) -> Tensor:
        return to_pixels(signal)


class History(nn.Module):
    """signals (B, S, 3, H, W), actions (B, S) -> past (B, C, H, W), scales (B, levels, all)."""

    weight: Tensor
    features: Tensor

    def __init__(self, model: DiffusionModel) -> None:
        super().__init__()
        inner, data = model.denoiser.inner_model, model.config.sigma_data
        self.register_buffer("weight", inner.conv_in.weight[:, :-3] / data)
        level = model.denoiser.precondition(noise_levels(model.config)[:-1]).level
        self.register_buffer("features", inner.noise_emb(level))  # (levels, cond)
        self.bias, self.act_emb, self.cond_proj = inner.conv_in.bias, inner.act_emb, inner.cond_proj
        self.scales = with_instances(inner)[1]

    def forward(self, signals: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        x = signals.flatten(1, 2).to(self.weight.dtype)
        cond = self.cond_proj(self.features + self.act_emb(actions)[:, None])
        return F.conv2d(x, self.weight, self.bias, padding=1), self.scales(cond)


class Levels(nn.Module):
    """Factors of each noise level: index (B,) -> (B, 3, 1, 1, 1) float32."""

    factors: Tensor

    def __init__(self, model: DiffusionModel) -> None:
        super().__init__()
        *factors, _ = model.denoiser.precondition(noise_levels(model.config)[:-1])
        self.register_buffer("factors", torch.stack(factors, 1)[..., None, None, None])

    def forward(self, index: Tensor) -> Tensor:
        return self.factors[index]


class Denoise(nn.Module):
    """noisy (B, 3, H, W) float32, index (B,), and what `History` gave -> clean (B, 3, H, W)."""

    weight: Tensor

    def __init__(self, model: DiffusionModel) -> None:
        super().__init__()
        self.inner, _ = with_instances(model.denoiser.inner_model)
        self.levels = Levels(model)
        self.register_buffer("weight", self.inner.conv_in.weight[:, -3:].clone())

    def forward(self, noisy: Tensor, index: Tensor, past: Tensor, scales: Tensor) -> Tensor:
        inward, out, skip = self.levels(index).unbind(1)
        x = past + F.conv2d((noisy * inward).to(past.dtype), self.weight, padding=1)
        level = index[:, None, None].expand(-1, 1, scales.shape[2])
        own = scales.gather(1, level)[:, 0, :, None, None]
        return skip * noisy + out * self.inner.inside(x, own).float()


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
        self.model, scales = with_instances(model.rew_end_model)
        self.scales = nn.Embedding.from_pretrained(scales(self.model.act_emb.weight).detach())

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
        features = self.model.features(before, after, self.condition(action))
        hidden, cell = self.cell(features, h, c)
        logits = self.model.head(hidden)  # (B, 5)
        reward_logits, end_logits = logits[:, :REWARDS], logits[:, REWARDS:]
        reward = (reward_logits + reward_noise).argmax(1) - 1
        end = (end_logits + end_noise).argmax(1)
        known = (length > 0)[:, None]
        state = torch.where(known, hidden.float(), h), torch.where(known, cell, c)
        return reward, end, reward_logits, end_logits, *state

    def condition(self, action: Tensor) -> Tensor:
        return self.scales(action)[..., None, None]

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

    def condition(self, action: Tensor) -> Tensor:
        return self.model.act_emb(action)

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
