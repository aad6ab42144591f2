"""Sizes of a recurrent state-space model, and the presets. Imports no torch."""

from dataclasses import dataclass

from wmdeploy.errors import CheckpointError

SMALLEST = 4  # height and width of what the encoder's last convolution gives
MOST = 2**14  # no size of a model is larger; a damaged file could claim anything


@dataclass(frozen=True, kw_only=True)
class RecurrentConfig:
    """The names in brackets are those of the settings of NM512/dreamerv3-torch.

    Attributes:
        image_size: height and width of a frame: 4 times a power of two.
        depth: channels behind the first convolution; each halving doubles them (cnn_depth).
        deter: values of the deterministic state (dyn_deter).
        hidden: width of the layers around it (dyn_hidden).
        units: width of the reward and continue heads (units).
        variables: categorical variables of the stochastic state (dyn_stoch).
        classes: of each of them (dyn_discrete).
        reward_layers, cont_layers: hidden layers of each head (reward_head and cont_head: layers).
        num_actions: actions are integers below it; 0 where they are floats.
        action_size: actions are vectors of so many floats; 0 where they are integers.
    """

    image_size: int = 64
    depth: int = 32
    deter: int = 512
    hidden: int = 512
    units: int = 512
    variables: int = 32
    classes: int = 32
    reward_layers: int = 2
    cont_layers: int = 2
    num_actions: int = 0
    action_size: int = 0

    def __post_init__(self) -> None:
        for name in ("depth", "deter", "hidden", "units", "variables", "classes"):
            self._require(0 < getattr(self, name) <= MOST, name, f"from 1 to {MOST}")
        for name in ("reward_layers", "cont_layers"):
            self._require(0 < getattr(self, name) <= 64, name, "from 1 to 64")
        halvings = self.image_size.bit_length() - SMALLEST.bit_length()
        fits = self.image_size == SMALLEST * 2**halvings if halvings > 0 else False
        self._require(fits and halvings <= 8, "image_size", "8, 16, 32, ... or 1024")
        for name in ("num_actions", "action_size"):
            self._require(0 <= getattr(self, name) <= MOST, name, f"from 0 to {MOST}")
        if (self.num_actions > 0) == (self.action_size > 0):
            raise CheckpointError(
                f"model config: got num_actions {self.num_actions} and action_size "
                f"{self.action_size}, expected one of them above 0: actions are integers or floats"
            )

    def _require(self, ok: bool, name: str, expected: str) -> None:
        if not ok:
            got = getattr(self, name)
            raise CheckpointError(f"model config, {name}: got {got}, expected {expected}")

    @property
    def actions(self) -> int:
        """Values of an action as the network takes it: a one-hot vector, or the floats."""
        return self.num_actions or self.action_size

    @property
    def stoch(self) -> int:
        """Values of the stochastic state as one-hot vectors."""
        return self.variables * self.classes

    @property
    def channels(self) -> tuple[int, ...]:
        """Behind each convolution of the encoder."""
        halvings = (self.image_size // SMALLEST).bit_length() - 1
        return tuple(self.depth * 2**i for i in range(halvings))

    @property
    def embed(self) -> int:
        """Values of an encoded frame."""
        return self.channels[-1] * SMALLEST**2


# dreamer: the published sizes, with the 18 actions of Atari. tiny: for tests and a first look.
PRESETS = {
    "dreamer": RecurrentConfig(num_actions=18),
    "tiny": RecurrentConfig(
        depth=8, deter=64, hidden=64, units=64, variables=8, classes=8, num_actions=6
    ),
}
