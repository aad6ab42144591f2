"""What the graphs of a bundle would weigh in another layout, counted without exporting them."""

import torch
from torch import nn

from wmdeploy.families import ModelFamily, load_family
from wmdeploy.families.directory import parse_config
from wmdeploy.manifest import Manifest


def other_layout(family: ModelFamily, layout: str) -> str | None:
    """The first layout of a family that is not this one; None if it has no other."""
    return next((name for name in family.layouts if name != layout), None)


def other_layout_bytes(manifest: Manifest, other: str) -> dict[str, int]:
    """Bytes of the weights in another layout, same precision, of each graph that both layouts have.

    Both layouts are counted from the model's sizes, and their difference is added to what the
    exported graphs have: an exporter stores some weights twice and equal ones once, in both alike.
    """
    recipe, family = manifest.recipe, load_family(manifest.family)
    with torch.device("meta"), torch.no_grad():  # shapes and types, no memory
        model = family.build(parse_config(family, manifest.model)).eval()
        counts = []
        for layout in (recipe.layout, other):
            graphs = family.deployment(model, layout, recipe.precision).graphs
            counts.append({name: _weight_bytes(build().module) for name, build in graphs.items()})
    own, others = counts
    return {
        name: manifest.graphs[name].weight_bytes + others[name] - own[name]
        for name in manifest.graphs
        if name in others
    }


def _weight_bytes(module: nn.Module) -> int:
    """Each weight once, and no statistics of training."""
    return sum(tensor.nbytes for name, tensor in module.state_dict().items() if "ema_" not in name)
