"""A second model family, as small as one can be: a frame's token is the brightness of its parts.

The next token is a function of the mean of all tokens in the window; what the step keeps of the
past is their sum. It has one layout, which answers to both names, float32 only, and no actions.
Its graphs have names of their own, as any family's may.
"""

import dataclasses
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from wmdeploy.codes import CodeCount, Ties
from wmdeploy.errors import CheckpointError
from wmdeploy.families import Deployment, Graph, ModelFacts, ModelFamily
from wmdeploy.manifest import Precision
from wmdeploy.programs.contract import BATCH, Call, Programs, Shape, TensorSpec

PARTS = 16  # N: a frame is cut into 4 x 4
LEVELS = 8  # codes are from 0 to 7
NEAR = 1e-4  # of a level: nearer to the border between two, rounding decides


@dataclass(frozen=True)
class PoolConfig:
    size: int
    context: int


class MeanPool(nn.Module):
    family = "mean-pool"

    def __init__(self, config: PoolConfig) -> None:
        super().__init__()
        self.config = config
        self.size, self.context = config.size, config.context
        self.mix = nn.Linear(PARTS, PARTS)

    def levels(self, frames: Tensor) -> Tensor:
        """(B, H, W, 3) uint8 -> (B, N) float32 in 0..LEVELS - 1, not rounded."""
        parts = frames.float().view(-1, 4, self.size // 4, 4, self.size // 4, 3)
        return parts.mean((2, 4, 5)).flatten(1) * ((LEVELS - 1) / 255)

    def following(self, total: Tensor, count: Tensor) -> Tensor:
        """The sum (B, N) of `count` (B,) tokens -> the next token (B, N), in [0, 1]."""
        return torch.sigmoid(self.mix(total / count[:, None]))

    def draw(self, token: Tensor) -> Tensor:
        """(B, N) -> (B, H, W, 3) uint8."""
        grey = token.view(-1, 4, 1, 4, 1, 1).expand(-1, 4, self.size // 4, 4, self.size // 4, 3)
        return (grey * 255).round().to(torch.uint8).reshape(-1, self.size, self.size, 3)


class Part(nn.Module):
    """One graph: what it computes of its inputs, in the order of its `Graph.inputs`."""

    def __init__(self, model: MeanPool) -> None:
        super().__init__()
        self.model = model


class Levels(Part):
    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        codes = self.model.levels(frames).round().to(torch.int64)
        return codes.float() / (LEVELS - 1), codes


class Pool(Part):
    def forward(self, tokens: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
        used = torch.arange(tokens.shape[1], device=tokens.device) < length[:, None]  # (B, S)
        total = (tokens * used[:, :, None]).sum(1)
        return self.model.following(total, length), total


class Add(Part):
    def forward(self, token: Tensor, position: Tensor, total: Tensor) -> tuple[Tensor, Tensor]:
        total = total + token
        return self.model.following(total, position + 1), total


class Draw(Part):
    def forward(self, token: Tensor) -> Tensor:
        return self.model.draw(token)


class MeanPoolFamily(ModelFamily):
    name = "mean-pool"
    title = "mean of brightness"
    config = PoolConfig
    presets = {"mean-pool-16": PoolConfig(16, 6)}

    def build(self, config: PoolConfig) -> MeanPool:
        return MeanPool(config)

    def facts(self, model: MeanPool) -> ModelFacts:
        parameters = {"all": sum(p.numel() for p in model.parameters())}
        return ModelFacts(model.size, num_actions=0, parameters=parameters)

    def deployment(self, model: MeanPool, layout: str, precision: Precision) -> Deployment:
        if precision != "fp32":
            raise CheckpointError(f"precision: got {precision}, expected fp32 for {self.title}")
        pixels: Shape = (BATCH, model.size, model.size, 3)
        frames, frame = (TensorSpec(name, "uint8", pixels) for name in ("frames", "frame"))
        codes = TensorSpec("codes", "int64", (BATCH, PARTS))
        token, total, next_token, next_total = (
            TensorSpec(name, "float32", (BATCH, PARTS))
            for name in ("token", "total", "next_token", "next_total")
        )
        tokens = TensorSpec("tokens", "float32", (BATCH, model.context, PARTS))
        length, position = (TensorSpec(name, "int64", (BATCH,)) for name in ("length", "position"))
        see = Call("levels", {"frames": "frame"}, {"new.token": "token", "out.codes": "codes"})
        # the total lacks the newest token: that is added when the next one is asked for
        add = Call(
            "add",
            {"token": "newest.token", "position": "position", "total": "state.total"},
            {"new.token": "next_token", "state.total": "next_total"},
        )
        pool = Call(
            "pool",
            {"tokens": "window.token", "length": "length"},
            {"new.token": "next_token", "state.total": "total"},
        )
        return Deployment(
            graphs={
                "levels": lambda: Graph(Levels(model), (frames,), (token, codes)),
                "add": lambda: Graph(
                    Add(model), (token, position, total), (next_token, next_total)
                ),
                "pool": lambda: Graph(Pool(model), (tokens, length), (next_token, total)),
                "draw": lambda: Graph(Draw(model), (token,), (frame,)),
            },
            programs=Programs(
                context=model.context,
                keep=model.context,
                state=(total,),
                records=(token,),
                outputs=(codes,),
                encode=(see,),
                predict=(add,),
                refresh=(pool,),
                refresh_predicts=True,
                render=(Call("draw", {"token": "newest.token"}, {"frame": "frame"}),),
            ),
        )

    def baseline_deployment(self, model: MeanPool, precision: Precision) -> Deployment:
        """The whole window for every frame, and no state."""
        deployed = self.deployment(model, "default", precision)
        (pool,) = deployed.programs.refresh
        every = (dataclasses.replace(pool, gives={"new.token": "next_token"}),)
        programs = dataclasses.replace(
            deployed.programs, state=(), predict=every, refresh=(), refresh_predicts=False
        )
        graphs = {name: deployed.graphs[name] for name in programs.graphs()}
        return Deployment(graphs, programs)

    def find_ties(
        self,
        model: MeanPool,
        frames: np.ndarray,
        expected: np.ndarray,
        got: np.ndarray,
        precision: Precision,
    ) -> Ties:
        levels = model.levels(torch.tensor(frames)).numpy()
        differs = expected != got
        tied = differs & (np.abs(levels - (expected + got) / 2) < NEAR)
        wrong = int((differs & ~tied).sum())
        return Ties(tied, CodeCount(codes=differs.size, tied=int(tied.sum()), wrong=wrong))

    def encoded_change(
        self, model: MeanPool, before: np.ndarray, after: np.ndarray
    ) -> dict[str, np.ndarray]:
        return {"token": ((after - before) / (LEVELS - 1)).astype(np.float32)}
