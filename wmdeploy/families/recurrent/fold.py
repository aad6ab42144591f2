"""One-hot vectors pick rows: sums of a few rows of a matrix in place of whole products, exactly."""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wmdeploy.families.recurrent.network import RecurrentModel, StateLinear


class Rows(nn.Module):
    """What a `StateLinear` computes, of the rows that the drawn classes pick."""

    rows: Tensor
    first: Tensor

    def __init__(self, layer: StateLinear) -> None:
        super().__init__()
        picked = layer.variables * layer.classes
        weight = layer.weight.detach()
        self.register_buffer("rows", weight[:, :picked].t().contiguous())  # (V·C, outputs)
        first = torch.arange(layer.variables, device=weight.device) * layer.classes
        self.register_buffer("first", first)  # row of each variable
        self.others = nn.Parameter(weight[:, picked:].contiguous(), requires_grad=False)
        self.bias = layer.bias

    def forward(self, stoch: Tensor, others: Tensor) -> Tensor:
        total = self.rows[stoch + self.first].float().sum(1)
        return total + F.linear(others.to(self.others.dtype), self.others, self.bias)


def fold(model: RecurrentModel) -> RecurrentModel:
    """The same model, that shares its weights, and picks rows by what has been drawn."""
    model = copy.deepcopy(model, {id(p): p for p in model.parameters()})
    for module in list(model.modules()):
        for name, layer in module.named_children():
            if isinstance(layer, StateLinear):
                setattr(module, name, Rows(layer))
    return model
