"""IRIS's tokenizer as plain functions over tensors: from the papers, and no module of ours.

The autoencoder is that of VQGAN (Esser et al. 2021, arXiv 2012.09841) as IRIS takes it (Micheli et
al. 2023): signals in [-1, 1], GroupNorm of 32 groups and epsilon 1e-6, attention of one head.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


class PublishedTokenizer:
    """
    Args:
        state: by the authors' names, such as `tokenizer.encoder.conv_in.weight`. Which blocks,
            levels and attentions there are is what it has names for.
    """

    def __init__(self, state: dict[str, Tensor]) -> None:
        self.state = state

    def latents(self, frames: Tensor) -> Tensor:
        """(B, H, W, 3) uint8 -> (B, code_size, side, side)."""
        x = frames.permute(0, 3, 1, 2) / 127.5 - 1
        x = self.conv(x, "encoder.conv_in")
        level = 0
        while self.has(f"encoder.down.{level}.block.0.conv1"):
            x = self.blocks(x, f"encoder.down.{level}")
            if self.has(f"encoder.down.{level}.downsample.conv"):
                x = F.pad(x, (0, 1, 0, 1))  # to the right and below
                x = self.conv(x, f"encoder.down.{level}.downsample.conv", stride=2, padding=0)
            level += 1
        x = self.end(self.middle(x, "encoder.mid"), "encoder")
        return self.conv(x, "pre_quant_conv")

    def tokens(self, frames: Tensor) -> Tensor:
        """(B, H, W, 3) uint8 -> (B, K) int64, row by row."""
        places = self.latents(frames).flatten(2).transpose(1, 2)  # (B, K, code_size)
        codes = self.state["tokenizer.embedding.weight"]
        return (places[:, :, None] - codes).square().sum(-1).argmin(-1)

    def signal(self, tokens: Tensor) -> Tensor:
        """(B, K) int64 -> (B, 3, H, W), about [-1, 1]."""
        side = int(tokens.shape[1] ** 0.5)
        x = self.state["tokenizer.embedding.weight"][tokens]  # (B, K, code_size)
        x = self.conv(x.transpose(1, 2).unflatten(2, (side, side)), "post_quant_conv")
        x = self.middle(self.conv(x, "decoder.conv_in"), "decoder.mid")
        levels = sum(self.has(f"decoder.up.{level}.block.0.conv1") for level in range(8))
        for level in reversed(range(levels)):
            x = self.blocks(x, f"decoder.up.{level}")
            if self.has(f"decoder.up.{level}.upsample.conv"):
                x = F.interpolate(x, scale_factor=2, mode="nearest")
                x = self.conv(x, f"decoder.up.{level}.upsample.conv")
        return self.end(x, "decoder")

    def pictures(self, tokens: Tensor) -> Tensor:
        """(B, K) int64 -> (B, H, W, 3) in 0..255, fractions not cut off."""
        return ((self.signal(tokens) + 1) / 2).clamp(0, 1).permute(0, 2, 3, 1) * 255

    def has(self, layer: str) -> bool:
        return f"tokenizer.{layer}.weight" in self.state

    def conv(self, x: Tensor, layer: str, stride: int = 1, padding: int | None = None) -> Tensor:
        weight, bias = (self.state[f"tokenizer.{layer}.{part}"] for part in ("weight", "bias"))
        padding = weight.shape[2] // 2 if padding is None else padding
        return F.conv2d(x, weight, bias, stride, padding)

    def norm(self, x: Tensor, layer: str) -> Tensor:
        weight, bias = (self.state[f"tokenizer.{layer}.{part}"] for part in ("weight", "bias"))
        return F.group_norm(x, 32, weight, bias, eps=1e-6)

    def block(self, x: Tensor, name: str) -> Tensor:
        h = self.conv(F.silu(self.norm(x, f"{name}.norm1")), f"{name}.conv1")
        h = self.conv(F.silu(self.norm(h, f"{name}.norm2")), f"{name}.conv2")
        shortcut = f"{name}.nin_shortcut"
        return h + (self.conv(x, shortcut) if self.has(shortcut) else x)

    def attention(self, x: Tensor, name: str) -> Tensor:
        h = self.norm(x, f"{name}.norm")
        parts = (self.conv(h, f"{name}.{part}") for part in "qkv")
        q, k, v = (part.flatten(2) for part in parts)  # (B, C, N)
        weights = (torch.einsum("bcn,bcm->bnm", q, k) / q.shape[1] ** 0.5).softmax(2)
        attended = torch.einsum("bnm,bcm->bcn", weights, v).reshape(x.shape)
        return x + self.conv(attended, f"{name}.proj_out")

    def blocks(self, x: Tensor, level: str) -> Tensor:
        at = 0
        while self.has(f"{level}.block.{at}.conv1"):
            x = self.block(x, f"{level}.block.{at}")
            if self.has(f"{level}.attn.{at}.q"):
                x = self.attention(x, f"{level}.attn.{at}")
            at += 1
        return x

    def middle(self, x: Tensor, name: str) -> Tensor:
        x = self.attention(self.block(x, f"{name}.block_1"), f"{name}.attn_1")
        return self.block(x, f"{name}.block_2")

    def end(self, x: Tensor, name: str) -> Tensor:
        return self.conv(F.silu(self.norm(x, f"{name}.norm_out")), f"{name}.conv_out")
