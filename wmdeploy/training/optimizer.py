"""The optimizers of the stages: AdamW, and Muon for convolutions.

Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon) makes each update of a matrix
orthogonal. With it the VQ-VAE of `tiny` is in three minutes where AdamW brings it in five, and its
codes flicker less; docs/training.md has the figures, and why the transformer does without. torch's
own takes matrices only, so a convolution (out, in, h, w) is shown to it as (out, in·h·w), in the
same memory.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import AdamW, Muon, Optimizer

# what they keep of each parameter, in its shape, but for the number of steps
_MOMENTS = {AdamW: {"step", "exp_avg", "exp_avg_sq"}, Muon: {"momentum_buffer"}}
_NARROW = 4  # a side of fewer is colours, not features


def adamw(parameters: Iterable[nn.Parameter], rate: float) -> Optimizer:
    return AdamW(parameters, lr=rate, betas=(0.9, 0.99), weight_decay=1e-4, fused=True)


def muon_and_adamw(parameters: Iterable[nn.Parameter], rate: float) -> list[Optimizer]:
    """Muon for convolutions between features, AdamW for all else, both at the same learning rate.

    Gradients are allocated here and must stay where they are: `zero_grad(set_to_none=False)`.
    """
    others: list[nn.Parameter] = []
    matrices: list[nn.Parameter] = []
    for parameter in parameters:
        if parameter.ndim < 4 or min(parameter.shape[:2]) < _NARROW:
            others.append(parameter)
            continue
        parameter.grad = torch.zeros_like(parameter)
        matrix = nn.Parameter(parameter.detach().flatten(1))
        matrix.grad = parameter.grad.flatten(1)
        matrices.append(matrix)
    # scaled so that AdamW's learning rates fit (Liu et al. 2025, arXiv:2502.16982)
    muon = Muon(matrices, lr=rate, weight_decay=1e-4, adjust_lr_fn="match_rms_adamw")
    return [adamw(others, rate), muon]


def restore(optimizers: Sequence[Optimizer], states: Sequence[Mapping[str, Any]]) -> None:
    """Bring optimizers to the moments of a checkpoint; their settings stay what they are.

    A moment of another shape would be read outside its memory: torch does not check it.

    Raises:
        ValueError: they are not the states of these optimizers.
    """
    if len(states) != len(optimizers):
        raise ValueError(f"{len(states)} optimizers, expected {len(optimizers)}")
    for optimizer, state in zip(optimizers, states, strict=True):
        groups = optimizer.state_dict()["param_groups"]
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        moments = state.get("state")
        if not isinstance(moments, dict):
            raise ValueError("an optimizer without a state")
        for number, values in moments.items():
            if number not in range(len(parameters)) or not isinstance(values, dict):
                raise ValueError(f"an optimizer's state of {number!r}")
            if values.keys() != _MOMENTS[type(optimizer)]:
                raise ValueError("other moments than this optimizer's")
            for name, value in values.items():
                shape = () if name == "step" else parameters[number].shape
                if not (
                    torch.is_tensor(value) and value.shape == shape and value.is_floating_point()
                ):
                    raise ValueError(f"an optimizer's {name} of another type or shape")
        optimizer.load_state_dict({"state": moments, "param_groups": groups})
