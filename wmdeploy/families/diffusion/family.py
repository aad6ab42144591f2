"""The diffusion family: its graphs' tensors, and its programs. Imports no torch by itself."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from wmdeploy.families.diffusion.config import PRESETS, DiffusionConfig
from wmdeploy.families.family import Deployment, Graph, ModelFacts, ModelFamily
from wmdeploy.families.half import graph_of
from wmdeploy.families.tensors import floats, integers, pixels
from wmdeploy.manifest import Precision
from wmdeploy.programs.contract import Call, Noise, Programs, TensorSpec

if TYPE_CHECKING:
    from torch import Tensor, nn

    from wmdeploy.families.diffusion.network import DiffusionModel
    from wmdeploy.training.plan import Training

# Of each graph, the tensors that it takes and gives.
SIGNATURES = {
    "encoder": ("frames", "signal"),
    "history": ("signals actions", "past scales"),
    "denoise": ("noisy index past scales", "clean"),
    "euler": ("noisy clean index", "next_noisy"),
    "whole_frame": ("signals actions noise", "next_noisy"),  # all of the former three
    "reward_end": (
        "before action after length h c reward_noise end_noise",
        "reward end reward_logits end_logits next_h next_c",
    ),
    "decoder": ("signal", "frame"),
}
WINDOW = {"signals": "window.signal", "actions": "window.action"}


def tensors(config: DiffusionConfig, precision: Precision) -> dict[str, TensorSpec]:
    """All of them, by name. Signals, logits and the LSTM's state are float32 in any precision."""
    size, signals = config.image_size, "signal noisy clean next_noisy noise before after"
    specs = [
        *(floats(name, 3, size, size) for name in signals.split()),
        *(floats(name, config.lstm) for name in ("h", "c", "next_h", "next_c")),
        *(integers(name) for name in ("action", "index", "length", "reward", "end")),
        *(floats(name, 3) for name in ("reward_noise", "reward_logits")),
        *(floats(name, 2) for name in ("end_noise", "end_logits")),
        *(pixels(name, size) for name in ("frames", "frame")),
        floats("signals", config.context, 3, size, size),
        integers("actions", config.context),
        floats("past", config.channels[0], size, size, precision=precision),
        floats("scales", config.steps, config.scales, precision=precision),
    ]
    return {spec.name: spec for spec in specs}


def programs(config: DiffusionConfig, frame: tuple[Call, ...]) -> Programs:
    """Those of a model whose next frame, `new.signal`, comes of these calls."""
    t = tensors(config, "fp32")
    outputs = ("reward", "end", "reward_logits", "end_logits")
    reward_end = Call(
        "reward_end",
        {"before": "newest.signal", "action": "action", "after": "new.signal"}
        | {"length": "length", "h": "state.h", "c": "state.c"}
        | {"reward_noise": "noise.reward", "end_noise": "noise.end"},
        {f"out.{name}": name for name in outputs} | {"state.h": "next_h", "state.c": "next_c"},
    )
    return Programs(
        context=config.context,
        keep=config.context,
        least=config.context,
        action=t["action"],
        num_actions=config.num_actions,
        state=(t["h"], t["c"]),
        records=(t["signal"],),
        noise={"x": Noise("normal", (3, config.image_size, config.image_size))}
        | {name: Noise("gumbel", (count,)) for name, count in (("reward", 3), ("end", 2))},
        outputs=tuple(t[name] for name in outputs),
        encode=(Call("encoder", {"frames": "frame"}, {"new.signal": "signal"}),),
        absorb=(reward_end,),
        predict=(*frame, reward_end),
        render=(Call("decoder", {"signal": "newest.signal"}, {"frame": "frame"}),),
        undo=("h", "c"),
    )


def denoising(steps: int) -> tuple[Call, ...]:
    """A frame from noise: what the past gives, then two calls for each noise level."""
    calls = [Call("history", WINDOW, {"new.past": "past", "new.scales": "scales"})]
    for step in range(steps):
        noisy = {"noisy": "new.signal" if step else "noise.x", "index": "index"}
        given = {"past": "new.past", "scales": "new.scales"}
        calls += [
            Call("denoise", noisy | given, {"new.clean": "clean"}, start=step),
            Call("euler", noisy | {"clean": "new.clean"}, {"new.signal": "next_noisy"}, start=step),
        ]
    return tuple(calls)


class DiffusionFamily(ModelFamily):
    """See `wmdeploy.families.ModelFamily`."""

    name = "diffusion"
    title = "diffusion (DIAMOND)"
    config = DiffusionConfig
    presets = PRESETS

    def build(self, config: DiffusionConfig) -> "DiffusionModel":
        from wmdeploy.families.diffusion.network import DiffusionModel

        return DiffusionModel(config)

    def facts(self, model: "DiffusionModel") -> ModelFacts:
        parts = {"all": model, "denoiser": model.denoiser, "rewards": model.rew_end_model}
        counts = {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()}
        return ModelFacts(model.config.image_size, model.config.num_actions, counts)

    def constants(self, model: "DiffusionModel") -> None:
        model.fill_constants()

    def training(self) -> "Training":
        from wmdeploy.training.diffusion import DiffusionTraining

        return DiffusionTraining()

    def convert(self, tensors: "dict[str, Tensor]") -> "tuple[DiffusionConfig, dict[str, Tensor]]":
        from wmdeploy.families.diffusion.convert import convert

        return convert(tensors)

    def deployment(self, model: "DiffusionModel", layout: str, precision: Precision) -> Deployment:
        from wmdeploy.families.diffusion.graphs import EXPORTED

        return _deployment(model, precision, EXPORTED, denoising(model.config.steps))

    def baseline_deployment(self, model: "DiffusionModel", precision: Precision) -> Deployment:
        from wmdeploy.families.diffusion.graphs import PUBLISHED

        frame = Call("whole_frame", {**WINDOW, "noise": "noise.x"}, {"new.signal": "next_noisy"})
        return _deployment(model, precision, PUBLISHED, (frame,))


def _deployment(
    model: "DiffusionModel",
    precision: Precision,
    modules: "Mapping[str, Callable[[DiffusionModel], nn.Module]]",
    frame: tuple[Call, ...],
) -> Deployment:
    from wmdeploy.families.diffusion.graphs import ISLANDS

    named = tensors(model.config, precision)

    def build(name: str) -> Callable[[], Graph]:
        taken, given = (tuple(named[n] for n in side.split()) for side in SIGNATURES[name])
        return graph_of(lambda: modules[name](model), taken, given, precision, ISLANDS)

    return Deployment({name: build(name) for name in modules}, programs(model.config, frame))
