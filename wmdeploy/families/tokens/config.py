"""Sizes of a token model, and the presets. Knows nothing of torch, so that it loads at once."""

from dataclasses import dataclass

from wmdeploy.errors import CheckpointError

MOST = 2**14  # no size of a model is larger; a damaged file could claim anything
NORM_GROUPS = 32  # of every GroupNorm of the tokenizer


def _require(ok: bool, name: str, got: object, expected: str) -> None:
    if not ok:
        raise CheckpointError(f"model config, {name}: got {got}, expected {expected}")


@dataclass(frozen=True, kw_only=True)
class TokenizerConfig:
    """Sizes of the autoencoder whose codes are the tokens.

    Attributes:
        image_size: height and width of a frame, in pixels.
        width: channels are multiples of it.
        multipliers: of each level, the finest first; a level has half the resolution of the one
            before, so that a frame is (image_size / 2**(levels - 1))² tokens.
        blocks: convolution blocks of each level of the encoder; the decoder has one more.
        attention: resolutions, in pixels, of levels where each block is followed by attention.
        latent_channels: what the encoder gives, and the decoder takes, at each token.
        codebook_size: different tokens.
        code_size: values of one code.
    """

    image_size: int
    width: int
    multipliers: tuple[int, ...]
    blocks: int
    attention: tuple[int, ...]
    latent_channels: int
    codebook_size: int
    code_size: int

    def __post_init__(self) -> None:
        for name in ("image_size", "width", "latent_channels", "codebook_size", "code_size"):
            value = getattr(self, name)
            _require(0 < value <= MOST, f"tokenizer.{name}", value, f"1 to {MOST}")
        levels = len(self.multipliers)
        _require(1 <= levels <= 8, "tokenizer.multipliers", self.multipliers, "1 to 8 levels")
        for widths in self.widths:
            ok = 0 < widths <= MOST and widths % NORM_GROUPS == 0
            _require(ok, "tokenizer.width", widths, f"multiples of {NORM_GROUPS}")
        _require(1 <= self.blocks <= 64, "tokenizer.blocks", self.blocks, "1 to 64")
        _require(len(self.attention) <= levels, "tokenizer.attention", self.attention, "few")
        factor = 2 ** (levels - 1)
        ok = self.image_size % factor == 0 and self.side > 1
        expected = f"a multiple of {factor} that is larger"
        _require(ok, "tokenizer.image_size", self.image_size, expected)
        _require(self.codebook_size > 1, "tokenizer.codebook_size", self.codebook_size, "above 1")

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each level, the finest first."""
        return tuple(self.width * multiplier for multiplier in self.multipliers)

    @property
    def side(self) -> int:
        """Tokens of a frame in each direction."""
        return int(self.image_size // 2 ** (len(self.multipliers) - 1))

    @property
    def tokens(self) -> int:
        """K: tokens of a frame."""
        return self.side**2

    def attends(self, level: int) -> bool:
        """Whether a level has attention."""
        return self.image_size // 2**level in self.attention


@dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """Sizes of the transformer.

    Attributes:
        num_actions: actions are integers below it.
        frames: blocks of K tokens and an action that it has positions for. A prediction builds on
            one frame less, and fills the last.
    """

    num_actions: int
    frames: int
    layers: int
    heads: int
    d_model: int

    def __post_init__(self) -> None:
        for name in ("num_actions", "frames", "layers", "heads", "d_model"):
            most = 1024 if name == "layers" else MOST
            value = getattr(self, name)
            _require(0 < value <= most, f"transformer.{name}", value, f"1 to {most}")
        ok = self.d_model % self.heads == 0
        _require(ok, "transformer.d_model", self.d_model, f"a multiple of {self.heads} heads")
        _require(self.frames > 1, "transformer.frames", self.frames, "at least 2")

    @property
    def head_size(self) -> int:
        return self.d_model // self.heads


@dataclass(frozen=True)
class TokensConfig:
    tokenizer: TokenizerConfig
    transformer: TransformerConfig

    @property
    def positions(self) -> int:
        """P: positions of the transformer, K + 1 for each frame."""
        return self.transformer.frames * (self.tokenizer.tokens + 1)


# iris: the published sizes, with the four actions of Breakout. tiny: for tests and the demo.
PRESETS = {
    "iris": TokensConfig(
        TokenizerConfig(
            image_size=64,
            width=64,
            multipliers=(1, 1, 1, 1, 1),
            blocks=2,
            attention=(16, 8),
            latent_channels=512,
            codebook_size=512,
            code_size=512,
        ),
        TransformerConfig(num_actions=4, frames=20, layers=10, heads=4, d_model=256),
    ),
    "tiny": TokensConfig(
        TokenizerConfig(
            image_size=32,
            width=32,
            multipliers=(1, 1, 1, 2, 2),
            blocks=1,
            attention=(4,),
            latent_channels=32,
            codebook_size=64,
            code_size=32,
        ),
        TransformerConfig(num_actions=4, frames=6, layers=2, heads=2, d_model=64),
    ),
}
