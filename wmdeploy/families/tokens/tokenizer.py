"""The tokenizer: frames to K codes and back (Esser et al. 2021, as Micheli et al. 2023 use it).

Modules are named as in the authors' checkpoints. Convolutions run in the dtype of their weights,
norms and softmax count in float32.
"""

from typing import cast

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from wmdeploy.families.tokens.config import NORM_GROUPS, TokenizerConfig


def norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(NORM_GROUPS, channels, eps=1e-6)


def conv(inward: int, outward: int, size: int = 3) -> nn.Conv2d:
    return nn.Conv2d(inward, outward, size, padding=size // 2)


class ConvBlock(nn.Module):
    """Two convolutions, beside a way past them. (B, C, h, w) -> (B, C', h, w)."""

    def __init__(self, inward: int, outward: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = norm(inward), conv(inward, outward)
        self.norm2, self.conv2 = norm(outward), conv(outward, outward)
        self.nin_shortcut = conv(inward, outward, 1) if inward != outward else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        return h + self.nin_shortcut(x)


class AttentionBlock(nn.Module):
    """One head over all places, beside a way past it. (B, C, h, w) -> the same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = norm(channels)
        self.q, self.k = conv(channels, channels, 1), conv(channels, channels, 1)
        self.v, self.proj_out = conv(channels, channels, 1), conv(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        q, k, v = (layer(h).flatten(2) for layer in (self.q, self.k, self.v))  # (B, C, N)
        scores = q.transpose(1, 2) @ k * q.shape[1] ** -0.5  # (B, N, N)
        weights = scores.float().softmax(-1).to(v.dtype)
        attended = (v @ weights.transpose(1, 2)).unflatten(2, x.shape[2:])
        return x + self.proj_out(attended)


class Level(nn.Module):
    """Blocks of one resolution, each followed by attention where that resolution has it."""

    downsample: "Downsample"  # of all levels of an encoder but the coarsest
    upsample: "Upsample"  # of all levels of a decoder but the finest

    def __init__(self, widths: list[int], attends: bool) -> None:
        super().__init__()
        pairs = list(zip(widths, widths[1:], strict=False))
        self.block = nn.ModuleList(ConvBlock(inward, outward) for inward, outward in pairs)
        self.attn = nn.ModuleList(AttentionBlock(width) for width in widths[1:] if attends)

    def forward(self, x: Tensor) -> Tensor:
        for at, block in enumerate(self.block):
            x = block(x)
            if len(self.attn):
                x = self.attn[at](x)
        return x


class Middle(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.block_1, self.block_2 = ConvBlock(channels, channels), ConvBlock(channels, channels)
        self.attn_1 = AttentionBlock(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.block_2(self.attn_1(self.block_1(x)))


class Downsample(nn.Module):
    """Half the resolution; there are zeros to the right and below, and none elsewhere."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([x, torch.zeros_like(x[:, :, :1])], 2)
        return self.conv(torch.cat([x, torch.zeros_like(x[..., :1])], 3))


class Upsample(nn.Module):
    """Twice the resolution: each value four times."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = conv(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0))


class Encoder(nn.Module):
    """(B, 3, H, W) in [-1, 1] -> (B, latent_channels, side, side)."""

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        inward = config.width
        self.conv_in = conv(3, inward)
        self.down = nn.ModuleList()
        for at, width in enumerate(config.widths):
            level = Level([inward, *[width] * config.blocks], config.attends(at))
            if at < len(config.widths) - 1:
                level.downsample = Downsample(width)
            self.down.append(level)
            inward = width
        self.mid = Middle(inward)
        self.norm_out, self.conv_out = norm(inward), conv(inward, config.latent_channels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for at, level in enumerate(self.levels()):
            x = level(x)
            if at < len(self.down) - 1:
                x = level.downsample(x)
        return self.conv_out(F.silu(self.norm_out(self.mid(x))))

    def levels(self) -> list[Level]:
        return cast(list[Level], list(self.down))


class Decoder(nn.Module):
    """(B, latent_channels, side, side) -> (B, 3, H, W), about [-1, 1]."""

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        inward = config.widths[-1]
        self.conv_in, self.mid = conv(config.latent_channels, inward), Middle(inward)
        levels: list[Level] = []  # the coarsest first; checkpoints number them from the finest
        for at, width in reversed(list(enumerate(config.widths))):
            level = Level([inward, *[width] * (config.blocks + 1)], config.attends(at))
            if at:
                level.upsample = Upsample(width)
            levels.append(level)
            inward = width
        self.up = nn.ModuleList(reversed(levels))
        self.norm_out, self.conv_out = norm(inward), conv(inward, 3)

    def forward(self, z: Tensor) -> Tensor:
        x = self.mid(self.conv_in(z))
        for at, level in reversed(list(enumerate(self.levels()))):
            x = level(x)
            if at:
                x = level.upsample(x)
        return self.conv_out(F.silu(self.norm_out(x)))

    def levels(self) -> list[Level]:
        return cast(list[Level], list(self.up))


class Tokenizer(nn.Module):
    """Encoder, codebook, decoder."""

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder, self.decoder = Encoder(config), Decoder(config)
        self.embedding = nn.Embedding(config.codebook_size, config.code_size)
        self.pre_quant_conv = conv(config.latent_channels, config.code_size, 1)
        self.post_quant_conv = conv(config.code_size, config.latent_channels, 1)

    def encode(self, frames: Tensor) -> Tensor:
        """(B, H, W, 3) uint8 -> tokens (B, K) int64, row by row: the nearest codes."""
        z = self.pre_quant_conv(self.encoder(to_signal(frames, self.encoder.conv_in)))
        flat, codes = rearrange(z, "b c h w -> b (h w) c").float(), self.embedding.weight.float()
        distances = flat.square().sum(-1, keepdim=True) + codes.square().sum(1)
        return (distances - 2 * flat @ codes.t()).argmin(-1)

    def decode(self, tokens: Tensor) -> Tensor:
        """Tokens (B, K) int64 -> (B, H, W, 3) uint8."""
        codes = rearrange(self.embedding(tokens), "b (h w) c -> b c h w", h=self.config.side)
        return to_pixels(self.decoder(self.post_quant_conv(codes)))


def to_signal(frames: Tensor, first: nn.Conv2d) -> Tensor:
    """(B, H, W, 3) uint8 -> (B, 3, H, W) in [-1, 1], as the first layer takes it."""
    signal = frames.to(torch.float32).permute(0, 3, 1, 2) / 255
    return (signal * 2 - 1).to(first.weight.dtype)


def to_pixels(signal: Tensor) -> Tensor:
    """(B, 3, H, W) -> (B, H, W, 3) uint8; fractions of a level are cut off, as the authors do."""
    levels = ((signal.float() + 1) / 2).clamp(0, 1) * 255
    return levels.permute(0, 2, 3, 1).to(torch.uint8)
