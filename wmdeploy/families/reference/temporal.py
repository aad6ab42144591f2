"""The causal transformer over time: one token per frame, next latent out.

Post-norm blocks as in Vaswani et al. 2017, with ReLU and sinusoidal positions. It regresses the
next latent and knows nothing of pixels.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wmdeploy.families.reference.config import TemporalConfig


def sinusoidal_positions(length: int, width: int) -> Tensor:
    """The table of Vaswani et al. 2017, section 3.5: (length, width), sines even, cosines odd."""
    position = torch.arange(length, dtype=torch.float32).unsqueeze(1)
    rate = torch.exp(torch.arange(0, width, 2, dtype=torch.float32) * (-math.log(10000.0) / width))
    return torch.stack((torch.sin(position * rate), torch.cos(position * rate)), dim=2).flatten(1)


class TemporalAttention(nn.Module):
    """Multi-head causal self-attention over frames."""

    def __init__(self, config: TemporalConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.q_proj = nn.Linear(config.d_model, config.d_model)
        self.k_proj = nn.Linear(config.d_model, config.d_model)
        self.v_proj = nn.Linear(config.d_model, config.d_model)
        self.out_proj = nn.Linear(config.d_model, config.d_model)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, T, D) -> q, k, v, each (B, heads, T, head_dim)."""
        q, k, v = (
            f(x).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for f in (self.q_proj, self.k_proj, self.v_proj)
        )
        return q, k, v

    def merge(self, y: Tensor) -> Tensor:
        """(B, heads, T, head_dim) -> (B, T, D)."""
        return self.out_proj(y.transpose(1, 2).flatten(2))

    def forward(self, x: Tensor) -> Tensor:  # (B, T, D)
        return self.merge(F.scaled_dot_product_attention(*self.project(x), is_causal=True))


class TemporalBlock(nn.Module):
    """Attention and feed-forward, each followed by its LayerNorm (post-norm)."""

    def __init__(self, config: TemporalConfig) -> None:
        super().__init__()
        self.self_attention = TemporalAttention(config)
        self.norm1 = nn.LayerNorm(config.d_model)
        self.feedforward = nn.Sequential(
            nn.Linear(config.d_model, 4 * config.d_model),
            nn.ReLU(),
            nn.Dropout(config.dropout),
            nn.Linear(4 * config.d_model, config.d_model),
            nn.Dropout(config.dropout),
        )
        self.norm2 = nn.LayerNorm(config.d_model)

    def finish(self, x: Tensor, attended: Tensor) -> Tensor:
        """All that follows attention; x and attended are (B, T, D)."""
        x = self.norm1(x + attended)
        return self.norm2(x + self.feedforward(x))

    def forward(self, x: Tensor) -> Tensor:  # (B, T, D)
        return self.finish(x, self.self_attention(x))


class TemporalTransformer(nn.Module):
    """Latents of T frames to predictions of the T latents that follow each of them."""

    positions: Tensor

    def __init__(self, config: TemporalConfig, latent_values: int) -> None:
        super().__init__()
        self.config = config
        self.latent_proj = nn.Linear(latent_values, config.d_model)
        if config.num_actions:
            self.action_embedding = nn.Embedding(config.num_actions, config.d_model)
        self.layers = nn.ModuleList(TemporalBlock(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.d_model)
        self.output_proj = nn.Linear(config.d_model, latent_values)
        table = sinusoidal_positions(config.context, config.d_model)
        self.register_buffer("positions", table, persistent=False)

    def embed_actions(self, tokens: Tensor, actions: Tensor | None) -> Tensor:
        """Add the embedding of each frame's action, if the model is conditioned on actions.

        Args:
            tokens: (..., D).
            actions: (...) int64 in [0, num_actions), required exactly if num_actions > 0.
        """
        if (actions is not None) != bool(self.config.num_actions):
            expected = "no actions" if actions is not None else "an action for every frame"
            raise ValueError(f"num_actions is {self.config.num_actions}: expected {expected}")
        return tokens if actions is None else tokens + self.action_embedding(actions)

    def contextualize(self, tokens: Tensor, actions: Tensor | None = None) -> Tensor:
        """Tokens to hidden states, T <= context.

        Args:
            tokens: (B, T, D), the latents after `latent_proj`.
            actions: (B, T) int64, the action taken at each frame.

        Returns:
            (B, T, D): after the last norm, before `output_proj`.
        """
        x = self.embed_actions(tokens, actions) + self.positions[: tokens.shape[1]]
        for layer in self.layers:
            x = layer(x)
        return self.norm(x)

    def forward(self, latents: Tensor, actions: Tensor | None = None) -> Tensor:
        """(B, T, L), T <= context -> (B, T, L): the latent that follows each frame."""
        return self.output_proj(self.contextualize(self.latent_proj(latents), actions))
