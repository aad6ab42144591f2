"""Sizes of a world model, and the presets. Knows nothing of torch, so that it loads at once."""

import dataclasses
from dataclasses import dataclass

from wmdeploy.errors import CheckpointError

MOST = 2**16  # no size of a model is larger; a damaged file could claim anything
STUDENTS = {"lite": 3, "tiny": 6}  # by what they divide the widths of the full network
LATENT_CHANNELS = 16  # of a student's latent, at most
NORM_GROUPS = 8  # every GroupNorm of the reference model uses 8 groups


def _require(ok: bool, name: str, got: object, expected: str) -> None:
    if not ok:
        raise CheckpointError(f"model config, {name}: got {got}, expected {expected}")


@dataclass(frozen=True)
class VQVAEConfig:
    """Sizes of the VQ-VAE that turns one frame into one latent and back.

    `widths` are the channels at full resolution and after each halving, so a frame of `image_size`
    becomes a latent of `image_size / 2**(len(widths) - 1)` on each side. `encoder` is the
    name of a student that stands in the full one's place, or None.
    """

    image_size: int
    widths: tuple[int, ...]
    latent_channels: int
    codebook_size: int
    encoder: str | None = None

    def __post_init__(self) -> None:
        names = " or ".join(STUDENTS)
        _require(self.encoder in (None, *STUDENTS), "vqvae.encoder", self.encoder, names)
        _require(3 <= len(self.widths) <= 16, "vqvae.widths", self.widths, "3 to 16 widths")
        for name in ("image_size", "latent_channels", "codebook_size"):
            value = getattr(self, name)
            _require(value <= MOST, f"vqvae.{name}", value, f"at most {MOST}")
        for width in self.widths:
            ok = 0 < width <= MOST and width % NORM_GROUPS == 0
            _require(ok, "vqvae.widths", self.widths, f"positive multiples of {NORM_GROUPS}")
        factor = 2 ** (len(self.widths) - 1)
        ok = self.image_size > 0 and self.image_size % factor == 0
        _require(ok, "vqvae.image_size", self.image_size, f"a positive multiple of {factor}")
        _require(self.latent_channels > 0, "vqvae.latent_channels", self.latent_channels, "> 0")
        _require(self.codebook_size > 1, "vqvae.codebook_size", self.codebook_size, "> 1")

    @property
    def latent_size(self) -> int:
        """Height and width of a latent."""
        return self.image_size // 2 ** (len(self.widths) - 1)

    @property
    def positions(self) -> int:
        """N: codes per frame."""
        return self.latent_size**2

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(C, h, w)."""
        return self.latent_channels, self.latent_size, self.latent_size

    @property
    def latent_values(self) -> int:
        """L: values of one flattened latent, C·N."""
        return self.latent_channels * self.positions


@dataclass(frozen=True, kw_only=True)
class TemporalConfig:
    """Sizes of the causal transformer over time, one token per frame.

    `num_actions` of 0 means that the model is not conditioned on actions.
    """

    d_model: int
    layers: int
    heads: int
    context: int
    num_actions: int = 0
    dropout: float = 0.1

    def __post_init__(self) -> None:
        for name in ("d_model", "heads", "context", "num_actions"):
            value = getattr(self, name)
            _require(value <= MOST, f"temporal.{name}", value, f"at most {MOST}")
        _require(self.layers <= 1024, "temporal.layers", self.layers, "at most 1024")
        ok = self.heads > 0 and self.d_model > 0 and self.d_model % (2 * self.heads) == 0
        _require(ok, "temporal.d_model", self.d_model, f"a multiple of 2 x heads ({self.heads})")
        _require(self.layers > 0, "temporal.layers", self.layers, "> 0")
        _require(self.context > 1, "temporal.context", self.context, "> 1")
        _require(self.num_actions >= 0, "temporal.num_actions", self.num_actions, ">= 0")
        _require(0 <= self.dropout < 1, "temporal.dropout", self.dropout, "in [0, 1)")

    @property
    def head_dim(self) -> int:
        return self.d_model // self.heads


@dataclass(frozen=True, kw_only=True)
class StudentConfig:
    """Sizes of a student decoder, which imitates the decoder of one model.

    Attributes:
        name: "lite" or "tiny".
        latent_channels: of the small latent that it starts from.
        widths: channels at the latent's resolution and after each doubling but the last.
        model: the hash of the weights that it was distilled from, see `decoded_digest`.
    """

    name: str
    latent_channels: int
    widths: tuple[int, ...]
    model: str

    def __post_init__(self) -> None:
        names = " or ".join(STUDENTS)
        _require(self.name in STUDENTS, "student.name", self.name, names)
        _require(0 < len(self.widths) <= 15, "student.widths", self.widths, "1 to 15 widths")
        for width in (self.latent_channels, *self.widths):
            _require(0 < width <= MOST, "student.widths", width, f"1 to {MOST} channels")


@dataclass(frozen=True)
class WorldModelConfig:
    vqvae: VQVAEConfig
    temporal: TemporalConfig
    student: StudentConfig | None = None

    def __post_init__(self) -> None:
        if self.student is not None:
            doublings = len(self.vqvae.widths) - 1
            ok = len(self.student.widths) == doublings
            _require(ok, "student.widths", self.student.widths, f"{doublings} widths")

    def with_actions(self, num_actions: int) -> "WorldModelConfig":
        """The same sizes, conditioned on `num_actions` actions (0: on none)."""
        return dataclasses.replace(
            self, temporal=dataclasses.replace(self.temporal, num_actions=num_actions)
        )


def student_config(name: str, vqvae: VQVAEConfig, model: str) -> StudentConfig:
    """The sizes of a student decoder: the full one's widths, divided.

    Args:
        name: a key of `STUDENTS`.
        vqvae: whose decoder it imitates.
        model: see `StudentConfig`.

    Raises:
        CheckpointError: there is no such size.
    """
    check_size("decoder", name)
    widths = student_widths(name, vqvae.widths[:0:-1])
    channels = min(LATENT_CHANNELS, vqvae.latent_channels)
    return StudentConfig(name=name, latent_channels=channels, widths=widths, model=model)


def student_widths(name: str, widths: tuple[int, ...]) -> tuple[int, ...]:
    """What a student has where the full network has these; a multiple of 8 is computed at once."""
    return tuple(8 * -(-width // (8 * STUDENTS[name])) for width in widths)


def check_size(part: str, name: str) -> None:
    """
    Raises:
        CheckpointError: there is no student of that name.
    """
    if name not in STUDENTS:
        raise CheckpointError(f"{part}: got {name!r}, expected one of {', '.join(STUDENTS)}")


# reference: the published model of 312,309,507 parameters. small: a CPU's size, about 15 M.
# tiny: for tests and the demo.
PRESETS = {
    "reference": WorldModelConfig(
        VQVAEConfig(256, (64, 128, 256, 512), latent_channels=256, codebook_size=512),
        TemporalConfig(d_model=512, layers=6, heads=8, context=32),
    ),
    "small": WorldModelConfig(
        VQVAEConfig(128, (32, 64, 128, 128), latent_channels=64, codebook_size=256),
        TemporalConfig(d_model=256, layers=4, heads=8, context=32),
    ),
    "tiny": WorldModelConfig(
        VQVAEConfig(64, (16, 32, 32, 64), latent_channels=16, codebook_size=128),
        TemporalConfig(d_model=128, layers=2, heads=4, context=16),
    ),
}


def preset(name: str) -> WorldModelConfig:
    """The preset of that name.

    Raises:
        CheckpointError: there is none.
    """
    if name not in PRESETS:
        raise CheckpointError(f"preset: got {name!r}, expected one of {', '.join(PRESETS)}")
    return PRESETS[name]
