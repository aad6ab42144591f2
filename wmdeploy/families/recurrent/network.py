"""A recurrent state-space model as published: a world model that imagines in a latent state.

Hafner et al. 2023, "Mastering Diverse Domains through World Models" (DreamerV3, arXiv 2301.04104).
Tensors have the names of NM512/dreamerv3-torch. B is the batch, V variables of C classes each, of
which the state holds the class that was drawn, (B, V) int64.

Products cast what they take to the type of their weights; norms compute and give float32. So a
float16 copy computes in float16 what is large, and all else in float32.
"""

import math
from collections import OrderedDict
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from wmdeploy.families.recurrent.config import SMALLEST, RecurrentConfig

EPSILON = 1e-3  # of all norms
UNIFORM = 0.01  # share of a uniform distribution in posterior and prior
BINS = 255  # of the reward
LARGEST = 20.0  # symlog of a reward


class Linear(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.to(self.weight.dtype))


class Logits(Linear):
    """float32 in float16 graphs: small errors would draw other classes."""


def one_hot(index: Tensor, count: int) -> Tensor:
    """(...) int64 -> (..., count) float32."""
    return (index[..., None] == torch.arange(count, device=index.device)).float()


class Features(nn.Module):
    """Drawn classes (B, V) as one-hot vectors, and other values (B, X) -> (B, V·C + X) float32."""

    def __init__(self, config: RecurrentConfig) -> None:
        super().__init__()
        self.classes = config.classes

    def forward(self, stoch: Tensor, others: Tensor) -> Tensor:
        return torch.cat([one_hot(stoch, self.classes).flatten(1), others], 1)


class StateLinear(Linear):
    """Over what `Features` gives."""

    def __init__(self, config: RecurrentConfig, others: int, outputs: int, bias: bool) -> None:
        super().__init__(config.stoch + others, outputs, bias)


class Conv2d(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.to(self.weight.dtype))


class ConvTranspose2d(nn.ConvTranspose2d):
    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        return super().forward(x.to(self.weight.dtype), output_size)


class Norm(nn.LayerNorm):
    """float32 in float16 graphs."""

    def __init__(self, width: int) -> None:
        super().__init__(width, eps=EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.float())


