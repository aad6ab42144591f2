"""The tensors of a token model's graphs, and what the exported programs and the authors' share."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from wmdeploy.families.family import Graph
from wmdeploy.families.tensors import floats, integers, pixels
from wmdeploy.families.tokens.config import TokensConfig
from wmdeploy.manifest import Precision
from wmdeploy.programs.contract import Call, Noise, Programs, TensorSpec

if TYPE_CHECKING:
    from torch import nn


class Tensors:
    """By name; `entries` gives some of the cache's."""

    def __init__(self, config: TokensConfig, precision: Precision) -> None:
        tokenizer, sizes = config.tokenizer, config.transformer
        self._config, self._precision = config, precision
        self.k, self.classes = tokenizer.tokens, tokenizer.codebook_size
        self.tokens = integers("tokens", self.k)
        self.action, self.frames = integers("action"), integers("frames")
        self.logits = floats("logits", self.k, self.classes)
        self.ending_noise = floats("reward", 3), floats("end", 2)
        self.drawn = integers("next_tokens", self.k), floats("rewards"), integers("ends")
        self._before, self._behind = (sizes.layers, sizes.heads), sizes.head_size
        self.cache = self.entries(config.positions, ("keys", "values"))

    def entries(
        self, count: int, names: tuple[str, str] = ("key", "value")
    ) -> tuple[TensorSpec, ...]:
        """(B, layers, heads, count, D / heads) each."""
        shape = *self._before, count, self._behind
        return tuple(floats(name, *shape, precision=self._precision) for name in names)

    def pixels(self, name: str) -> TensorSpec:
        return pixels(name, self._config.tokenizer.image_size)

    def programs(self, **others: Any) -> Programs:
        """What both say alike, and what one says."""
        frames, actions = self._config.transformer.frames, self._config.transformer.num_actions
        encoded = {"new.tokens": "tokens", "out.codes": "tokens"}
        return Programs(
            context=frames - 1,
            keep=1,  # when the cache is full, it starts again from the newest frame
            action=self.action,
            num_actions=actions,
            state=(self.frames, integers("at"), *self.cache),
            records=(self.tokens,),
            undo=("frames",),
            noise={
                "obs": Noise("gumbel", (self.k, self.classes)),
                "reward": Noise("gumbel", (3,)),
                "end": Noise("gumbel", (2,)),
            },
            outputs=(integers("codes", self.k), self.logits, floats("reward"), integers("end")),
            encode=(Call("encoder", {"frames": "frame"}, encoded),),
            render=(Call("decoder", {"tokens": "newest.tokens"}, {"frame": "frame"}),),
            **others,
        )


def maker(precision: Precision, islands: "tuple[type[nn.Module], ...]") -> Callable[..., Any]:
    """Makes graphs of one precision, when they are asked for."""

    def graph(
        make: "Callable[[], nn.Module]",
        inputs: tuple[TensorSpec, ...],
        outputs: tuple[TensorSpec, ...],
    ) -> Callable[[], Graph]:
        def build() -> Graph:
            from wmdeploy.families.half import to_half

            module = make().eval().requires_grad_(False)
            return Graph(
                module if precision == "fp32" else to_half(module, islands), inputs, outputs
            )

        return build

    return graph
