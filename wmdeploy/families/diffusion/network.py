"""The networks of a diffusion world model, in PyTorch: a denoiser, and a model of rewards and ends.

DIAMOND: Alonso et al. 2024, "Diffusion for World Modeling: Visual Details Matter in Atari", arXiv
2405.12399; github.com/eloialonso/diamond. What surrounds the denoiser is EDM: Karras et al. 2022,
arXiv 2206.00364. Parameters are named as in the authors' checkpoints.

Axes: B batch, T time, S frames of the context, C channels, H and W pixels. A signal is a frame as
float32 in [-1, 1], (B, 3, H, W). Weights may be float16; signals and noise levels are float32.
"""

import math
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wmdeploy.families.diffusion.config import HEAD_WIDTH, DiffusionConfig, norm_groups

REWARDS, ENDS = 3, 2  # logits of a reward of -1, 0 or 1, and of going on or ending


class GroupNorm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(norm_groups(width), width)

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self.norm.weight.float(), self.norm.bias.float()
        return F.group_norm(x.float(), self.norm.num_groups, weight, bias).to(x.dtype)


class AdaptiveGroupNorm(nn.Module):
    """A GroupNorm whose scale and shift come from the condition."""

    ones: Tensor
    zeros: Tensor

    def __init__(self, width: int, cond: int) -> None:
        super().__init__()
        self.groups = norm_groups(width)
        self.linear = nn.Linear(cond, 2 * width)
        # given by name, because an export without them makes them anew in every run
        self.register_buffer("ones", torch.ones(width), persistent=False)
        self.register_buffer("zeros", torch.zeros(width), persistent=False)

    def fill(self) -> None:
        """What no file holds, once weights have been loaded."""
        self.ones, self.zeros = torch.ones(self.ones.shape), torch.zeros(self.zeros.shape)

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        scale, shift = self.linear(cond)[:, :, None, None].chunk(2, 1)  # (B, C, 1, 1) each
        y = F.group_norm(x.float(), self.groups, self.ones.float(), self.zeros.float())
        return y.to(x.dtype) * (1 + scale) + shift