class ChannelNorm(nn.Module):
    """Over the channels of (B, C, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = Norm(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def dense(first: nn.Module, width: int) -> nn.Sequential:
    return nn.Sequential(first, Norm(width), nn.SiLU())


class Encoder(nn.Module):
    """frames (B, H, W, 3) uint8 -> embed (B, E)."""

    def __init__(self, config: RecurrentConfig) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inner = 3
        for outer in config.channels:
            layers += [Conv2d(inner, outer, 4, 2, 1, bias=False), ChannelNorm(outer), nn.SiLU()]
            inner = outer
        self._cnn = nn.ModuleDict({"layers": nn.Sequential(*layers)})

    def forward(self, frames: Tensor) -> Tensor:
        x = frames.float() / 255 - 0.5
        embed: Tensor = self._cnn["layers"](x.permute(0, 3, 1, 2))
        return embed.flatten(1)


class Decoder(nn.Module):
    """The state, (B, V) and (B, D) -> frames (B, H, W, 3) uint8."""

    def __init__(self, config: RecurrentConfig) -> None:
        super().__init__()
        self.features = Features(config)
        layers: list[nn.Module] = []
        inner, *widths = reversed(config.channels)
        for outer in widths:
            layers.append(ConvTranspose2d(inner, outer, 4, 2, 1, bias=False))
            layers += [ChannelNorm(outer), nn.SiLU()]
            inner = outer
        layers.append(ConvTranspose2d(inner, 3, 4, 2, 1))
        self._cnn = nn.ModuleDict(
            {
                "_linear_layer": StateLinear(config, config.deter, config.embed, bias=True),
                "layers": nn.Sequential(*layers),
            }
        )

    def forward(self, stoch: Tensor, deter: Tensor) -> Tensor:
        x: Tensor = self._cnn["_linear_layer"](self.features(stoch, deter))
        x = x.unflatten(1, (SMALLEST, SMALLEST, -1)).permute(0, 3, 1, 2)  # (B, C, 4, 4)
        x = self._cnn["layers"](x).float() + 0.5
        return (x.clamp(0, 1) * 255).round().permute(0, 2, 3, 1).to(torch.uint8)


class Head(nn.Module):
    """What `Features` gives of the state -> (B, outputs); float32 in float16 graphs."""

    def __init__(self, config: RecurrentConfig, name: str, layers: int, outputs: int) -> None:
        super().__init__()
        named: OrderedDict[str, nn.Module] = OrderedDict()
        for i in range(layers):
            named[f"{name}_linear{i}"] = (
                Linear(config.units, config.units, bias=False)
                if i
                else StateLinear(config, config.deter, config.units, bias=False)
            )
            named[f"{name}_norm{i}"] = Norm(config.units)
            named[f"{name}_act{i}"] = nn.SiLU()
        self.layers = nn.Sequential(named)
        self.mean_layer = Linear(config.units, outputs)

    def forward(self, features: Tensor) -> Tensor:
        return self.mean_layer(self.layers(features))


class Cell(nn.Module):
    """A GRU with a norm over all three of its gates."""

    def __init__(self, inputs: int, deter: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            OrderedDict(
                GRU_linear=Linear(inputs + deter, 3 * deter, bias=False), GRU_norm=Norm(3 * deter)
            )
        )

    def forward(self, x: Tensor, deter: Tensor) -> Tensor:
        reset, candidate, update = self.layers(torch.cat([x, deter], 1)).chunk(3, 1)
        candidate = (reset.sigmoid() * candidate).tanh()
        update = (update - 1).sigmoid()
        return update * candidate + (1 - update) * deter


class Dynamics(nn.Module):
    """How the state moves, and what it is drawn from."""

    def __init__(self, config: RecurrentConfig) -> None:
        super().__init__()
        c = self.config = config
        self.features = Features(c)
        self.W = nn.Parameter(torch.zeros(1, c.deter))
        first = StateLinear(c, c.actions, c.hidden, bias=False)
        self._img_in_layers = dense(first, c.hidden)
        self._cell = Cell(c.hidden, c.deter)
        self._img_out_layers = dense(Linear(c.deter, c.hidden, bias=False), c.hidden)
        self._obs_out_layers = dense(Linear(c.deter + c.embed, c.hidden, bias=False), c.hidden)
        self._imgs_stat_layer = Logits(c.hidden, c.stoch)
        self._obs_stat_layer = Logits(c.hidden, c.stoch)

    def initial(self) -> tuple[Tensor, Tensor]:
        """Before the first frame: the learned state (1, D), and its most likely classes (1, V)."""
        deter = self.W.float().tanh()
        return deter, self.prior(deter).argmax(-1)

    def move(self, stoch: Tensor, deter: Tensor, action: Tensor) -> Tensor:
        """The next deterministic state (B, D), by an action (B, A) of float32."""
        return self._cell(self._img_in_layers(self.features(stoch, action)), deter)

    def prior(self, deter: Tensor) -> Tensor:
        """Logits (B, V, C) of the state where no frame came."""
        return self._mix(self._imgs_stat_layer(self._img_out_layers(deter)))

    def posterior(self, deter: Tensor, embed: Tensor) -> Tensor:
        """Logits (B, V, C) of the state where an encoded frame (B, E) came."""
        x = torch.cat([deter, embed], 1)
        return self._mix(self._obs_stat_layer(self._obs_out_layers(x)))

    def _mix(self, x: Tensor) -> Tensor:
        """(B, V·C) -> (B, V, C): logits of a distribution that is partly uniform."""
        shares = x.unflatten(1, (self.config.variables, self.config.classes)).softmax(-1)
        return ((1 - UNIFORM) * shares + UNIFORM / self.config.classes).log()


class RecurrentModel(nn.Module):
    """The world model; `state_dict` has the names that the authors' has behind `_wm.`."""

    family = "recurrent"

    def __init__(self, config: RecurrentConfig) -> None:
        super().__init__()
        self.config = config
        self.features = Features(config)  # of the state, for the heads
        self.encoder = Encoder(config)
        self.dynamics = Dynamics(config)
        self.heads = nn.ModuleDict(
            {
                "decoder": Decoder(config),
                "reward": Head(config, "Reward", config.reward_layers, BINS),
                "cont": Head(config, "Cont", config.cont_layers, 1),
            }
        )
        self.apply(_initialize)

    def reward(self, features: Tensor) -> Tensor:
        """(B,) float32: symexp of the mean over bins of symlog rewards."""
        shares = self.heads["reward"](features).softmax(-1)
        bins = torch.linspace(-LARGEST, LARGEST, BINS, device=shares.device)
        mean = (shares * bins).sum(-1)
        return mean.sign() * (mean.abs().exp() - 1)

    def cont(self, features: Tensor) -> Tensor:
        """(B,) float32: the probability that the episode goes on."""
        logit: Tensor = self.heads["cont"](features)
        return logit.squeeze(1).sigmoid()

    def parts(self) -> Iterator[tuple[str, nn.Module]]:
        yield "encoder", self.encoder
        yield "dynamics", self.dynamics
        yield from self.heads.items()


def _initialize(module: nn.Module) -> None:
    """Normal, cut off at two deviations, of the mean fan. The authors' rewards begin at zero."""
    if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
        fans = module.weight.shape[0] + module.weight.shape[1]
        fans *= module.weight[0, 0].numel()
        deviation = math.sqrt(2 / fans) / 0.8796  # of a normal distribution before it is cut off
        nn.init.trunc_normal_(module.weight, std=deviation, a=-2 * deviation, b=2 * deviation)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
