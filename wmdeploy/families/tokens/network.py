"""A token model as its authors write it: Micheli et al. 2023, "Transformers are sample-efficient
world models" (arXiv 2209.00588), whose program is IRIS.

A frame is K tokens; the sequence is

    K tokens, action, K tokens, action, ...

and the transformer tells of each position the token that follows: of an action the first of the
next frame, the reward and the end. Written from the paper; modules are named as in the authors'
checkpoints.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from wmdeploy.families.tokens.config import TokensConfig
from wmdeploy.families.tokens.tokenizer import Tokenizer

REWARDS = 3  # -1, 0, 1
ENDS = 2  # goes on, ends


class Attention(nn.Module):
    """Causal attention with a cache."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.key, self.query = nn.Linear(width, width), nn.Linear(width, width)
        self.value, self.proj = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x: Tensor, start: int, keys: Tensor, values: Tensor) -> Tensor:
        """Entries x (B, n, D) behind `start` others; theirs are written into the caches.

        Args:
            keys, values: (B, heads, P, D / heads).
        """
        count = x.shape[1]
        end = start + count
        keys[:, :, start:end], values[:, :, start:end] = (
            self.split(self.key(x)),
            self.split(self.value(x)),
        )
        q = self.split(self.query(x))
        scores = q @ keys[:, :, :end].transpose(2, 3) * q.shape[3] ** -0.5  # (B, heads, n, end)
        later = torch.ones(count, end, dtype=torch.bool, device=x.device).triu(start + 1)
        weights = scores.masked_fill(later, float("-inf")).softmax(-1)
        return self.proj((weights @ values[:, :, :end]).transpose(1, 2).flatten(2))

    def split(self, x: Tensor) -> Tensor:
        """(B, n, D) -> (B, heads, n, D / heads)."""
        return x.unflatten(2, (self.heads, -1)).transpose(1, 2)


class Block(nn.Module):
    """Attention, then an MLP, each added to what it took (norms first)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.ln1, self.ln2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = Attention(width, heads)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor, start: int, keys: Tensor, values: Tensor) -> Tensor:
        x = x + self.attn(self.ln1(x), start, keys, values)
        return x + self.mlp(self.ln2(x))


class Head(nn.Module):
    """Hidden states (..., D) -> logits (..., classes) float32, which it computes in float32."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.head_module = nn.Sequential(
            nn.Linear(width, width), nn.ReLU(), nn.Linear(width, classes)
        )

    def forward(self, hidden: Tensor) -> Tensor:
        return self.head_module(hidden.float())


class Embedder(nn.Module):
    """Tables of actions and of tokens, in this order."""

    def __init__(self, actions: int, tokens: int, width: int) -> None:
        super().__init__()
        self.embedding_tables = nn.ModuleList(
            [nn.Embedding(actions, width), nn.Embedding(tokens, width)]
        )

    def actions(self, action: Tensor) -> Tensor:
        """(B,) int64 -> (B, 1, D)."""
        return self.embedding_tables[0](action)[:, None]

    def tokens(self, tokens: Tensor) -> Tensor:
        """(B, n) int64 -> (B, n, D)."""
        return self.embedding_tables[1](tokens)


class Transformer(nn.Module):
    def __init__(self, width: int, heads: int, layers: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.ln_f = nn.LayerNorm(width)


class WorldModel(nn.Module):
    def __init__(self, config: TokensConfig) -> None:
        super().__init__()
        sizes, classes = config.transformer, config.tokenizer.codebook_size
        self.embedder = Embedder(sizes.num_actions, classes, sizes.d_model)
        self.pos_emb = nn.Embedding(config.positions, sizes.d_model)
        self.transformer = Transformer(sizes.d_model, sizes.heads, sizes.layers)
        self.head_observations = Head(sizes.d_model, classes)
        self.head_rewards = Head(sizes.d_model, REWARDS)
        self.head_ends = Head(sizes.d_model, ENDS)

    def forward(self, x: Tensor, start: int, cache: Sequence[Tensor]) -> Tensor:
        """Embedded entries (B, n, D) behind `start` others -> hidden states (B, n, D).

        Args:
            cache: the keys of each layer, then the values, (B, heads, P, D / heads), into which
                their own are written.
        """
        layers = len(self.transformer.blocks)
        x = x + self.pos_emb.weight[start : start + x.shape[1]]
        for at, block in enumerate(self.transformer.blocks):
            x = block(x, start, cache[at], cache[layers + at])
        return self.transformer.ln_f(x)


class TokensModel(nn.Module):
    """The tokenizer and the world model.

    Its weights are drawn larger than a training would: the authors' make nearly uniform logits,
    and of these every draw is one of the noise alone, whatever a wrong graph computed. Here logits
    have a standard deviation of about 1, and codes and pictures differ from frame to frame.
    """

    family = "tokens"

    def __init__(self, config: TokensConfig) -> None:
        super().__init__()
        self.config = config
        self.tokenizer, self.world_model = Tokenizer(config.tokenizer), WorldModel(config)
        for layer in self.modules():
            if isinstance(layer, nn.Linear | nn.Conv2d):
                nn.init.normal_(layer.weight, std=layer.weight[0].numel() ** -0.5)
                layer.bias.data.zero_()  # type: ignore[union-attr]
        nn.init.normal_(self.tokenizer.embedding.weight, std=0.25)  # or a few short codes win
        for head in (layer for layer in self.modules() if isinstance(layer, Head)):
            last: Any = head.head_module[2]
            last.weight.data.mul_(2**0.5)  # a ReLU halves the variance


def draw(logits: Tensor, noise: Tensor) -> Tensor:
    """A class by Gumbel-max, logits and noise (..., classes) -> (...) int64."""
    return (logits + noise).argmax(-1)