class SelfAttention(nn.Module):
    """Of every pixel with every other. What is added to is the normalised input, not the input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = width // HEAD_WIDTH
        self.norm = GroupNorm(width)
        self.qkv_proj = nn.Conv2d(width, 3 * width, 1)
        self.out_proj = nn.Conv2d(width, width, 1)
        nn.init.normal_(self.out_proj.weight, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x)
        parts = self.qkv_proj(x).flatten(2).unflatten(1, (3, self.heads, HEAD_WIDTH))
        q, k, v = parts.transpose(3, 4).unbind(1)  # (B, heads, H·W, head) each
        y = F.scaled_dot_product_attention(q, k, v)
        y = y.transpose(2, 3).flatten(1, 2).unflatten(2, x.shape[2:])  # (B, C, H, W)
        return x + self.out_proj(y)


class ResBlock(nn.Module):
    def __init__(self, width_in: int, width: int, cond: int, attention: bool) -> None:
        super().__init__()
        self.proj = nn.Conv2d(width_in, width, 1) if width_in != width else nn.Identity()
        self.norm1 = AdaptiveGroupNorm(width_in, cond)
        self.conv1 = nn.Conv2d(width_in, width, 3, padding=1)
        self.norm2 = AdaptiveGroupNorm(width, cond)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.attn = SelfAttention(width) if attention else nn.Identity()
        # the authors start such layers at zero, where an untrained model's frames say nothing
        nn.init.normal_(self.conv2.weight, std=0.02)

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        y = self.conv1(F.silu(self.norm1(x, cond)))
        y = self.conv2(F.silu(self.norm2(y, cond)))
        return cast(Tensor, self.attn(y + self.proj(x)))


class ResBlocks(nn.Module):
    """Blocks of one resolution.

    Args:
        widths: channels in and out, of each block.
    """

    def __init__(self, widths: list[tuple[int, int]], cond: int, attention: bool) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(ResBlock(a, b, cond, attention) for a, b in widths)

    def forward(
        self, x: Tensor, cond: Tensor, skips: list[Tensor] | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """The last block's output, and every block's; with `skips`, one more input for each."""
        outputs = []
        for at, block in enumerate(self.resblocks):
            x = block(x if skips is None else torch.cat((x, skips[at]), 1), cond)
            outputs.append(x)
        return x, outputs


class Downsample(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.conv(x))


class Upsample(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.conv(F.interpolate(x, scale_factor=2.0)))


class UNet(nn.Module):
    def __init__(self, config: DiffusionConfig) -> None:
        super().__init__()
        widths, cond = config.channels, config.cond
        down, up = [], []
        for level, depth in enumerate(config.depths):
            attention, a, b = config.attention[level], widths[max(0, level - 1)], widths[level]
            down.append(ResBlocks([(a, b), *[(b, b)] * (depth - 1)], cond, attention))
            up.append(ResBlocks([*[(2 * b, b)] * depth, (a + b, a)], cond, attention))
        self.d_blocks, self.u_blocks = nn.ModuleList(down), nn.ModuleList(reversed(up))
        self.mid_blocks = ResBlocks([(widths[-1], widths[-1])] * 2, cond, True)
        halved = widths[:-1]
        self.downsamples = nn.ModuleList([nn.Identity(), *(Downsample(w) for w in halved)])
        self.upsamples = nn.ModuleList([nn.Identity(), *(Upsample(w) for w in reversed(halved))])

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        skips: list[list[Tensor]] = []
        for blocks, downsample in zip(self.d_blocks, self.downsamples, strict=True):
            x = downsample(x)
            first = x
            x, outputs = blocks(x, cond)
            skips.append([*reversed(outputs), first])
        x, _ = self.mid_blocks(x, cond)
        for blocks, upsample in zip(self.u_blocks, self.upsamples, strict=True):
            x, _ = blocks(upsample(x), cond, skips.pop())
        return x


class FourierFeatures(nn.Module):
    """(B,) float32 -> (B, width)."""

    weight: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.randn(1, width // 2))

    def forward(self, x: Tensor) -> Tensor:
        angles = 2 * math.pi * x[:, None] @ self.weight
        return torch.cat([angles.cos(), angles.sin()], 1)


class InnerModel(nn.Module):
    def __init__(self, config: DiffusionConfig) -> None:
        super().__init__()
        cond, width, context = config.cond, config.channels[0], config.context
        self.noise_emb = FourierFeatures(cond)
        self.act_emb = nn.Sequential(
            nn.Embedding(config.num_actions, cond // context), nn.Flatten()
        )
        self.cond_proj = nn.Sequential(nn.Linear(cond, cond), nn.SiLU(), nn.Linear(cond, cond))
        self.conv_in = nn.Conv2d(3 * (context + 1), width, 3, padding=1)
        self.unet = UNet(config)
        self.norm_out = GroupNorm(width)
        self.conv_out = nn.Conv2d(width, 3, 3, padding=1)
        nn.init.normal_(self.conv_out.weight, std=0.01)

    def forward(self, x: Tensor, level: Tensor, past: Tensor, actions: Tensor) -> Tensor:
        """(B, 3, H, W), (B,) or (1,), (B, S, 3, H, W), (B, S) int64 -> (B, 3, H, W)."""
        dtype = self.conv_in.weight.dtype
        cond = self.cond_proj(self.noise_emb(level).to(dtype) + self.act_emb(actions))
        x = self.conv_in(torch.cat((past.flatten(1, 2), x), 1).to(dtype))
        return self.inside(x, cond)

    def inside(self, x: Tensor, cond: Tensor) -> Tensor:
        """What comes behind the first layer and the condition: (B, C, H, W) -> (B, 3, H, W)."""
        return cast(Tensor, self.conv_out(F.silu(self.norm_out(self.unet(x, cond)))))


class Preconditioning(NamedTuple):
    """Of noise levels (B,): denoised = skip · noisy + out · network(inward · noisy, level)."""

    inward: Tensor
    out: Tensor
    skip: Tensor
    level: Tensor


class Denoiser(nn.Module):
    """A frame without its noise, by the frames and actions before it."""

    def __init__(self, config: DiffusionConfig) -> None:
        super().__init__()
        self.config = config
        self.inner_model = InnerModel(config)

    def precondition(self, sigma: Tensor) -> Preconditioning:
        """Karras et al. 2022, table 1; offset noise adds to the level."""
        data = self.config.sigma_data
        sigma = (sigma**2 + self.config.sigma_offset**2).sqrt()
        skip = data**2 / (sigma**2 + data**2)
        inward = 1 / (sigma**2 + data**2).sqrt()
        return Preconditioning(inward, sigma * skip.sqrt(), skip, sigma.log() / 4)

    def network(self, noisy: Tensor, sigma: Tensor, past: Tensor, actions: Tensor) -> Tensor:
        """What the network says, which a training compares with (clean - skip · noisy) / out.

        Args:
            noisy: (B, 3, H, W), a signal with noise of the level `sigma` (B,) or (1,).
            past: (B, S, 3, H, W), the signals before it, oldest first.
            actions: (B, S) int64, taken at these.

        Returns:
            (B, 3, H, W) float32.
        """
        inward, _, _, level = self.precondition(sigma)
        past = past / self.config.sigma_data
        return self.inner_model(noisy * inward[:, None, None, None], level, past, actions).float()

    def forward(self, noisy: Tensor, sigma: Tensor, past: Tensor, actions: Tensor) -> Tensor:
        """The signal without the noise, (B, 3, H, W); as `network` takes it."""
        _, out, skip, _ = (part[:, None, None, None] for part in self.precondition(sigma))
        return skip * noisy + out * self.network(noisy, sigma, past, actions)

    def sample(self, noise: Tensor, past: Tensor, actions: Tensor) -> Tensor:
        """The next signal by Euler's method, (B, 3, H, W), from normal noise of that shape."""
        x, levels = noise, noise_levels(self.config).to(noise.device)
        for sigma, following in zip(levels[:-1, None], levels[1:, None], strict=True):
            clean = to_levels(self(x, sigma, past, actions))
            x = x + (x - clean) / sigma * (following - sigma)
        return x


