"""One-hot vectors pick rows: sums of a few rows of a matrix in place of whole products, exactly."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wmdeploy.families.half import copy_with_same_tensors
from wmdeploy.families.recurrent.config import RecurrentConfig
from wmdeploy.families.recurrent.network import Features, RecurrentModel, StateLinear


class Apart(nn.Module):
    """What `Features` takes, as it is."""

    def forward(self, stoch: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
        return stoch, others


class Rows(nn.Module):
    """What a `StateLinear` computes, of the rows that the drawn classes pick."""

    rows: Tensor
    first: Tensor

    def __init__(self, layer: StateLinear, config: RecurrentConfig) -> None:
        super().__init__()
        picked = config.stoch
        weight = layer.weight.detach()
        self.register_buffer("rows", weight[:, :picked].t().contiguous())  # (V·C, outputs)
        first = torch.arange(config.variables, device=weight.device) * config.classes
        self.register_buffer("first", first)  # row of each variable
        self.others = nn.Parameter(weight[:, picked:].contiguous(), requires_grad=False)
        self.bias = layer.bias

    def forward(self, apart: tuple[Tensor, Tensor]) -> Tensor:
        stoch, others = apart
        total = self.rows[stoch + self.first].float().sum(1)
        return total + F.linear(others.to(self.others.dtype), self.others, self.bias)


def fold(model: RecurrentModel) -> RecurrentModel:
    """The same model, that shares its weights, and picks rows by what has been drawn."""
    model = copy_with_same_tensors(model)
    for module in list(model.modules()):
        for name, layer in module.named_children():
            if isinstance(layer, StateLinear):
                setattr(module, name, Rows(layer, model.config))
            elif isinstance(layer, Features):
                setattr(module, name, Apart())
    return model
