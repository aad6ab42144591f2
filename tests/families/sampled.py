"""A family that samples: K tokens a frame, one by one, with a KV cache written entry by entry.

In the manner of Micheli et al. 2023 (IRIS), as small as one can be: one attention, and when the
cache is full it starts again from the newest frame. Actions, a reward, teacher-forced logits.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from wmdeploy.families import Deployment, Graph, ModelFacts, ModelFamily
from wmdeploy.manifest import Precision
from wmdeploy.programs.contract import BATCH, Call, DType, Noise, Programs, TensorSpec

K, CLASSES, WIDTH, ACTIONS, SIZE = 4, 8, 16, 3, 16
CONTEXT = 4  # frames that a prediction builds on
ENTRIES = (CONTEXT + 1) * (K + 1)  # of the cache: an action and K tokens for each frame


@dataclass(frozen=True)
class Sizes:
    """All sizes are constants of this file."""


class Sampled(nn.Module):
    family = "sampled"

    def __init__(self, config: Sizes) -> None:
        super().__init__()
        self.config = config
        self.tokens = nn.Embedding(CLASSES, WIDTH)
        self.actions = nn.Embedding(ACTIONS + 1, WIDTH)  # the last one: no frame came before
        self.positions = nn.Embedding(ENTRIES, WIDTH)
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.mix = nn.Linear(WIDTH, WIDTH)
        self.head, self.reward = nn.Linear(WIDTH, CLASSES), nn.Linear(WIDTH, 1)
        for layer in (self.qkv, self.mix, self.head):
            nn.init.normal_(layer.weight, std=0.5)

    def encode(self, frames: Tensor) -> Tensor:
        """(B, H, W, 3) uint8 -> (B, K) int64: how bright each quarter is."""
        parts = frames.float().view(-1, 2, SIZE // 2, 2, SIZE // 2, 3).mean((2, 4, 5)).flatten(1)
        return (parts * (CLASSES / 256)).long()

    def attend(
        self, x: Tensor, used: Tensor, keys: Tensor, values: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Entries x (B, n, D) behind `used` (B,) others -> hidden (B, n, D), the whole cache."""
        here = used[:, None] + torch.arange(x.shape[1], device=x.device)  # (B, n)
        slots = torch.arange(ENTRIES, device=x.device)
        x = x + self.positions(here)
        q, k, v = self.qkv(x).chunk(3, -1)
        write = (here[:, :, None] == slots).float()  # (B, n, P)
        kept = 1 - write.sum(1)[:, :, None]
        keys = keys * kept + write.transpose(1, 2) @ k
        values = values * kept + write.transpose(1, 2) @ v
        seen = slots <= here[:, :, None]  # (B, n, P)
        scores = (q @ keys.transpose(1, 2)).masked_fill(~seen, -1e9)
        return x + self.mix(scores.softmax(-1) @ values), keys, values

    def choose(self, hidden: Tensor, noise: Tensor) -> Tensor:
        return (self.head(hidden) + noise).argmax(-1)

    def draw(self, tokens: Tensor) -> Tensor:
        """(B, K) -> (B, H, W, 3) uint8."""
        grey = (tokens * (256 // CLASSES) + 16).view(-1, 2, 1, 2, 1, 1)
        half = SIZE // 2
        whole = grey.expand(-1, 2, half, 2, half, 3).reshape(-1, SIZE, SIZE, 3)
        return whole.to(torch.uint8)


class Part(nn.Module):
    def __init__(self, model: Sampled) -> None:
        super().__init__()
        self.model = model


class Encode(Part):
    def forward(self, frames: Tensor) -> Tensor:
        return self.model.encode(frames)


class Absorb(Part):
    def forward(
        self,
        tokens: Tensor,
        action: Tensor,
        length: Tensor,
        used: Tensor,
        keys: Tensor,
        values: Tensor,
    ) -> tuple[Tensor, ...]:
        m = self.model
        led = m.actions(torch.where(length == 0, torch.full_like(action, ACTIONS), action))
        x = torch.cat([led[:, None], m.tokens(tokens)], 1)
        hidden, keys, values = m.attend(x, used, keys, values)
        reward = m.reward(hidden[:, 0]).squeeze(1)
        return used + K + 1, keys, values, m.head(hidden[:, :-1]), reward


class Begin(Part):
    """The action's entry, the reward, the first token."""

    def forward(
        self, action: Tensor, used: Tensor, keys: Tensor, values: Tensor, noise: Tensor
    ) -> tuple[Tensor, ...]:
        m = self.model
        x = m.actions(action)[:, None]
        hidden, keys, values = m.attend(x, used, keys, values)
        first = (torch.arange(K, device=used.device) == 0).long()
        tokens = m.choose(hidden[:, 0], noise[:, 0])[:, None] * first
        return (tokens, *entry(keys, values, used), used + 1, m.reward(hidden[:, 0]).squeeze(1))


class Next(Part):
    """The entry of token index - 1, and token index, if there is one."""

    def forward(
        self,
        tokens: Tensor,
        index: Tensor,
        used: Tensor,
        keys: Tensor,
        values: Tensor,
        noise: Tensor,
    ) -> tuple[Tensor, ...]:
        m = self.model
        slots = torch.arange(K, device=tokens.device)
        newest = (tokens * (slots == index[:, None] - 1)).sum(1)
        hidden, keys, values = m.attend(m.tokens(newest)[:, None], used, keys, values)
        chosen = m.choose(hidden[:, 0], noise)
        tokens = torch.where(slots == index[:, None], chosen[:, None], tokens)
        return (tokens, *entry(keys, values, used), used + 1)


def entry(keys: Tensor, values: Tensor, used: Tensor) -> tuple[Tensor, Tensor]:
    """The newest entry of a cache, (B, 1, D) each."""
    where = (torch.arange(ENTRIES, device=used.device) == used[:, None]).float()[:, None]
    return where @ keys, where @ values


class WholeFrame(Part):
    """A frame as authors write it: a loop in Python, in one call."""

    def forward(
        self, action: Tensor, used: Tensor, keys: Tensor, values: Tensor, noise: Tensor
    ) -> tuple[Tensor, ...]:
        m = self.model
        hidden, keys, values = m.attend(m.actions(action)[:, None], used, keys, values)
        reward = m.reward(hidden[:, 0]).squeeze(1)
        tokens = []
        for at in range(K):
            tokens.append(m.choose(hidden[:, 0], noise[:, at]))
            x = m.tokens(tokens[-1])[:, None]
            hidden, keys, values = m.attend(x, used + 1 + at, keys, values)
        return torch.stack(tokens, 1), used + K + 1, keys, values, reward


class Decode(Part):
    def forward(self, tokens: Tensor) -> Tensor:
        return self.model.draw(tokens)


def spec(name: str, *shape: int, dtype: DType = "float32") -> TensorSpec:
    return TensorSpec(name, dtype, (BATCH, *shape))


def ints(name: str, *shape: int) -> TensorSpec:
    return spec(name, *shape, dtype="int64")


CACHE = (spec("keys", ENTRIES, WIDTH), spec("values", ENTRIES, WIDTH))
HELD = (ints("used"), *CACHE)
AFTER = (ints("next_used"), spec("next_keys", ENTRIES, WIDTH), spec("next_values", ENTRIES, WIDTH))
NEW = (spec("key", 1, WIDTH), spec("value", 1, WIDTH), ints("next_used"))
STATE = {name: f"state.{name}" for name in ("used", "keys", "values")}
WHOLE = {f"state.{name}": f"next_{name}" for name in ("used", "keys", "values")}
ONE = {"slot.keys@used": "key", "slot.values@used": "value", "state.used": "next_used"}


class SampledFamily(ModelFamily):
    name = "sampled"
    title = "sampled tokens"
    config = Sizes
    presets = {"sampled-4": Sizes()}

    def build(self, config: Sizes) -> Sampled:
        return Sampled(config)

    def facts(self, model: Sampled) -> ModelFacts:
        parameters = {"all": sum(p.numel() for p in model.parameters())}
        return ModelFacts(SIZE, ACTIONS, parameters)

    def deployment(self, model: Sampled, layout: str, precision: Precision) -> Deployment:
        action, noise = ints("action"), spec("noise", K + 1, CLASSES)
        tokens, new = ints("tokens", K), ints("next_tokens", K)
        parts = {
            "encoder": Graph(
                Encode(model), (spec("frames", SIZE, SIZE, 3, dtype="uint8"),), (tokens,)
            ),
            "absorb": Graph(
                Absorb(model),
                (tokens, action, ints("length"), *HELD),
                (*AFTER, spec("logits", K, CLASSES), spec("reward")),
            ),
            "begin": Graph(Begin(model), (action, *HELD, noise), (new, *NEW, spec("reward"))),
            "token": Graph(
                Next(model),
                (tokens, ints("index"), *HELD, spec("noise", CLASSES)),
                (new, *NEW),
            ),
            "decoder": Graph(
                Decode(model), (tokens,), (spec("frame", SIZE, SIZE, 3, dtype="uint8"),)
            ),
        }
        begin = {"action": "action", "noise": "noise.tokens", **STATE}
        token = {"tokens": "new.tokens", "index": "index", "noise": "noise.tokens", **STATE}
        predict = (
            Call("begin", begin, {"new.tokens": "next_tokens", "out.reward": "reward", **ONE}),
            Call("token", token, {"new.tokens": "next_tokens", **ONE}, times=K, start=1),
        )
        return Deployment(
            {name: lambda graph=graph: graph for name, graph in parts.items()},  # type: ignore[misc]
            self.programs(predict),
        )

    def programs(self, predict: tuple[Call, ...]) -> Programs:
        real = {"tokens": "new.tokens", "action": "action", "length": "length", **STATE}
        again = {"tokens": "newest.tokens", "action": "action", "length": "zero"}
        return Programs(
            context=CONTEXT,
            keep=1,
            action=ints("action"),
            num_actions=ACTIONS,
            state=HELD,
            records=(ints("tokens", K),),
            noise={"tokens": Noise("gumbel", (K + 1, CLASSES))},
            outputs=(ints("codes", K), spec("logits", K, CLASSES), spec("reward")),
            encode=(
                Call(
                    "encoder", {"frames": "frame"}, {"new.tokens": "tokens", "out.codes": "tokens"}
                ),
            ),
            absorb=(
                Call("absorb", real, {**WHOLE, "out.logits": "logits", "out.reward": "reward"}),
            ),
            predict=predict,
            refresh=(Call("absorb", again | dict.fromkeys(STATE, "zero"), WHOLE),),
            render=(Call("decoder", {"tokens": "newest.tokens"}, {"frame": "frame"}),),
            undo=("used",),
        )

    def baseline_deployment(self, model: Sampled, precision: Precision) -> Deployment:
        graphs = dict(self.deployment(model, "default", precision).graphs)
        del graphs["begin"], graphs["token"]
        action, noise = ints("action"), spec("noise", K + 1, CLASSES)
        whole = Graph(
            WholeFrame(model),
            (action, *HELD, noise),
            (ints("next_tokens", K), *AFTER, spec("reward")),
        )
        feeds = {"action": "action", "noise": "noise.tokens", **STATE}
        gives = {"new.tokens": "next_tokens", "out.reward": "reward", **WHOLE}
        programs = self.programs((Call("whole_frame", feeds, gives),))
        return Deployment({**graphs, "whole_frame": lambda: whole}, programs)
