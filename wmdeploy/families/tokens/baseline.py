"""A token model as its authors run it: K + 1 passes a frame in a loop in Python.

The cache has room for all positions from the start, is written in place and read as far as it is
used, as theirs. Nothing copies it where all rows have as many frames.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from wmdeploy.families.tokens.network import Head, TokensModel, WorldModel, draw


class Encode(nn.Module):
    """frames (B, H, W, 3) uint8 -> tokens (B, K) int64."""

    def __init__(self, model: TokensModel) -> None:
        super().__init__()
        self.tokenizer = model.tokenizer

    def forward(self, frames: Tensor) -> Tensor:
        return self.tokenizer.encode(frames)


class Decode(nn.Module):
    """tokens (B, K) int64 -> frame (B, H, W, 3) uint8."""

    def __init__(self, model: TokensModel) -> None:
        super().__init__()
        self.tokenizer = model.tokenizer

    def forward(self, tokens: Tensor) -> Tensor:
        return self.tokenizer.decode(tokens)


class Lockstep(nn.Module):
    """The authors' rollouts of a batch go together: rows of other lengths run one after another."""

    world: WorldModel

    def __init__(self, model: TokensModel) -> None:
        super().__init__()
        self.world, self.tokens = model.world_model, model.config.tokenizer.tokens

    def forward(self, cached: Tensor, *feeds: Tensor) -> tuple[Tensor, ...]:
        """What `run` gives, where a frame's entries lie (B,), and the frames there are then (B,).

        Args:
            cached: frames in the cache, (B,) int64.
            feeds: of which the cache is written in place: entries that nobody has read, and that
                the session then writes once more, from what is given here.
        """
        counts = cached.unique().tolist()
        if len(counts) == 1:
            given = self.run(counts[0], *feeds)
        else:
            rows = [(cached == count).nonzero().flatten() for count in counts]
            parts = [
                self.run(count, *(feed[where] for feed in feeds))
                for count, where in zip(counts, rows, strict=True)
            ]
            order = torch.cat(rows).argsort()
            given = tuple(torch.cat(part)[order] for part in zip(*parts, strict=True))
        at = (cached * (self.tokens + 1) - 1).clamp(min=0)
        first = len(given) - 2 * len(self.world.transformer.blocks)
        return *given[:first], at, cached + 1, *given[first:]

    def run(self, frames: int, *feeds: Tensor) -> tuple[Tensor, ...]:
        """Rows with as many frames; the new entries are given last."""
        raise NotImplementedError

    def used(self, frames: int) -> int:
        """Entries of so many frames, and of the actions between them."""
        return max(0, frames * (self.tokens + 1) - 1)

    def entries(self, used: int, cache: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Those of an action and K tokens; a first frame has no action, and its last means nothing.

        (B, heads, P, D / heads) -> (B, heads, K + 1, D / heads), of each layer's keys and values.
        """
        return tuple(part[:, :, used : used + self.tokens + 1] for part in cache)


class AbsorbFrame(Lockstep):
    """A real frame in one pass: the action that led to it, where there is one, and its tokens."""

    def run(self, frames: int, *feeds: Tensor) -> tuple[Tensor, ...]:
        tokens, action, *cache = feeds
        used, x = self.used(frames), self.world.embedder.tokens(tokens)
        if frames:
            x = torch.cat([self.world.embedder.actions(action), x], 1)
        hidden = self.world(x, used, cache)
        logits = self.world.head_observations(hidden[:, :-1])
        if not frames:  # nothing tells of the first token
            logits = torch.cat([torch.zeros_like(logits[:, :1]), logits], 1)
        return logits, *self.entries(used, cache)


class WholeFrame(Lockstep):
    """The next frame, token by token."""

    def run(self, frames: int, *feeds: Tensor) -> tuple[Tensor, ...]:
        action, noise, reward_noise, end_noise, *cache = feeds
        used, x, tokens = self.used(frames), self.world.embedder.actions(action), []
        for at in range(self.tokens + 1):
            hidden = self.world(x, used + at, cache)[:, -1]
            if at == 0:
                reward = draw(self.world.head_rewards(hidden), reward_noise).float() - 1
                end = draw(self.world.head_ends(hidden), end_noise)
            if at < self.tokens:
                tokens.append(draw(self.world.head_observations(hidden), noise[:, at]))
                x = self.world.embedder.tokens(tokens[-1][:, None])
        return torch.stack(tokens, 1), reward, end, *self.entries(used, cache)


def modules(model: TokensModel) -> dict[str, Callable[[], nn.Module]]:
    """By the names of their graphs."""
    return {
        "encoder": lambda: Encode(model),
        "absorb_frame": lambda: AbsorbFrame(model),
        "whole_frame": lambda: WholeFrame(model),
        "decoder": lambda: Decode(model),
    }


ISLANDS = (Head,)  # float32 where the rest is float16
