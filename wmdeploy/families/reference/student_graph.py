"""The graph of a student decoder, and the programs that render with it.

Its first layer is linear: in the token layout it and the output projection are one matrix, exactly,
which is as much smaller than the projection as the student's latent is smaller than the model's.
"""

import dataclasses

import torch
from torch import Tensor, nn

from wmdeploy.families.reference.world_model import WorldModel, to_pixels
from wmdeploy.programs.contract import Programs


class GraphStudent(nn.Module):
    """hidden (B, D) or latent (B, L) -> frame (B, H, W, 3) uint8, by the student decoder."""

    def __init__(self, model: WorldModel, project: bool) -> None:
        super().__init__()
        assert model.student is not None, "the deployment has this graph of a model with a student"
        self.latent_shape = model.config.vqvae.latent_shape
        self.small_shape = model.student.small_shape
        self.squeeze: nn.Conv2d | nn.Linear = model.student.squeeze
        self.body = model.student.body
        if project:
            self.squeeze = squeezed(model.temporal_model.output_proj, model.student.squeeze)
        self.project = project

    def forward(self, hidden: Tensor) -> Tensor:
        hidden = hidden.to(self.squeeze.weight.dtype)
        if self.project:
            small = self.squeeze(hidden).unflatten(1, self.small_shape)
        else:
            small = self.squeeze(hidden.unflatten(1, self.latent_shape))
        return to_pixels(self.body(small))


def squeezed(outward: nn.Linear, squeeze: nn.Conv2d) -> nn.Linear:
    """A projection to latents (B, C·N), and a 1x1 convolution C -> c, as one: D -> c·N.

    Computed in float64.
    """
    channels = len(squeeze.weight)
    mix = squeeze.weight.flatten(1).double()  # (c, C)
    weight = outward.weight.unflatten(0, (mix.shape[1], -1))  # (C, N, D)
    parts = [
        torch.einsum("kc,cnd->knd", mix, part.double()).float() for part in weight.split(64, 1)
    ]  # some at a time: a float64 copy of all would be twice as large as the projection
    bias = mix @ outward.bias.unflatten(0, weight.shape[:2]).double()  # (c, N)
    assert squeeze.bias is not None
    bias = bias + squeeze.bias.double().unsqueeze(1)
    with torch.device("meta"):
        folded = nn.Linear(outward.in_features, channels * weight.shape[1])
    folded.weight = nn.Parameter(torch.cat(parts, 1).flatten(0, 1), requires_grad=False)
    folded.bias = nn.Parameter(bias.float().flatten(), requires_grad=False)
    return folded


def with_student(programs: Programs, student: str) -> Programs:
    """The same, with a student of that name as another decoder."""
    (call,) = programs.render
    other = dataclasses.replace(call, graph=f"decoder-{student}")
    return dataclasses.replace(programs, renders={student: (other,)})
