"""The token family. Importing this module imports no torch."""

from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

from wmdeploy.families.family import Deployment, ModelFacts, ModelFamily
from wmdeploy.families.tensors import floats, integers
from wmdeploy.families.tokens.config import PRESETS, TokensConfig
from wmdeploy.families.tokens.tensors import Tensors, maker
from wmdeploy.manifest import Precision
from wmdeploy.programs.contract import Call

if TYPE_CHECKING:
    from torch import Tensor

    from wmdeploy.families.tokens.network import TokensModel

CACHE = {"keys": "state.keys", "values": "state.values"}
NOISE = {"obs": "noise.obs", "reward": "noise.reward", "end": "noise.end"}
DRAWN = {"new.tokens": "next_tokens", "out.reward": "rewards", "out.end": "ends"}

ENTRIES = {"state.at": "at", "slot.keys@at": "key", "slot.values@at": "value"}
FRAME = {"state.frames": "next_frames", **ENTRIES}


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
        known = (t.frames, *t.cache)
        before = replace(t.tokens, name="before")
        obs = floats("obs", t.classes)
        counted = (integers("at"), integers("next_frames"))
        graph = maker(precision, of.ISLANDS)
        graphs = {
            "encoder": graph(lambda: of.Encode(model), (t.pixels("frames"),), (t.tokens,)),
            "absorb": graph(
                lambda: of.Absorb(passes()),
                (before, t.tokens, t.action, *known),
                (t.logits, *counted, *t.entries(t.k + 1)),
            ),
            "begin": graph(
                lambda: of.Begin(passes()),
                (before, t.action, *known, obs, *t.ending_noise),
                (*t.drawn, *counted, *t.entries(2)),
            ),
            "token": graph(
                lambda: of.Next(passes()),
                (t.tokens, integers("index"), *known, obs),
                (t.drawn[0], counted[0], *t.entries(1)),
            ),
            "decoder": graph(lambda: of.Decode(model), (t.tokens,), (t.pixels("frame"),)),
        }
        old = {"frames": "state.frames", **CACHE}
        begin = {"before": "newest.tokens", "action": "action", **old}
        token = {"tokens": "new.tokens", "index": "index", "obs": NOISE["obs"], **old}
        following = {"new.tokens": "next_tokens", **ENTRIES}
        again = begin | {"tokens": "newest.tokens", "frames": "zero"}
        programs = t.programs(
            absorb=(
                Call("absorb", begin | {"tokens": "new.tokens"}, {"out.logits": "logits"} | FRAME),
            ),
            predict=(
                Call("begin", begin | NOISE, DRAWN | FRAME),
                Call("token", token, following, times=t.k - 1, start=1),
            ),
            refresh=(Call("absorb", again, FRAME),),
        )
        return Deployment(graphs, programs)

    def baseline_deployment(self, model: "TokensModel", precision: Precision) -> Deployment:
        from wmdeploy.families.tokens import baseline as of
        from wmdeploy.families.tokens.network import Head

        t = Tensors(model.config, precision)
        counted = (integers("at"), integers("next_frames"))
        obs = floats("obs", t.k, t.classes)
        graph = maker(precision, (Head,))
        graphs = {
            "encoder": graph(lambda: of.Encode(model), (t.pixels("frames"),), (t.tokens,)),
            "absorb_frame": graph(
                lambda: of.AbsorbFrame(model),
                (t.frames, t.tokens, t.action, *t.cache),
                (t.logits, *counted, *t.entries(t.k + 1)),
            ),
            "whole_frame": graph(
                lambda: of.WholeFrame(model),
                (t.frames, t.action, *t.cache, obs, *t.ending_noise),
                (*t.drawn, *counted, *t.entries(t.k + 1)),
            ),
            "decoder": graph(lambda: of.Decode(model), (t.tokens,), (t.pixels("frame"),)),
        }
        feeds = {"frames": "state.frames", "action": "action", **CACHE}
        real = feeds | {"tokens": "new.tokens"}
        again = feeds | {"tokens": "newest.tokens", "frames": "zero"}
        programs = t.programs(
            absorb=(Call("absorb_frame", real, {"out.logits": "logits"} | FRAME),),
            predict=(Call("whole_frame", feeds | NOISE, DRAWN | FRAME),),
            refresh=(Call("absorb_frame", again, FRAME),),
        )
        return Deployment(graphs, programs)
