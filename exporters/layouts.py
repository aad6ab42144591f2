"""What the graphs of a bundle would weigh in its other layout, counted without exporting them."""

import torch
from torch import nn

from wmdeploy.families import load_family
from wmdeploy.manifest import Layout, Manifest


def other_layout(layout: Layout) -> Layout:
    return "latent" if layout == "token" else "token"


def other_layout_bytes(manifest: Manifest) -> dict[str, int]:
    """Bytes of each graph's weights in the layout that the bundle is not in, same precision.

    Both layouts are counted from the model's sizes, and their difference is added to what the
    exported graphs have: an exporter stores some weights twice and equal ones once, in both alike.
    """
    recipe, family = manifest.recipe, load_family(manifest.family)
    with torch.device("meta"), torch.no_grad():  # shapes and types, no memory
        model = family.build(manifest.model)
        counts = {}
        for layout in (recipe.layout, other_layout(recipe.layout)):
            graphs = family.deployment(model, layout, recipe.precision).graphs
            counts[layout] = {name: _weight_bytes(build().module) for name, build in graphs.items()}
    own, other = counts.values()
    return {
        name: record.weight_bytes + other[name] - own[name]
        for name, record in manifest.graphs.items()
    }


def _weight_bytes(module: nn.Module) -> int:
    """Each weight once, and no statistics of training."""
    return sum(tensor.nbytes for name, tensor in module.state_dict().items() if "ema_" not in name)
