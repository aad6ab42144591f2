"""Find a model's weights in whatever a trainer saved: wrapped, prefixed, beside other weights.

    {"state_dict": {"model._orig_mod.vqvae.encoder.input_conv.weight": ...}, "epoch": 3}

Wherever a name reaches `vqvae` or `temporal_model`, what stands before it is a wrapper. Knows the
names of these two parts, and nothing of their sizes.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from wmdeploy.errors import CheckpointError
from wmdeploy.families.pickles import listed
from wmdeploy.families.weights import WRAPPERS, check_memory, no_weights, read_saved, tensors_in

PARTS = ("vqvae", "temporal_model")
AVERAGED = re.compile(r"(?i)(^|[._])(ema|swa|shadow|average[ds]?)([._]|$)")


@dataclass(frozen=True)
class FoundWeights:
    """`state` has the model's own names; `remarks` say where it was and what was left out."""

    state: dict[str, Tensor]
    remarks: tuple[str, ...]


def find_weights(path: Path, complete: frozenset[str]) -> FoundWeights:
    """The weights in a trainer's file, or in a folder of them.

    Args:
        complete: names that all weights have; a set that lacks one is taken only if all do.

    Raises:
        CheckpointError: it cannot be read, or holds no weights of a world model.
    """
    document, unknown = read_saved(path)
    sets, others = _sets_of_weights(document, path)
    if not sets:
        if others and not any(name.startswith("torch.nn.modules.") for name in unknown):
            raise CheckpointError(
                f"{path}: every tensor of {' and '.join(PARTS)} is missing; not a world model: its "
                f"tensors have names such as {others[0][:80]!r}"
            )
        raise no_weights(path, document, unknown)
    whole = [prefix for prefix in sets if complete <= sets[prefix].keys()] or list(sets)
    chosen = min(whole, key=lambda prefix: bool(AVERAGED.search(prefix)))
    check_memory(sets[chosen], path)
    remarks = []
    if chosen not in ("", "model_state_dict"):
        remarks.append(f"{path}: the weights are those of {chosen[:80]!r}")
    if second := [prefix for prefix in whole if prefix != chosen]:
        remarks.append(
            f"{path}: holds other weights, too: {listed(second)}; to load them, save them alone"
        )
    if others:
        remarks.append(f"{path}: left out: {len(others)} other tensors, as {others[0][:80]!r}")
    if unknown:
        remarks.append(f"{path}: left out, and not executed: objects of {listed(unknown)}")
    return FoundWeights(sets[chosen], tuple(remarks))


def _sets_of_weights(document: Any, path: Path) -> tuple[dict[str, dict[str, Tensor]], list[str]]:
    """By what stands before their names: the sets of weights; and the names of other tensors."""
    sets: dict[str, dict[str, Tensor]] = {}
    others: list[str] = []
    for full, tensor in tensors_in(document):
        steps = full.split(".")
        start = next((i for i, step in enumerate(steps) if step in PARTS), None)
        if start is None:
            others.append(full)
            continue
        name = ".".join(step for step in steps[start:] if step not in WRAPPERS)
        weights = sets.setdefault(".".join(steps[:start]), {})
        if name in weights:
            raise CheckpointError(f'{path}: holds the tensor "{name}" twice')
        weights[name] = tensor
    return sets, others
