"""The token family: tensors of its graphs, and its programs. Importing this imports no torch."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from wmdeploy.families.family import Deployment, Graph, ModelFacts, ModelFamily
from wmdeploy.families.tensors import floats, integers, pixels
from wmdeploy.families.tokens.config import PRESETS, TokensConfig
from wmdeploy.manifest import Precision
from wmdeploy.programs.contract import Call, Noise, Programs, TensorSpec

if TYPE_CHECKING:
    from torch import Tensor, nn

    from wmdeploy.families.tokens.network import TokensModel

DRAWN = "next_tokens reward end"
ENDING = "reward_noise end_noise"
# Of each graph, the tensors that it takes and gives, but for the cache, which comes last in both.
SIGNATURES = {
    "encoder": ("frames", "tokens"),
    "absorb": ("before tokens action cached", "logits at next_cached"),
    "begin": (f"before action cached noise {ENDING}", f"{DRAWN} at next_cached"),
    "token": ("tokens index cached noise", "next_tokens at"),
    "decoder": ("tokens", "frame"),
    "absorb_frame": ("cached tokens action", "logits at next_cached"),
    "whole_frame": (f"cached action noises {ENDING}", f"{DRAWN} at next_cached"),
}
WITHOUT_CACHE = ("encoder", "decoder")
# Where a session takes what graphs take, and puts what they give.
SOURCES = {"before": "newest.tokens", "tokens": "new.tokens", "action": "action", "index": "index"}
SOURCES |= {"cached": "state.cached", "noise": "noise.obs", "noises": "noise.obs"}
SOURCES |= {"reward_noise": "noise.reward", "end_noise": "noise.end"}
TARGETS = {"at": "state.at", "next_cached": "state.cached", "next_tokens": "new.tokens"}
TARGETS |= {name: f"out.{name}" for name in ("logits", "reward", "end")}


def tensors(config: TokensConfig, precision: Precision, entries: int = 1) -> dict[str, TensorSpec]:
    """All of them, by name.

    Args:
        entries: of the cache, that a graph gives; they and the cache alone are of the precision.
    """
    tokenizer, sizes = config.tokenizer, config.transformer
    k, classes = tokenizer.tokens, tokenizer.codebook_size
    counts = dict.fromkeys(cache_names(config), config.positions)
    counts |= dict.fromkeys(cache_names(config, "new_"), entries)
    cache = [
        floats(name, sizes.heads, count, sizes.head_size, precision=precision)
        for name, count in counts.items()
    ]
    specs = [
        *cache,
        *(integers(name, k) for name in ("before", "tokens", "next_tokens", "codes")),
        *(integers(name) for name in ("action", "index", "cached", "next_cached", "at", "end")),
        *(floats(name, k, classes) for name in ("logits", "noises")),
        *(floats("noise", classes), floats("reward_noise", 3), floats("end_noise", 2)),
        *(floats("reward"), pixels("frames", tokenizer.image_size)),
        pixels("frame", tokenizer.image_size),
    ]
    return {spec.name: spec for spec in specs}


def cache_names(config: TokensConfig, new: str = "") -> list[str]:
    """The cache's tensors: the keys of each layer, then the values."""
    layers = range(config.transformer.layers)
    return [f"{new}{part}_{layer}" for part in ("keys", "values") for layer in layers]


def signature(config: TokensConfig, graph: str) -> tuple[list[str], list[str]]:
    """What a graph takes and gives, in order."""
    taken, given = (side.split() for side in SIGNATURES[graph])
    if graph not in WITHOUT_CACHE:
        taken, given = taken + cache_names(config), given + cache_names(config, "new_")
    return taken, given


def call(config: TokensConfig, graph: str, times: int = 1, start: int = 0, **sources: str) -> Call:
    """A call of a graph; `sources` are others than usual."""
    taken, given = signature(config, graph)
    usual = SOURCES | {name: f"state.{name}" for name in cache_names(config)} | sources
    targets = TARGETS | {f"new_{name}": f"slot.{name}@at" for name in cache_names(config)}
    feeds, gives = {n: usual[n] for n in taken}, {targets[n]: n for n in given}
    return Call(graph, feeds, gives, times, start)


def programs(
    config: TokensConfig, precision: Precision, absorb: str, predict: tuple[Call, ...]
) -> Programs:
    """Those of a model whose real frames one graph absorbs; `predict` draws a frame."""
    t = tensors(config, precision)
    again = call(config, absorb, tokens="newest.tokens", cached="zero")
    del again.gives["out.logits"]  # they are of no new frame
    kinds = {"obs": t["noises"], "reward": t["reward_noise"], "end": t["end_noise"]}
    return Programs(
        context=config.transformer.frames - 1,
        keep=1,  # when the cache is full, it starts again from the newest frame
        action=t["action"],
        num_actions=config.transformer.num_actions,
        state=tuple(t[name] for name in ("cached", "at", *cache_names(config))),
        records=(t["tokens"],),
        noise={name: Noise("gumbel", spec.sizes(1)[1:]) for name, spec in kinds.items()},
        outputs=tuple(t[name] for name in ("codes", "logits", "reward", "end")),
        encode=(
            Call("encoder", {"frames": "frame"}, {"new.tokens": "tokens", "out.codes": "tokens"}),
        ),
        absorb=(call(config, absorb),),
        predict=predict,
        refresh=(again,),
        render=(Call("decoder", {"tokens": "newest.tokens"}, {"frame": "frame"}),),
        undo=("cached",),
    )


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
        counts = {n: sum(p.numel() for p in part.parameters()) for n, part in parts.items()}
        sizes = model.config
        return ModelFacts(sizes.tokenizer.image_size, sizes.transformer.num_actions, counts)

    def convert(self, tensors: "dict[str, Tensor]") -> "tuple[TokensConfig, dict[str, Tensor]]":
        from wmdeploy.families.tokens.checkpoint import convert

        return convert(tensors)

    def deployment(self, model: "TokensModel", layout: str, precision: Precision) -> Deployment:
        from wmdeploy.families.tokens.graphs import ISLANDS, modules

        config = model.config
        rest = call(config, "token", times=config.tokenizer.tokens - 1, start=1)
        frame = (call(config, "begin"), rest)
        graphs = _graphs(config, precision, modules(model), ISLANDS)
        return Deployment(graphs, programs(config, precision, "absorb", frame))

    def baseline_deployment(self, model: "TokensModel", precision: Precision) -> Deployment:
        from wmdeploy.families.tokens.baseline import ISLANDS, modules

        graphs = _graphs(model.config, precision, modules(model), ISLANDS)
        frame = (call(model.config, "whole_frame"),)
        return Deployment(graphs, programs(model.config, precision, "absorb_frame", frame))


def _graphs(
    config: TokensConfig,
    precision: Precision,
    modules: "Mapping[str, Callable[[], nn.Module]]",
    islands: "tuple[type[nn.Module], ...]",
) -> dict[str, Callable[[], Graph]]:
    from wmdeploy.families.half import graph_of

    graphs = {}
    for name, make in modules.items():
        entries = {"begin": 2, "token": 1}.get(name, config.tokenizer.tokens + 1)
        named = tensors(config, precision, entries)
        taken, given = (tuple(named[n] for n in side) for side in signature(config, name))
        graphs[name] = graph_of(make, taken, given, precision=precision, islands=islands)
    return graphs