class Logits(nn.Linear):
    """A last layer, whose choice rounding must not decide: it stays in float32."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.float())


class RewardEndModel(nn.Module):
    """Reward and end of each transition, from one frame to the next by an action."""

    def __init__(self, config: DiffusionConfig) -> None:
        super().__init__()
        self.encoder = RewardEncoder(config)
        self.act_emb = nn.Embedding(config.num_actions, config.reward_cond)
        self.lstm = nn.LSTM(config.features, config.lstm, batch_first=True)
        self.head = nn.Sequential(
            nn.Linear(config.lstm, config.lstm),
            nn.SiLU(),
            Logits(config.lstm, REWARDS + ENDS, bias=False),
        )

    def forward(
        self,
        before: Tensor,
        actions: Tensor,
        after: Tensor,
        state: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """
        Args:
            before, after: signals (B, T, 3, H, W); actions: (B, T) int64, that led from one to the
                other.
            state: the LSTM's, (1, B, D) twice; zeros at first.

        Returns:
            Logits (B, T, 5) float32, of the rewards -1, 0 and 1, of going on and of ending; and the
            state.
        """
        cond = self.act_emb(actions.flatten())
        x = self.features(before.flatten(0, 1), after.flatten(0, 1), cond)
        y, state = self.lstm(x.unflatten(0, actions.shape), state)
        return self.head(y), state

    def features(self, before: Tensor, after: Tensor, cond: Tensor) -> Tensor:
        """What the LSTM takes of transitions: (B, 3, H, W) twice and the condition -> (B, F)."""
        signals = torch.cat((before, after), 1).to(cond.dtype)
        return cast(Tensor, self.encoder(signals, cond)).flatten(1)


class RewardEncoder(nn.Module):
    def __init__(self, config: DiffusionConfig) -> None:
        super().__init__()
        widths, cond = config.reward_channels, config.reward_cond
        self.conv_in = nn.Conv2d(6, widths[0], 3, padding=1)
        blocks = []
        for level, depth in enumerate(config.reward_depths):
            a, b = widths[max(0, level - 1)], widths[level]
            attention = config.reward_attention[level]
            blocks.append(ResBlocks([(a, b), *[(b, b)] * (depth - 1)], cond, attention))
        blocks.append(ResBlocks([(widths[-1], widths[-1])] * 2, cond, True))
        halved = [Downsample(width) for width in widths[:-1]]
        self.blocks = nn.ModuleList(blocks)
        self.downsamples = nn.ModuleList([nn.Identity(), *halved, nn.Identity()])

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        x = self.conv_in(x)
        for blocks, downsample in zip(self.blocks, self.downsamples, strict=True):
            x, _ = blocks(downsample(x), cond)
        return x


class DiffusionModel(nn.Module):
    """The whole model."""

    family = "diffusion"

    def __init__(self, config: DiffusionConfig) -> None:
        super().__init__()
        self.config = config
        self.denoiser = Denoiser(config)
        self.rew_end_model = RewardEndModel(config)

    def fill_constants(self) -> None:
        """See `ModelFamily.constants`."""
        for module in self.modules():
            if isinstance(module, AdaptiveGroupNorm):
                module.fill()


def noise_levels(config: DiffusionConfig) -> Tensor:
    """The noise at each denoising step and behind the last, (steps + 1,) float32, falling to 0."""
    low, high = (s ** (1 / config.rho) for s in (config.sigma_min, config.sigma_max))
    levels = (high + torch.linspace(0, 1, config.steps) * (low - high)) ** config.rho
    return torch.cat((levels, levels.new_zeros(1)))


def to_levels(signal: Tensor) -> Tensor:
    """A signal in steps of 1/255 of its range, rounded down, as the authors' denoiser gives it."""
    return signal.clamp(-1, 1).add(1).div(2).mul(255).floor().div(255).mul(2).sub(1)


def to_signal(frames: Tensor) -> Tensor:
    """(B, H, W, 3) uint8 -> (B, 3, H, W) float32 in [-1, 1]."""
    return (frames.float() / 255).permute(0, 3, 1, 2) * 2 - 1


def to_pixels(signal: Tensor) -> Tensor:
    """(B, 3, H, W) float32 in [-1, 1] -> (B, H, W, 3) uint8."""
    levels = ((signal.clamp(-1, 1) + 1) / 2 * 255).round()
    return levels.permute(0, 2, 3, 1).to(torch.uint8)
