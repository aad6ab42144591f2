"""Sizes of a diffusion world model, and the presets. Imports no torch."""

from dataclasses import dataclass

from wmdeploy.errors import CheckpointError

MOST = 2**12  # of any size; a damaged file could claim anything
MOST_BLOCKS = 64  # of one resolution
MOST_STEPS = 64  # of denoising, for one frame
NORM_WIDTH, HEAD_WIDTH = 32, 8  # channels of one group of a GroupNorm, and of one attention head


def norm_groups(width: int) -> int:
    """How many groups the GroupNorm of so many channels has."""
    return max(1, width // NORM_WIDTH)


def _require(ok: bool, name: str, got: object, expected: str) -> None:
    if not ok:
        raise CheckpointError(f"model config, {name}: got {got}, expected {expected}")


@dataclass(frozen=True, kw_only=True)
class DiffusionConfig:
    """Sizes of DIAMOND (Alonso et al. 2024), and how it samples (Karras et al. 2022).

    Attributes:
        image_size: height and width of a frame.
        num_actions: actions are integers below it.
        context: S, how many frames and actions a frame is denoised on.
        cond: channels of the condition, which is the noise level and the actions.
        depths, channels, attention: of the U-Net, from full resolution on, each half the one
            before: blocks, their channels, and whether they attend.
        reward_cond, reward_depths, reward_channels, reward_attention: likewise, of the encoder of
            the model of rewards and ends.
        lstm: cells of that model.
        sigma_data, sigma_offset: standard deviation of frames, and of the noise on their level.
        steps: denoising steps for one frame.
        sigma_min, sigma_max, rho: the noise levels of these steps.
    """

    image_size: int
    num_actions: int
    context: int = 4
    cond: int
    depths: tuple[int, ...]
    channels: tuple[int, ...]
    attention: tuple[bool, ...]
    reward_cond: int
    reward_depths: tuple[int, ...]
    reward_channels: tuple[int, ...]
    reward_attention: tuple[bool, ...]
    lstm: int
    sigma_data: float = 0.5
    sigma_offset: float = 0.3
    steps: int = 3
    sigma_min: float = 2e-3
    sigma_max: float = 5.0
    rho: int = 7

    def __post_init__(self) -> None:
        for name in ("image_size", "num_actions", "context", "cond", "reward_cond", "lstm"):
            value = getattr(self, name)
            _require(1 <= value <= MOST, name, value, f"1 to {MOST}")
        _require(1 <= self.steps <= MOST_STEPS, "steps", self.steps, f"1 to {MOST_STEPS}")
        _require(1 <= self.rho <= 100, "rho", self.rho, "1 to 100")
        ok = 0 < self.sigma_min < self.sigma_max < 1e6
        _require(ok, "sigma_min", self.sigma_min, f"above 0 and below sigma_max ({self.sigma_max})")
        _require(0 < self.sigma_data < 1e6, "sigma_data", self.sigma_data, "above 0")
        _require(0 <= self.sigma_offset < 1e6, "sigma_offset", self.sigma_offset, "0 or more")
        even = self.cond % 2 == 0 and self.cond % self.context == 0
        _require(even, "cond", self.cond, f"a multiple of 2 and of the context ({self.context})")
        for part in ("", "reward_"):
            self._check_levels(part)
        for below, width in zip(self.channels, self.channels[1:], strict=False):
            self._check_width("channels", below + width)  # where the U-Net joins two of them
        for width in self.channels:
            self._check_width("channels", 2 * width)

    def _check_levels(self, part: str) -> None:
        depths, widths, attention = (
            getattr(self, part + name) for name in ("depths", "channels", "attention")
        )
        levels = len(widths)
        _require(1 <= levels <= 12, part + "channels", widths, "1 to 12 resolutions")
        for name, values in (("depths", depths), ("attention", attention)):
            _require(len(values) == levels, part + name, values, f"{levels}, as channels")
        ok = all(1 <= depth <= MOST_BLOCKS for depth in depths)
        _require(ok, part + "depths", depths, f"1 to {MOST_BLOCKS} each")
        for width in widths:
            self._check_width(part + "channels", width)
        factor = 2 ** (levels - 1)
        ok = self.image_size % factor == 0
        _require(ok, "image_size", self.image_size, f"a multiple of {factor}, for {part}channels")

    def _check_width(self, name: str, width: int) -> None:
        ok = 0 < width <= MOST and width % HEAD_WIDTH == 0 and width % norm_groups(width) == 0
        _require(ok, name, width, f"8, 16 or multiples of {NORM_WIDTH}, up to {MOST}")

    @property
    def features(self) -> int:
        """Values that the encoder of rewards and ends gives of one transition."""
        side = self.image_size >> (len(self.reward_channels) - 1)
        return self.reward_channels[-1] * side**2

    @property
    def scales(self) -> int:
        """Scales and shifts of all adaptive norms of the U-Net: two norms in each block."""
        channels = 4 * self.channels[-1]  # in and out of the two blocks in the middle
        for level, (depth, b) in enumerate(zip(self.depths, self.channels, strict=True)):
            a = self.channels[max(0, level - 1)]
            channels += a + b + (depth - 1) * 2 * b  # on the way down
            channels += depth * 3 * b + (a + b) + a  # and up, with what it joins
        return 2 * channels


# diamond: the published sizes, with the actions of Breakout; other games have 3 to 18.
# tiny: for tests, and for a training on a CPU.
PRESETS = {
    "diamond": DiffusionConfig(
        image_size=64,
        num_actions=4,
        cond=256,
        depths=(2, 2, 2, 2),
        channels=(64, 64, 64, 64),
        attention=(False, False, False, False),
        reward_cond=128,
        reward_depths=(2, 2, 2, 2),
        reward_channels=(32, 32, 32, 32),
        reward_attention=(False, False, False, False),
        lstm=512,
    ),
    "tiny": DiffusionConfig(
        image_size=32,
        num_actions=6,
        cond=64,
        depths=(1, 1),
        channels=(32, 32),
        attention=(False, True),
        reward_cond=32,
        reward_depths=(1, 1, 1),
        reward_channels=(16, 16, 16),
        reward_attention=(False, False, False),
        lstm=32,
    ),
}
