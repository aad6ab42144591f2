"""The VQ-VAE: one frame to one grid of codebook vectors, and back.

Layer by layer the published reference model; modules carry the names that its checkpoints use.
Knows nothing of time.
"""

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from wmdeploy.families.reference.config import NORM_GROUPS, VQVAEConfig
from wmdeploy.families.reference.student import StudentEncoder


class ResidualBlock(nn.Module):
    """conv3x3 - GroupNorm - SiLU - conv3x3 - GroupNorm, plus the shortcut, then SiLU."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.norm1 = nn.GroupNorm(NORM_GROUPS, out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.norm2 = nn.GroupNorm(NORM_GROUPS, out_channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False),
                nn.GroupNorm(NORM_GROUPS, out_channels),
            )

    def forward(self, x: Tensor) -> Tensor:  # (B, C, H, W) -> (B, C', H/stride, W/stride)
        y = F.silu(self.norm1(self.conv1(x)))
        return F.silu(self.norm2(self.conv2(y)) + self.shortcut(x))


class AttentionBlock(nn.Module):
    """One head of self-attention over the h·w positions, added to its input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(NORM_GROUPS, channels)
        self.q = nn.Conv2d(channels, channels, 1)
        self.k = nn.Conv2d(channels, channels, 1)
        self.v = nn.Conv2d(channels, channels, 1)
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:  # (B, C, H, W)
        h = self.norm(x)
        # (B, 1 head, H·W, C); scaled_dot_product_attention's default scale is C**-0.5
        q, k, v = (rearrange(f(h), "b c h w -> b 1 (h w) c") for f in (self.q, self.k, self.v))
        y = F.scaled_dot_product_attention(q, k, v)
        return x + self.proj_out(y.squeeze(1).transpose(1, 2).unflatten(2, x.shape[2:]))


class Encoder(nn.Module):
    """Frames to unquantised latents; each stage halves the resolution."""

    def __init__(self, config: VQVAEConfig) -> None:
        super().__init__()
        widths = config.widths
        self.input_conv = nn.Conv2d(3, widths[0], 3, padding=1)
        stages: list[nn.Module] = []
        for i, (width, next_width) in enumerate(zip(widths, widths[1:], strict=False)):
            stages.append(
                nn.Sequential(ResidualBlock(width, width), ResidualBlock(width, next_width, 2))
            )
            if i >= len(widths) - 3:  # after the last two stages
                stages.append(AttentionBlock(next_width))
        self.encoder = nn.Sequential(*stages)
        self.final_block = ResidualBlock(widths[-1], widths[-1])
        self.norm_out = nn.GroupNorm(NORM_GROUPS, widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], config.latent_channels, 1)

    def forward(self, x: Tensor) -> Tensor:  # (B, 3, H, W) in [-1, 1] -> (B, C, h, w)
        x = self.final_block(self.encoder(self.input_conv(x)))
        return self.conv_out(F.silu(self.norm_out(x)))


class Decoder(nn.Module):
    """Latents to frames; no activation after the last convolution."""

    def __init__(self, config: VQVAEConfig) -> None:
        super().__init__()
        widths = config.widths[::-1]
        self.input_conv = nn.Conv2d(config.latent_channels, widths[0], 1)
        stages: list[nn.Module] = []
        for i, (width, next_width) in enumerate(zip(widths, widths[1:], strict=False)):
            if i < 2:  # before the first two stages
                stages.append(AttentionBlock(width))
            stages.append(
                nn.Sequential(
                    ResidualBlock(width, width),
                    nn.ConvTranspose2d(width, next_width, 4, 2, 1),
                    ResidualBlock(next_width, next_width),
                )
            )
        self.decoder = nn.Sequential(*stages)
        self.final_block = ResidualBlock(widths[-1], widths[-1])
        self.norm_out = nn.GroupNorm(NORM_GROUPS, widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], 3, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:  # (B, C, h, w) -> (B, 3, H, W), about [-1, 1]
        x = self.final_block(self.decoder(self.input_conv(z)))
        return self.conv_out(F.silu(self.norm_out(x)))


class VectorQuantizer(nn.Module):
    """The codebook. Its EMA buffers follow van den Oord et al. 2017, appendix A.1."""

    ema_cluster_size: Tensor
    ema_embed_avg: Tensor

    def __init__(self, config: VQVAEConfig) -> None:
        super().__init__()
        self.embedding = nn.Embedding(config.codebook_size, config.latent_channels)
        self.register_buffer("ema_cluster_size", torch.zeros(config.codebook_size))
        self.register_buffer("ema_embed_avg", self.embedding.weight.detach().clone())

    def nearest(self, z: Tensor) -> Tensor:
        """Index of the codebook vector nearest by squared L2.

        Args:
            z: (B, C, h, w), unquantised.

        Returns:
            (B, N) int64, row-major over h, w.
        """
        flat = rearrange(z, "b c h w -> b (h w) c")
        codebook = self.embedding.weight  # (K, C)
        # |z - e|^2 without |z|^2, which is the same for all e and would only add rounding error
        distances = codebook.square().sum(1) - 2 * (flat @ codebook.t())  # (B, N, K)
        return distances.argmin(-1)

    def lookup(self, codes: Tensor) -> Tensor:
        """(B, N) int64 -> (B, C, h, w) codebook vectors."""
        side = int(codes.shape[1] ** 0.5)
        return self.embedding(codes).transpose(1, 2).unflatten(2, (side, side))


class VQVAE(nn.Module):
    """Encoder, codebook and decoder."""

    def __init__(self, config: VQVAEConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config) if config.encoder is None else StudentEncoder(config)
        self.decoder = Decoder(config)
        self.vq = VectorQuantizer(config)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Frames to quantised latents.

        Args:
            x: (B, 3, H, W) in [-1, 1].

        Returns:
            latents (B, C, h, w), and codes (B, N) int64.
        """
        codes = self.vq.nearest(self.encoder(x))
        return self.vq.lookup(codes), codes

    def decode(self, z: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, 3, H, W), about [-1, 1], not clipped."""
        return self.decoder(z)
