"""The world model: VQ-VAE and transformer together, and the baseline that all is compared with.

The baseline is eager float32 PyTorch as the reference model's authors run it: for every frame the
whole window goes through the transformer, predictions are fed back without being quantised again.
"""

import torch
from torch import Tensor, nn

from wmdeploy.families.reference.config import WorldModelConfig
from wmdeploy.families.reference.student import Student
from wmdeploy.families.reference.temporal import TemporalTransformer
from wmdeploy.families.reference.vqvae import VQVAE, ResidualBlock


class WorldModel(nn.Module):
    """See the module's docstring; sizes are in `config`."""

    family = "vqvae-transformer"

    def __init__(self, config: WorldModelConfig) -> None:
        super().__init__()
        self.config = config
        self.vqvae = VQVAE(config.vqvae)
        self.temporal_model = TemporalTransformer(config.temporal, config.vqvae.latent_values)
        self.student: Student | None = None
        if config.student is not None:
            self.student = Student(config.student, config.vqvae)

    @torch.no_grad()
    def initialize(self, seed: int) -> "WorldModel":
        """Draw untrained weights, the same for the same seed. Returns self.

        Convolutions: Kaiming normal over the fan-in of what they feed (He et al. 2015); linear
        layers: normal of standard deviation 0.02, zero bias; norms and codebook as torch has them,
        but for the last norm of each ResidualBlock, whose scale is 0.1: branches start small, as
        in Goyal et al. 2017 (arXiv:1706.02677, section 5.1), which starts them at 0. Without it the
        untrained encoder of the reference preset turns float32's rounding into 2e-4 of its output,
        and codes tie that no trained model would confuse.
        """
        generator = torch.Generator().manual_seed(seed)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", generator=generator)
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02, generator=generator)
            elif isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, generator=generator)
            elif isinstance(module, ResidualBlock):
                nn.init.constant_(module.norm2.weight, 0.1)
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        self.vqvae.vq.ema_embed_avg.copy_(self.vqvae.vq.embedding.weight)
        return self

    def encode(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Pixels to latents.

        Args:
            frames: (B, T, H, W, 3) uint8.

        Returns:
            latents (B, T, L) float, flattened `c h w`; codes (B, T, N) int64.
        """
        x = to_signal(frames.flatten(0, 1)).to(self.dtype)
        latents, codes = self.vqvae.encode(x)
        return latents.flatten(1).unflatten(0, frames.shape[:2]), codes.unflatten(
            0, frames.shape[:2]
        )

    def decode(self, latents: Tensor) -> Tensor:
        """(B, T, L) -> (B, T, 3, H, W), about [-1, 1], not clipped; frame by frame."""
        shape = self.config.vqvae.latent_shape
        return torch.stack([self.vqvae.decode(z.unflatten(1, shape)) for z in latents.unbind(1)], 1)

    @torch.inference_mode()
    def imagine_latents(self, latents: Tensor, horizon: int, actions: Tensor | None) -> Tensor:
        """The next `horizon` latents, whole window for each, sliding once it holds S frames.

        Args:
            latents: (B, T, L) of the context.
            actions: (B, T + horizon - 1) int64 if the model is conditioned on actions, else None.

        Returns:
            (B, horizon, L).
        """
        size = self.config.temporal.context
        future: list[Tensor] = []
        for step in range(horizon):
            window = torch.cat([latents, *future[-size:]], dim=1)[:, -size:]
            end = latents.shape[1] + step
            now = None if actions is None else actions[:, end - window.shape[1] : end]
            future.append(self.temporal_model(window, now)[:, -1:])
        return torch.cat(future, dim=1)

    @torch.inference_mode()
    def predict_future(self, frames: Tensor, horizon: int, actions: Tensor | None = None) -> Tensor:
        """Imagine `horizon` frames after a clip.

        Args:
            frames: (B, T, H, W, 3) uint8, the context.
            horizon: frames to imagine, at least 1.
            actions: (B, T + horizon - 1) int64 if the model is conditioned on actions, else None.

        Returns:
            (B, horizon, 3, H, W) float, about [-1, 1], not clipped; see `to_pixels`.
        """
        latents, _ = self.encode(frames[:, -self.config.temporal.context :])
        if actions is not None:
            actions = actions[:, -(latents.shape[1] + horizon - 1) :]
        return self.decode(self.imagine_latents(latents, horizon, actions))

    @property
    def dtype(self) -> torch.dtype:
        return self.temporal_model.output_proj.weight.dtype


def to_signal(frames: Tensor) -> Tensor:
    """Pixels (B, H, W, 3) uint8 -> (B, 3, H, W) float32 in [-1, 1]."""
    return frames.to(torch.float32).permute(0, 3, 1, 2) / 127.5 - 1


def to_pixels(signal: Tensor) -> Tensor:
    """(B, 3, H, W) float -> (B, H, W, 3) uint8: round(255·clip((x + 1)/2, 0, 1))."""
    scaled = ((signal.float() + 1) * 127.5).clamp(0, 255).round()
    return scaled.permute(0, 2, 3, 1).to(torch.uint8)


def count_parameters(module: nn.Module) -> int:
    """Trainable values and the codebook; buffers are not counted."""
    return sum(parameter.numel() for parameter in module.parameters())
