"""A token model as its authors run it: K + 1 passes a frame in a loop, a cache that grows."""

import torch
from torch import Tensor, nn

from wmdeploy.families.tokens.network import TokensModel, WorldModel, draw


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

    def forward(self, length: Tensor, *feeds: Tensor) -> tuple[Tensor, ...]:
        """`run` with rows of one length, (B,) int64, at a time."""
        lengths = length.unique().tolist()
        if len(lengths) == 1:
            return self.run(lengths[0], *feeds)
        rows = [(length == some).nonzero().flatten() for some in lengths]
        parts = [
            self.run(some, *(feed[where] for feed in feeds))
            for some, where in zip(lengths, rows, strict=True)
        ]
        order = torch.cat(rows).argsort()
        return tuple(torch.cat(part)[order] for part in zip(*parts, strict=True))

    def run(self, length: int, *feeds: Tensor) -> tuple[Tensor, ...]:
        raise NotImplementedError

    def used(self, length: int) -> int:
        """Entries of so many frames, and of the actions between them."""
        return max(0, length * (self.tokens + 1) - 1)


class AbsorbFrame(Lockstep):
    """A real frame in one pass: the action that led to it, where there is one, and its tokens."""

    def run(self, length: int, *feeds: Tensor) -> tuple[Tensor, ...]:
        tokens, action, keys, values = feeds
        keys, values = keys.clone(), values.clone()
        x = self.world.embedder.tokens(tokens)
        if length:
            x = torch.cat([self.world.embedder.actions(action), x], 1)
        hidden = self.world(x, self.used(length), keys, values)
        logits = self.world.head_observations(hidden[:, :-1])
        if not length:  # nothing tells of the first token
            logits = torch.cat([torch.zeros_like(logits[:, :1]), logits], 1)
        return logits, keys, values


class WholeFrame(Lockstep):
    """The next frame, token by token."""

    def run(self, length: int, *feeds: Tensor) -> tuple[Tensor, ...]:
        action, keys, values, obs, reward, end = feeds
        keys, values = keys.clone(), values.clone()
        x, tokens = self.world.embedder.actions(action), []
        for at in range(self.tokens + 1):
            hidden = self.world(x, self.used(length) + at, keys, values)[:, -1]
            if at == 0:
                rewards = draw(self.world.head_rewards(hidden), reward).float() - 1
                ends = draw(self.world.head_ends(hidden), end)
            if at < self.tokens:
                tokens.append(draw(self.world.head_observations(hidden), obs[:, at]))
                x = self.world.embedder.tokens(tokens[-1][:, None])
        return torch.stack(tokens, 1), rewards, ends, keys, values
