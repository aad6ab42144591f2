"""Graphs of modules in float32 or float16, with float32 where that is what keeps them right.

Importing this module imports no torch.
"""

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from wmdeploy.families.family import Graph
from wmdeploy.manifest import Precision
from wmdeploy.programs.contract import TensorSpec

if TYPE_CHECKING:
    from torch import Tensor, nn

M = TypeVar("M", bound="nn.Module")


def graph_of(
    make: "Callable[[], nn.Module]",
    inputs: tuple[TensorSpec, ...],
    outputs: tuple[TensorSpec, ...],
    precision: Precision,
    islands: "tuple[type[nn.Module], ...]" = (),
) -> Callable[[], Graph]:
    """A graph of a `Deployment`, whose module is made when it is asked for.

    Args:
        make: gives the module in float32; it may share a model's weights.
        inputs, outputs: what its forward takes and gives, in order, in this precision.
        islands: see `to_half`.
    """

    def build() -> Graph:
        module = make().eval()
        return Graph(to_half(module, islands) if precision == "fp16" else module, inputs, outputs)

    return build


def to_half(module: M, islands: "tuple[type[nn.Module], ...]" = ()) -> M:
    """A float16 copy, in which the modules of some classes keep float32 parameters.

    Args:
        islands: classes whose arithmetic stays in float32; these cast their own inputs.
    """
    module = copy.deepcopy(module)
    found = [part for part in module.modules() if isinstance(part, islands)]
    kept = {id(inner) for island in found for inner in island.modules()}

    def halved(tensor: "Tensor") -> "Tensor":
        return tensor.half() if tensor.is_floating_point() else tensor

    for part in module.modules():
        if id(part) not in kept:
            part._apply(halved, recurse=False)
    return module


def copy_with_same_tensors(module: M) -> M:
    """A copy whose parts can be exchanged, and that shares all parameters and buffers."""
    tensors = {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}
    return copy.deepcopy(module, tensors)
