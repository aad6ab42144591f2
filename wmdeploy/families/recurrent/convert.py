"""Checkpoints of NM512/dreamerv3-torch: `latest.pt`, where an agent holds its world model."""

import math
from typing import TYPE_CHECKING

from wmdeploy.errors import CheckpointError
from wmdeploy.families.recurrent.config import SMALLEST, RecurrentConfig

if TYPE_CHECKING:
    from torch import Tensor

WORLD_MODEL = "_wm"  # of the agent; its policy holds the same one again by another name


def convert(tensors: "dict[str, Tensor]") -> "tuple[RecurrentConfig, dict[str, Tensor]]":
    """Sizes, by the shapes of tensors, and the world model's tensors; see `ModelFamily.convert`."""
    steps = {name: name.split(".") for name in tensors}
    state = {
        ".".join(path[path.index(WORLD_MODEL) + 1 :]): tensors[name]
        for name, path in steps.items()
        if WORLD_MODEL in path
    }
    if not state:
        raise CheckpointError(
            f"no tensor is part of {WORLD_MODEL}, as in the latest.pt of dreamerv3-torch; is it of "
            "another family?"
        )
    if "dynamics.W" not in state:
        raise CheckpointError(
            "dynamics.W is missing; expected a model with a learned initial state (initial: "
            "learned)"
        )

    def size(name: str, axis: int) -> int:
        shape = state[name].shape
        if len(shape) <= axis:
            raise CheckpointError(f'tensor "{name}": got shape {tuple(shape)}, expected more axes')
        return int(shape[axis])

    def count(start: str, end: str) -> int:
        return sum(name.startswith(start) and name.endswith(end) for name in state)

    stoch = size("dynamics._imgs_stat_layer.weight", 0)
    classes = math.isqrt(stoch)
    if classes**2 != stoch:
        raise CheckpointError(
            f"the stochastic state has {stoch} values, expected n variables of n classes, as 32 "
            "of 32; write config.json by hand, see docs/families/recurrent.md"
        )
    actions = size("dynamics._img_in_layers.0.weight", 1) - stoch
    # one-hot actions have a policy of logits; float ones a policy with deviations
    vectors = any("actor" in path and "std_layer" in path for path in steps.values())
    # a norm follows each convolution
    halvings = count("encoder._cnn.layers.", ".norm.weight")
    config = RecurrentConfig(
        image_size=SMALLEST * 2 ** min(halvings, 16),
        depth=size("encoder._cnn.layers.0.weight", 0),
        deter=size("dynamics.W", 1),
        hidden=size("dynamics._imgs_stat_layer.weight", 1),
        units=size("heads.reward.mean_layer.weight", 1),
        variables=classes,
        classes=classes,
        reward_layers=count("heads.reward.layers.Reward_linear", ".weight"),
        cont_layers=count("heads.cont.layers.Cont_linear", ".weight"),
        num_actions=0 if vectors else actions,
        action_size=actions if vectors else 0,
    )
    return config, state
