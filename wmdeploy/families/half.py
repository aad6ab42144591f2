"""Modules in float16, with float32 where that is what keeps them right."""

import copy

from torch import Tensor, nn


def to_half(module: nn.Module, islands: tuple[type[nn.Module], ...] = ()) -> nn.Module:
    """A float16 copy, in which the modules of some classes keep float32 parameters.

    Args:
        islands: classes whose arithmetic stays in float32; these cast their own inputs.
    """
    module = copy.deepcopy(module)
    found = [part for part in module.modules() if isinstance(part, islands)]
    kept = {id(inner) for island in found for inner in island.modules()}

    def halved(tensor: Tensor) -> Tensor:
        return tensor.half() if tensor.is_floating_point() else tensor

    for part in module.modules():
        if id(part) not in kept:
            part._apply(halved, recurse=False)
    return module
