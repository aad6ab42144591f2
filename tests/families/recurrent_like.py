"""A recurrent family: a deterministic and a sampled state, posterior and prior.

In the manner of Hafner et al. 2023 (DreamerV3's RSSM), as small as one can be. Actions are floats.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.families.sampled import ints, spec
from wmdeploy.families import Deployment, Graph, ModelFacts, ModelFamily
from wmdeploy.manifest import Precision
from wmdeploy.programs.contract import Call, Noise, Programs

DETER, VARIABLES, CLASSES, ACTION, SIZE, EMBED = 12, 3, 5, 2, 16, 16


@dataclass(frozen=True)
class Sizes:
    """All sizes are constants of this file."""


class Recurrent(nn.Module):
    family = "recurrent-like"

    def __init__(self, config: Sizes) -> None:
        super().__init__()
        self.config = config
        stoch = VARIABLES * CLASSES
        self.embed = nn.Linear(SIZE * SIZE * 3, EMBED)
        self.inward = nn.Linear(stoch + ACTION, DETER)
        self.cell = nn.GRUCell(DETER, DETER)
        self.prior, self.posterior = nn.Linear(DETER, stoch), nn.Linear(DETER + EMBED, stoch)
        self.reward = nn.Linear(DETER + stoch, 1)
        self.outward = nn.Linear(DETER + stoch, 16)
        for layer in (self.prior, self.posterior, self.outward):
            nn.init.normal_(layer.weight, std=0.7)

    def one_hot(self, stoch: Tensor) -> Tensor:
        return F.one_hot(stoch, CLASSES).float().flatten(1)

    def move(self, deter: Tensor, stoch: Tensor, action: Tensor) -> Tensor:
        return self.cell(self.inward(torch.cat([self.one_hot(stoch), action], 1)).tanh(), deter)

    def choose(self, logits: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        logits = logits.unflatten(1, (VARIABLES, CLASSES))
        return (logits + noise).argmax(-1), logits

    def feature(self, deter: Tensor, stoch: Tensor) -> Tensor:
        return torch.cat([deter, self.one_hot(stoch)], 1)

    def tell(self, deter: Tensor, stoch: Tensor) -> Tensor:
        return self.reward(self.feature(deter, stoch)).squeeze(1)


class Part(nn.Module):
    def __init__(self, model: Recurrent) -> None:
        super().__init__()
        self.model = model


class Encode(Part):
    def forward(self, frames: Tensor) -> Tensor:
        return self.model.embed(frames.float().flatten(1) / 255).tanh()


class Posterior(Part):
    def forward(
        self,
        embed: Tensor,
        length: Tensor,
        action: Tensor,
        deter: Tensor,
        stoch: Tensor,
        noise: Tensor,
    ) -> tuple[Tensor, ...]:
        m = self.model
        moved = m.move(deter, stoch, action)
        deter = torch.where((length == 0)[:, None], deter, moved)
        stoch, logits = m.choose(m.posterior(torch.cat([deter, embed], 1)), noise)
        return deter, stoch, m.tell(deter, stoch), logits


class Prior(Part):
    def forward(
        self, action: Tensor, deter: Tensor, stoch: Tensor, noise: Tensor
    ) -> tuple[Tensor, ...]:
        m = self.model
        deter = m.move(deter, stoch, action)
        stoch, _ = m.choose(m.prior(deter), noise)
        return deter, stoch, m.tell(deter, stoch)


class Decode(Part):
    def forward(self, deter: Tensor, stoch: Tensor) -> Tensor:
        levels = self.model.outward(self.model.feature(deter, stoch)).sigmoid()
        quarter = SIZE // 4
        grey = levels.view(-1, 4, 1, 4, 1, 1).expand(-1, 4, quarter, 4, quarter, 3)
        return (grey * 255).round().to(torch.uint8).reshape(-1, SIZE, SIZE, 3)


class RecurrentFamily(ModelFamily):
    name = "recurrent-like"
    title = "recurrent state"
    config = Sizes
    presets = {"recurrent-12": Sizes()}

    def build(self, config: Sizes) -> Recurrent:
        return Recurrent(config)

    def facts(self, model: Recurrent) -> ModelFacts:
        parameters = {"all": sum(p.numel() for p in model.parameters())}
        return ModelFacts(SIZE, 0, parameters, action_size=ACTION)

    def deployment(self, model: Recurrent, layout: str, precision: Precision) -> Deployment:
        state = (spec("deter", DETER), ints("stoch", VARIABLES))
        after = (spec("next_deter", DETER), ints("next_stoch", VARIABLES), spec("reward"))
        logits, noise = spec("logits", VARIABLES, CLASSES), spec("noise", VARIABLES, CLASSES)
        action, embed = spec("action", ACTION), spec("embed", EMBED)
        parts = {
            "encoder": Graph(
                Encode(model), (spec("frames", SIZE, SIZE, 3, dtype="uint8"),), (embed,)
            ),
            "posterior": Graph(
                Posterior(model), (embed, ints("length"), action, *state, noise), (*after, logits)
            ),
            "prior": Graph(Prior(model), (action, *state, noise), after),
            "decoder": Graph(Decode(model), state, (spec("frame", SIZE, SIZE, 3, dtype="uint8"),)),
        }
        held = {"deter": "state.deter", "stoch": "state.stoch"}
        drawn = {"action": "action", "noise": "noise.stoch", **held}
        gives = {"state.deter": "next_deter", "state.stoch": "next_stoch", "out.reward": "reward"}
        programs = Programs(
            context=1,
            keep=1,
            action=action,
            state=state,
            noise={"stoch": Noise("gumbel", (VARIABLES, CLASSES))},
            outputs=(spec("reward"), logits),
            encode=(Call("encoder", {"frames": "frame"}, {"new.embed": "embed"}),),
            absorb=(
                Call(
                    "posterior",
                    {"embed": "new.embed", "length": "length", **drawn},
                    {**gives, "out.logits": "logits"},
                ),
            ),
            predict=(Call("prior", drawn, gives),),
            render=(Call("decoder", held, {"frame": "frame"}),),
            undo=("deter", "stoch"),
        )
        graphs = {name: lambda graph=graph: graph for name, graph in parts.items()}
        return Deployment(graphs, programs)  # type: ignore[arg-type]

    def baseline_deployment(self, model: Recurrent, precision: Precision) -> Deployment:
        return self.deployment(model, "token", precision)
