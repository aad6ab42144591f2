"""Students: small convolutions that imitate the decoder or the encoder of one model.

They have neither attention nor norms. What stands next to the picture is a pixel shuffle (Shi et
al. 2016, arXiv:1609.05158) or its reverse, so that no convolution runs at more than half its
resolution; the decoder doubles it so each time, the encoder halves it by strides. The decoder's
first layer is linear, so that in the token layout it and the transformer's output
projection are one matrix; see `student_graph.py`. Knows no other part of the model.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from wmdeploy.families.reference.config import StudentConfig, VQVAEConfig, student_widths


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


class StudentEncoder(nn.Module):
    """Frames to latents that are not quantised yet."""

    def __init__(self, config: VQVAEConfig) -> None:
        super().__init__()
        assert config.encoder is not None
        widths = student_widths(config.encoder, config.widths[1:])
        layers = [
            nn.PixelUnshuffle(2),
            nn.Conv2d(12, widths[0], 3, padding=1),
            nn.ReLU(),
            StudentBlock(widths[0]),
        ]
        for width, following in zip(widths, widths[1:], strict=False):
            halved = nn.Conv2d(width, following, 3, stride=2, padding=1)
            layers += [halved, nn.ReLU(), StudentBlock(following)]
        self.body = nn.Sequential(*layers)
        self.conv_out = nn.Conv2d(widths[-1], config.latent_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] -> (B, C, h, w)."""
        return self.conv_out(self.body(x))


def _doubled(width: int, following: int) -> list[nn.Module]:
    return [nn.Conv2d(width, 4 * following, 3, padding=1), nn.PixelShuffle(2)]
