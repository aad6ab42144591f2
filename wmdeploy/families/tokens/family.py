"""The token family. Importing this module imports no torch."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

from wmdeploy.families.family import Deployment, Graph, ModelFacts, ModelFamily
from wmdeploy.families.tensors import floats, integers, pixels
from wmdeploy.families.tokens.config import PRESETS, TokensConfig
from wmdeploy.manifest import Precision
from wmdeploy.programs.contract import Call, Noise, Programs, TensorSpec

if TYPE_CHECKING:
    from torch import Tensor, nn

    from wmdeploy.families.tokens.network import TokensModel

CACHE = {"keys": "state.keys", "values": "state.values"}
KNOWN = {"before": "newest.tokens", "action": "action", "frames": "state.frames", **CACHE}
ENTRIES = {"state.at": "at", "slot.keys@at": "key", "slot.values@at": "value"}
COUNTED = {"state.frames": "next_frames", **ENTRIES}


class TokensFamily(ModelFamily):
    """See `wmdeploy.families.ModelFamily`."""

    name = "tokens"
    title = "VQ tokenizer and token transformer"
    config = TokensConfig
    presets = PRESETS

    def build(self, config: TokensConfig) -> "TokensModel":
        from wmdeploy.families.tokens.network import TokensModel

        return TokensModel(config)

    def facts(self, model: "TokensModel") -> ModelFacts:
        parts = {"all": model, "tokenizer": model.tokenizer, "transformer": model.world_model}
        return ModelFacts(
            image_size=model.config.tokenizer.image_size,
            num_actions=model.config.transformer.num_actions,
            parameters={n: sum(p.numel() for p in part.parameters()) for n, part in parts.items()},
        )

    def convert(self, tensors: "dict[str, Tensor]") -> "tuple[TokensConfig, dict[str, Tensor]]":
        from wmdeploy.families.tokens.checkpoint import convert

        return convert(tensors)

    def deployment(self, model: "TokensModel", layout: str, precision: Precision) -> Deployment:
        from wmdeploy.families.tokens import graphs as of

        passes = cache(lambda: of.Passes(model))  # one for all graphs
        t = Tensors(model.config, precision)
        known = (t.before, t.action, t.frames, *t.cache)
        draws = (floats("obs", t.classes), floats("reward", 3), floats("end", 2))
        absorbed = (t.logits, t.at, t.next_frames, *t.entries(t.each))
        begun = (t.next_tokens, floats("rewards"), integers("ends"), t.at, t.next_frames)
        graph = Maker(precision, of.ISLANDS)
        graphs = {
            "encoder": graph(lambda: of.Encode(model), (t.pixels("frames"),), (t.tokens,)),
            "absorb": graph(
                lambda: of.Absorb(passes()), (t.before, t.tokens, *known[1:]), absorbed
            ),
            "begin": graph(
                lambda: of.Begin(passes()), (*known, *draws), (*begun, *t.entries(of.UNSEEN))
            ),
            "token": graph(
                lambda: of.Next(passes()),
                (t.tokens, integers("index"), t.frames, *t.cache, draws[0]),
                (t.next_tokens, t.at, *t.entries(1)),
            ),
            "decoder": graph(lambda: of.Decode(model), (t.tokens,), (t.pixels("frame"),)),
        }
        noise = {name: f"noise.{name}" for name in ("obs", "reward", "end")}
        drawn = {"out.reward": "rewards", "out.end": "ends", "new.tokens": "next_tokens"}
        token = {"tokens": "new.tokens", "index": "index", "frames": "state.frames", **CACHE}
        following = {"new.tokens": "next_tokens", **ENTRIES}
        programs = t.programs(
            state=(t.frames, t.at, *t.cache),
            undo=("frames",),
            absorb=(
                Call(
                    "absorb", {**KNOWN, "tokens": "new.tokens"}, {"out.logits": "logits"} | COUNTED
                ),
            ),
            predict=(
                Call("begin", KNOWN | noise, drawn | COUNTED),
                Call("token", {**token, "obs": "noise.obs"}, following, times=t.each - 2, start=1),
            ),
            refresh=(
                Call("absorb", KNOWN | {"tokens": "newest.tokens", "frames": "zero"}, COUNTED),
            ),
        )
        return Deployment(graphs, programs)

    def baseline_deployment(self, model: "TokensModel", precision: Precision) -> Deployment:
        from wmdeploy.families.tokens import baseline as of
        from wmdeploy.families.tokens.network import Head

        t = Tensors(model.config, precision)
        known = (integers("length"), t.tokens, t.action, *t.cache)
        noises = (floats("obs", t.each - 1, t.classes), floats("reward", 3), floats("end", 2))
        after = tuple(replace(spec, name=f"next_{spec.name}") for spec in t.cache)
        begun = (t.next_tokens, floats("rewards"), integers("ends"), *after)
        graph = Maker(precision, (Head,))
        graphs = {
            "encoder": graph(lambda: of.Encode(model), (t.pixels("frames"),), (t.tokens,)),
            "absorb_frame": graph(lambda: of.AbsorbFrame(model), known, (t.logits, *after)),
            "whole_frame": graph(
                lambda: of.WholeFrame(model), (known[0], *known[2:], *noises), begun
            ),
            "decoder": graph(lambda: of.Decode(model), (t.tokens,), (t.pixels("frame"),)),
        }
        feeds = {"length": "length", "action": "action", **CACHE}
        gives = {"state.keys": "next_keys", "state.values": "next_values"}
        noise = {name: f"noise.{name}" for name in ("obs", "reward", "end")}
        drawn = {"out.reward": "rewards", "out.end": "ends", "new.tokens": "next_tokens"}
        real = {**feeds, "tokens": "new.tokens"}
        again = {**feeds, "tokens": "newest.tokens", "length": "zero"}
        programs = t.programs(
            state=t.cache,
            absorb=(Call("absorb_frame", real, {"out.logits": "logits"} | gives),),
            predict=(Call("whole_frame", feeds | noise, drawn | gives),),
            refresh=(Call("absorb_frame", again, gives),),
        )
        return Deployment(graphs, programs)


class Tensors:
    """The tensors of a model's graphs, and what both its programs say."""

    def __init__(self, config: TokensConfig, precision: Precision) -> None:
        tokens, sizes = config.tokenizer, config.transformer
        self.config, self.each, self.classes = config, tokens.tokens + 1, tokens.codebook_size
        self.precision: Precision = precision
        self.tokens, self.before, self.next_tokens = (
            integers(name, tokens.tokens) for name in ("tokens", "before", "next_tokens")
        )
        self.action, self.at, self.frames, self.next_frames = (
            integers(name) for name in ("action", "at", "frames", "next_frames")
        )
        self.logits = floats("logits", tokens.tokens, self.classes)
        self.shape = sizes.layers, sizes.heads, config.positions, sizes.head_size
        self.cache = self.entries(config.positions, ("keys", "values"))

    def entries(
        self, count: int, names: tuple[str, ...] = ("key", "value")
    ) -> tuple[TensorSpec, ...]:
        """(B, layers, heads, count, D / heads) each."""
        layers, heads, _, size = self.shape
        return tuple(
            floats(name, layers, heads, count, size, precision=self.precision) for name in names
        )

    def pixels(self, name: str) -> TensorSpec:
        return pixels(name, self.config.tokenizer.image_size)

    def programs(self, **others: Any) -> Programs:
        encoded = {"new.tokens": "tokens", "out.codes": "tokens"}
        return Programs(
            context=self.config.transformer.frames - 1,
            keep=1,
            action=self.action,
            num_actions=self.config.transformer.num_actions,
            records=(self.tokens,),
            noise={
                "obs": Noise("gumbel", (self.each - 1, self.classes)),
                "reward": Noise("gumbel", (3,)),
                "end": Noise("gumbel", (2,)),
            },
            outputs=(
                replace(self.tokens, name="codes"),
                self.logits,
                floats("reward"),
                integers("end"),
            ),
            encode=(Call("encoder", {"frames": "frame"}, encoded),),
            render=(Call("decoder", {"tokens": "newest.tokens"}, {"frame": "frame"}),),
            **others,
        )


class Maker:
    """Makes graphs, when they are asked for, in one precision."""

    def __init__(self, precision: Precision, islands: "tuple[type[nn.Module], ...]") -> None:
        self._precision, self._islands = precision, islands

    def __call__(
        self,
        make: "Callable[[], nn.Module]",
        inputs: tuple[TensorSpec, ...],
        outputs: tuple[TensorSpec, ...],
    ) -> Callable[[], Graph]:
        def build() -> Graph:
            from wmdeploy.families.half import to_half

            module = make().eval().requires_grad_(False)
            if self._precision == "fp16":
                module = to_half(module, self._islands)
            return Graph(module, inputs, outputs)

        return build
