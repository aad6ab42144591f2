"""DreamerV3's world model as a plain loop over tensors: from the paper, and no module of ours.

No session, no graphs, no programs: one-hot vectors, whole matrices, one frame after the other.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

State = dict[str, Tensor]


@dataclass
class Moment:
    """One-hot classes (B, V, C), deterministic state (B, D), reward and continue (B,)."""

    stoch: Tensor
    deter: Tensor
    reward: Tensor
    cont: Tensor


class Published:
    """
    Args:
        state: by the authors' names, without `_wm.`.
        classes: C.
        halvings: convolutions of the encoder.
    """

    def __init__(self, state: State, classes: int, halvings: int) -> None:
        self.state, self.classes, self.halvings = state, classes, halvings

    def dense(self, x: Tensor, linear: str, norm: str) -> Tensor:
        x = F.linear(x, self.state[f"{linear}.weight"])
        return F.silu(self.norm(x, norm))

    def norm(self, x: Tensor, name: str) -> Tensor:
        weight, bias = self.state[f"{name}.weight"], self.state[f"{name}.bias"]
        return F.layer_norm(x, weight.shape, weight, bias, eps=1e-3)

    def over_channels(self, x: Tensor, name: str) -> Tensor:
        return self.norm(x.movedim(1, -1), name).movedim(-1, 1)

    def embed(self, frames: Tensor) -> Tensor:
        x = (frames / 255 - 0.5).movedim(-1, 1)
        for i in range(self.halvings):
            name = f"encoder._cnn.layers.{3 * i}.weight"
            x = F.conv2d(F.pad(x, (1, 1, 1, 1)), self.state[name], stride=2)
            x = F.silu(self.over_channels(x, f"encoder._cnn.layers.{3 * i + 1}.norm"))
        return x.flatten(1)

    def shares(self, x: Tensor, layer: str) -> Tensor:
        x = F.linear(x, self.state[f"{layer}.weight"], self.state[f"{layer}.bias"])
        return 0.99 * x.unflatten(1, (-1, self.classes)).softmax(-1) + 0.01 / self.classes

    def prior(self, deter: Tensor) -> Tensor:
        x = self.dense(deter, "dynamics._img_out_layers.0", "dynamics._img_out_layers.1")
        return self.shares(x, "dynamics._imgs_stat_layer")

    def one_hot(self, index: Tensor) -> Tensor:
        return F.one_hot(index, self.classes).float()

    def initial(self, batch: int) -> tuple[Tensor, Tensor]:
        deter = self.state["dynamics.W"].tanh().repeat(batch, 1)
        return self.one_hot(self.prior(deter).argmax(-1)), deter

    def moved(self, stoch: Tensor, deter: Tensor, action: Tensor) -> Tensor:
        x = torch.cat([stoch.flatten(1), action], 1)
        x = self.dense(x, "dynamics._img_in_layers.0", "dynamics._img_in_layers.1")
        weight = self.state["dynamics._cell.layers.GRU_linear.weight"]
        gates = F.linear(torch.cat([x, deter], 1), weight)
        gates = self.norm(gates, "dynamics._cell.layers.GRU_norm")
        reset, candidate, update = gates.split(deter.shape[1], 1)
        update = torch.sigmoid(update - 1)
        return update * torch.tanh(torch.sigmoid(reset) * candidate) + (1 - update) * deter

    def moment(self, deter: Tensor, shares: Tensor, noise: Tensor) -> Moment:
        stoch = self.one_hot((shares.log() + noise).argmax(-1))
        feature = torch.cat([stoch.flatten(1), deter], 1)
        bins = self.head(feature, "reward", "Reward").softmax(-1)
        mean = (bins * torch.linspace(-20, 20, 255)).sum(1)
        reward = torch.sign(mean) * torch.expm1(mean.abs())
        return Moment(stoch, deter, reward, self.head(feature, "cont", "Cont")[:, 0].sigmoid())

    def head(self, x: Tensor, name: str, prefix: str) -> Tensor:
        for i in range(2):
            layers = f"heads.{name}.layers.{prefix}"
            x = self.dense(x, f"{layers}_linear{i}", f"{layers}_norm{i}")
        last = f"heads.{name}.mean_layer"
        return F.linear(x, self.state[f"{last}.weight"], self.state[f"{last}.bias"])

    def observe(
        self, before: Moment | None, frames: Tensor, action: Tensor, noise: Tensor
    ) -> Moment:
        """Real frames (B, H, W, 3) came, by an action (B, A); `before` is None at the first."""
        if before is None:
            stoch, deter = self.initial(len(frames))
            action = torch.zeros_like(action)
        else:
            stoch, deter = before.stoch, before.deter
        deter = self.moved(stoch, deter, action)
        x = torch.cat([deter, self.embed(frames)], 1)
        x = self.dense(x, "dynamics._obs_out_layers.0", "dynamics._obs_out_layers.1")
        return self.moment(deter, self.shares(x, "dynamics._obs_stat_layer"), noise)

    def imagine(self, before: Moment, action: Tensor, noise: Tensor) -> Moment:
        deter = self.moved(before.stoch, before.deter, action)
        return self.moment(deter, self.prior(deter), noise)

    def frame(self, moment: Moment) -> Tensor:
        """(B, H, W, 3) in 0..255, not rounded."""
        x = torch.cat([moment.stoch.flatten(1), moment.deter], 1)
        name = "heads.decoder._cnn._linear_layer"
        x = F.linear(x, self.state[f"{name}.weight"], self.state[f"{name}.bias"])
        x = x.reshape(len(x), 4, 4, -1).movedim(-1, 1)
        for i in range(self.halvings):
            layer = f"heads.decoder._cnn.layers.{3 * i}"
            bias = self.state.get(f"{layer}.bias")
            x = F.conv_transpose2d(x, self.state[f"{layer}.weight"], bias, stride=2, padding=1)
            if i < self.halvings - 1:
                x = F.silu(self.over_channels(x, f"heads.decoder._cnn.layers.{3 * i + 1}.norm"))
        return (x.movedim(1, -1) + 0.5).clamp(0, 1) * 255
