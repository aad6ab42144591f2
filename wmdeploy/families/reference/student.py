"""A student decoder: small convolutions that imitate the decoder of one model.

It has neither attention nor norms, and doubles the resolution by pixel shuffle (Shi et al. 2016,
arXiv:1609.05158), so that its last convolution runs at half the resolution of the picture. Its
first layer is linear, so that in the token layout it and the transformer's output projection are
one matrix; see `graphs.py`. Knows no other part of the model.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from wmdeploy.families.reference.config import StudentConfig, VQVAEConfig


class StudentBlock(nn.Module):
    """conv3x3 - ReLU - conv3x3, plus the input, then ReLU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:  # (B, C, H, W)
        return F.relu(x + self.conv2(F.relu(self.conv1(x))))


class Student(nn.Module):
    """Latents to frames."""

    def __init__(self, config: StudentConfig, vqvae: VQVAEConfig) -> None:
        super().__init__()
        self.config = config
        self.small_shape = (config.latent_channels, *vqvae.latent_shape[1:])
        self.squeeze = nn.Conv2d(vqvae.latent_channels, config.latent_channels, 1)
        widths = config.widths
        layers = [nn.Conv2d(config.latent_channels, widths[0], 3, padding=1), nn.ReLU()]
        for width, following in zip(widths, widths[1:], strict=False):
            layers += [StudentBlock(width), *_doubled(width, following), nn.ReLU()]
        layers += [StudentBlock(widths[-1]), *_doubled(widths[-1], 3)]
        self.body = nn.Sequential(*layers)

    def forward(self, z: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, 3, H, W), about [-1, 1], not clipped."""
        return self.body(self.squeeze(z))


def _doubled(width: int, following: int) -> list[nn.Module]:
    return [nn.Conv2d(width, 4 * following, 3, padding=1), nn.PixelShuffle(2)]
