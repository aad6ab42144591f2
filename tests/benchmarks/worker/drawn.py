"""A world model of a few numbers that draws: its state says all, so that it has no window.

No test is in here.
"""

from collections.abc import Callable, Mapping

import numpy as np

from wmdeploy.programs.arrays import NUMPY
from wmdeploy.programs.contract import BATCH, Call, DType, Noise, Programs, Shape, TensorSpec
from wmdeploy.programs.engine import Backend

SIDE, KINDS = 4, 3  # of a frame, in pixels; values that are drawn
Values = dict[str, np.ndarray]


def _spec(name: str, dtype: DType, *shape: int) -> TensorSpec:
    whole: Shape = (BATCH, *shape)
    return TensorSpec(name, dtype, whole)


FRAME = (SIDE, SIDE, 3)
LEVEL, DEEP = _spec("level", "float32", 1), _spec("deep", "float32", 1)
DRAWN, LOGITS = _spec("drawn", "int64"), _spec("logits", "float32", KINDS)
NOISE = _spec("noise", "float32", KINDS)
STATE = {"deep": "state.deep", "drawn": "state.drawn", "noise": "noise.choice"}
GIVEN = {
    "state.deep": "next_deep", "state.drawn": "next_drawn", "out.logits": "logits",
    "out.drawn": "next_drawn",
}  # fmt: skip
PROGRAMS = Programs(
    context=1,
    keep=1,
    state=(DEEP, DRAWN),
    noise={"choice": Noise("gumbel", (KINDS,))},
    outputs=(LOGITS, DRAWN),
    encode=(Call("encoder", {"frames": "frame"}, {"new.level": "level"}),),
    records=(LEVEL,),
    absorb=(Call("posterior", {"level": "new.level", **STATE}, GIVEN),),
    predict=(Call("prior", STATE, {"new.level": "level", **GIVEN}),),
    render=(Call("decoder", {"deep": "state.deep", "drawn": "state.drawn"}, {"frame": "frame"}),),
    undo=("deep", "drawn"),
)


class DrawnEngine:
    def __init__(
        self,
        name: str,
        inputs: tuple[TensorSpec, ...],
        outputs: tuple[TensorSpec, ...],
        function: Callable[[Mapping[str, np.ndarray]], Values],
    ) -> None:
        self.name, self.inputs, self.outputs, self._function = name, inputs, outputs, function

    def run(
        self, feeds: Mapping[str, np.ndarray], into: Mapping[str, np.ndarray] | None = None
    ) -> Values:
        outputs = self._function(feeds)
        return {s.name: outputs[s.name].astype(s.dtype) for s in self.outputs}

    def synchronize(self) -> None: ...

    def close(self) -> None: ...


def drawn_backend(error: float = 0.0) -> Backend:
    """
    Args:
        error: of the first logit.
    """

    def moved(feeds: Mapping[str, np.ndarray]) -> Values:
        level = feeds.get("level", feeds["deep"])
        deep = np.tanh(0.5 * feeds["deep"] + level + 0.3 * feeds["drawn"][:, None] - 0.4)
        logits = deep * np.arange(KINDS) + [error, 0, 0]
        drawn = (logits + feeds["noise"]).argmax(1)
        return {"next_deep": deep, "next_drawn": drawn, "logits": logits, "level": level}

    def shown(feeds: Mapping[str, np.ndarray]) -> Values:
        values = 100 + 50 * feeds["deep"] + 20 * feeds["drawn"][:, None]
        return {"frame": np.broadcast_to(values[:, :, None, None], (len(values), *FRAME))}

    frames, frame = _spec("frames", "uint8", *FRAME), _spec("frame", "uint8", *FRAME)
    new = (_spec("next_deep", "float32", 1), _spec("next_drawn", "int64"), LOGITS)
    engines = (
        DrawnEngine(
            "encoder", (frames,), (LEVEL,),
            lambda f: {"level": f["frames"].mean((1, 2, 3))[:, None] / 255},
        ),
        DrawnEngine("posterior", (LEVEL, DEEP, DRAWN, NOISE), new, moved),
        DrawnEngine("prior", (DEEP, DRAWN, NOISE), (LEVEL, *new), moved),
        DrawnEngine("decoder", (DEEP, DRAWN), (frame,), shown),
    )  # fmt: skip
    return Backend(
        name="drawn",
        precision="fp32",
        device="cpu",
        arrays=NUMPY,
        engines={engine.name: engine for engine in engines},
        programs=PROGRAMS,
        encode_batch=4,
    )
