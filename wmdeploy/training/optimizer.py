"""The optimizers of the stages: AdamW, and Muon for the convolutions of the VQ-VAE.

Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon) makes each update of a matrix
orthogonal. With it the VQ-VAE of `tiny` is in three minutes where AdamW brings it in five, and its
codes flicker less; docs/training.md has the figures, and why the transformer does without. torch's
own takes matrices only, so a convolution (out, in, h, w) is shown to it as (out, in·h·w), in the
same memory.
"""

from collections.abc import Iterable

import torch
from torch import nn
from torch.optim import AdamW, Muon, Optimizer

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
