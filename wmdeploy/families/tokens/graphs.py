"""A token model as graphs: one pass for each token, and the cache's new entries alone as outputs.

What is rewritten, exactly: queries, keys and values are one product; the codebook and
`post_quant_conv` are one table; and the last token of a frame shares a pass with the action that
follows it, so that a frame of K tokens takes K passes and not K + 1. Hence the entries of a frame
in the cache are

    last token of the frame before, action, all tokens of the frame but the last

in slots of their own, K + 1 for each frame. A first frame has no two such entries: the slots 0 and
1 are not seen then, or ever, and position p of the transformer is slot p + 2. Each layer has keys
and values of its own: a graph that took all layers as one tensor would copy it to take it apart.
"""

from collections.abc import Callable
from functools import cache
from typing import cast

import torch
from einops import rearrange
from torch import Tensor, nn

from wmdeploy.families.tokens.network import Block, Head, TokensModel, draw
from wmdeploy.families.tokens.tokenizer import to_pixels, to_signal

UNSEEN = 2  # slots at the start


class Encode(nn.Module):
    """frames (B, H, W, 3) uint8 -> tokens (B, K) int64."""

    def __init__(self, model: TokensModel) -> None:
        super().__init__()
        self.encoder, self.nearest = model.tokenizer.encoder, Nearest(model)

    def forward(self, frames: Tensor) -> Tensor:
        return self.nearest(self.encoder(to_signal(frames, self.encoder.conv_in)))


class Nearest(nn.Module):
    """Latents (B, C, h, w) -> the nearest codes (B, h·w) int64, by distances in float32."""

    def __init__(self, model: TokensModel) -> None:
        super().__init__()
        self.project, self.codes = model.tokenizer.pre_quant_conv, model.tokenizer.embedding

    def forward(self, latents: Tensor) -> Tensor:
        flat = rearrange(self.project(latents.float()), "b c h w -> b (h w) c")
        codes = self.codes.weight
        # without the square of `flat`, which is the same for all codes
        return (codes.square().sum(1) - 2 * flat @ codes.t()).argmin(-1)


class Decode(nn.Module):
    """tokens (B, K) int64 -> frame (B, H, W, 3) uint8."""

    def __init__(self, model: TokensModel) -> None:
        super().__init__()
        codes, after = model.tokenizer.embedding.weight, model.tokenizer.post_quant_conv
        assert after.bias is not None
        table = codes.double() @ after.weight.flatten(1).t().double() + after.bias.double()
        self.table = nn.Embedding.from_pretrained(table.float())
        self.decoder, self.side = model.tokenizer.decoder, model.config.tokenizer.side

    def forward(self, tokens: Tensor) -> Tensor:
        latents = rearrange(self.table(tokens), "b (h w) c -> b c h w", h=self.side)
        return to_pixels(self.decoder(latents.to(self.decoder.conv_in.weight.dtype)))


class PassBlock(nn.Module):
    """A block of the transformer, of which the cache is read and not written."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        attention = block.attn
        parts = (attention.query, attention.key, attention.value)
        width = attention.proj.in_features
        self.qkv = nn.Linear(width, 3 * width)
        self.qkv.weight = nn.Parameter(torch.cat([part.weight for part in parts]))
        self.qkv.bias = nn.Parameter(torch.cat([part.bias for part in parts]))
        self.proj, self.heads = attention.proj, attention.heads
        self.ln1, self.ln2, self.mlp = block.ln1, block.ln2, block.mlp

    def forward(
        self, x: Tensor, keys: Tensor, values: Tensor, hidden: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Entries x (B, n, D) float32 -> the same, their keys and values (B, heads, n, D / heads).

        Args:
            keys, values: the cache, (B, heads, P, D / heads).
            hidden: (B, 1, n, P + n), which entries of the cache, and of x, one of x does not see.
        """
        qkv = self.qkv(self.ln1(x).to(keys.dtype))
        q, k, v = qkv.unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        q = q * q.shape[3] ** -0.5
        # the cache apart from the new entries: together they would be a copy of it
        scores = torch.cat([q @ keys.transpose(2, 3), q @ k.transpose(2, 3)], 3)
        scores = scores.float().masked_fill(hidden, float("-inf"))
        old, new = scores.softmax(-1).to(v.dtype).split([keys.shape[2], k.shape[2]], 3)
        attended = (old @ values + new @ v).transpose(1, 2).flatten(2)
        x = x + self.proj(attended).float()
        return x + self.mlp(self.ln2(x).to(v.dtype)).float(), k, v


class Passes(nn.Module):
    """What the graphs of the world model share; the sum of the branches stays in float32."""

    def __init__(self, model: TokensModel) -> None:
        super().__init__()
        world = model.world_model
        self.embedder, self.positions = world.embedder, world.pos_emb
        blocks = cast(list[Block], list(world.transformer.blocks))
        self.blocks = nn.ModuleList(PassBlock(block) for block in blocks)
        self.ln_f, self.each = world.transformer.ln_f, model.config.tokenizer.tokens + 1
        self.tokens, self.rewards = world.head_observations, world.head_rewards
        self.ends = world.head_ends

    def forward(
        self, x: Tensor, start: Tensor, cache: tuple[Tensor, ...]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Entries x (B, n, D) from slot `start` (B,) on -> hidden states (B, n, D), new entries.

        Args:
            cache: the keys of each layer, then the values, (B, heads, P, D / heads); new entries
                are (B, heads, n, D / heads), in the same order.
        """
        layers = len(self.blocks)
        count, slots = x.shape[1], torch.arange(cache[0].shape[2], device=x.device)
        here = torch.arange(count, device=x.device)
        start = start.view(-1, 1, 1, 1)
        old = (slots < start) & (slots >= UNSEEN)  # (B, 1, 1, P)
        new = here <= here[:, None]  # (n, n)
        new = new & ((here >= UNSEEN) | (here[:, None] < UNSEEN) | (start > 0))  # (B, 1, n, n)
        hidden = ~torch.cat([old.expand(-1, -1, count, -1), new], 3)
        x = x + self.positions((start[:, 0, 0] + here - UNSEEN).clamp(min=0))
        keys, values = [], []
        for at, block in enumerate(self.blocks):
            x, key, value = block(x, cache[at], cache[layers + at], hidden)
            keys.append(key)
            values.append(value)
        return self.ln_f(x), (*keys, *values)


class Part(nn.Module):
    def __init__(self, passes: Passes) -> None:
        super().__init__()
        self.passes = passes


class Absorb(Part):
    """A real frame: all entries at once, and the logits of its tokens given those before each.

    before, tokens (B, K): of the frame before and of this one. action (B,): between them. cached
    (B,): frames in the cache; where there are none, the first token's logits are zeros.
    """

    def forward(
        self,
        before: Tensor,
        tokens: Tensor,
        action: Tensor,
        cached: Tensor,
        *cache: Tensor,
    ) -> tuple[Tensor, ...]:
        passes, embed = self.passes, self.passes.embedder
        parts = [embed.tokens(before[:, -1:]), embed.actions(action), embed.tokens(tokens[:, :-1])]
        start = cached * passes.each
        hidden, entries = passes(torch.cat(parts, 1), start, cache)
        logits = passes.tokens(hidden[:, 1:])
        known = (cached[:, None] > 0) | (torch.arange(logits.shape[1], device=cached.device) > 0)
        return logits * known[..., None], start, cached + 1, *entries


class Begin(Part):
    """The entries of the last token and of the action: reward, end and the first token."""

    def forward(
        self,
        before: Tensor,
        action: Tensor,
        cached: Tensor,
        noise: Tensor,
        reward_noise: Tensor,
        end_noise: Tensor,
        *cache: Tensor,
    ) -> tuple[Tensor, ...]:
        passes, embed = self.passes, self.passes.embedder
        x = torch.cat([embed.tokens(before[:, -1:]), embed.actions(action)], 1)
        start = cached * passes.each
        hidden, entries = passes(x, start, cache)
        last = hidden[:, -1]
        first = draw(passes.tokens(last), noise)[:, None]
        tokens = torch.cat([first, torch.zeros_like(before[:, 1:])], 1)
        reward = draw(passes.rewards(last), reward_noise).float() - 1
        end = draw(passes.ends(last), end_noise)
        return tokens, reward, end, start, cached + 1, *entries


class Next(Part):
    """The entry of token index - 1, and token index; cached (B,) counts the one that is drawn."""

    def forward(
        self,
        tokens: Tensor,
        index: Tensor,
        cached: Tensor,
        noise: Tensor,
        *cache: Tensor,
    ) -> tuple[Tensor, ...]:
        passes = self.passes
        newest = tokens.gather(1, index[:, None] - 1)
        start = (cached - 1) * passes.each + index + UNSEEN - 1
        hidden, entries = passes(passes.embedder.tokens(newest), start, cache)
        drawn = draw(passes.tokens(hidden[:, -1]), noise)[:, None]
        places = torch.arange(tokens.shape[1], device=tokens.device)
        return torch.where(places == index[:, None], drawn, tokens), start, *entries


def modules(model: TokensModel) -> dict[str, Callable[[], nn.Module]]:
    """By the names of their graphs; those of the world model share its weights."""
    passes = cache(lambda: Passes(model))
    return {
        "encoder": lambda: Encode(model),
        "absorb": lambda: Absorb(passes()),
        "begin": lambda: Begin(passes()),
        "token": lambda: Next(passes()),
        "decoder": lambda: Decode(model),
    }


ISLANDS = (Nearest, Head, nn.LayerNorm, nn.Embedding)  # float32 in graphs of float16
