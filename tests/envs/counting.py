"""A world that counts, in numpy: what an agent sees, gets and ends by can be worked out by hand.

A frame's red is its level, and its blue the noise that it drew. An action a leads from level v to
v + 1 + a, with reward a + v / 100; levels that 7 divides end an episode.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np

from wmdeploy.clips.clip import Clip
from wmdeploy.programs.arrays import NUMPY
from wmdeploy.programs.contract import BATCH, Call, DType, Noise, Programs, TensorSpec
from wmdeploy.programs.engine import Backend

SIZE, ACTIONS, ENDS = 8, 3, 7
End = Literal["end", "cont"] | None


class Function:
    """A function of numpy arrays as an engine."""

    def __init__(
        self,
        name: str,
        function: Callable[..., tuple[np.ndarray, ...]],
        inputs: tuple[TensorSpec, ...],
        outputs: tuple[TensorSpec, ...],
    ) -> None:
        self.name, self.inputs, self.outputs = name, inputs, outputs
        self._function = function

    def run(
        self, feeds: Mapping[str, Any], into: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        made = self._function(*(feeds[spec.name] for spec in self.inputs))
        return {
            spec.name: value.astype(spec.dtype)
            for spec, value in zip(self.outputs, made, strict=True)
        }

    def synchronize(self) -> None: ...

    def close(self) -> None: ...


def spec(name: str, *shape: int, dtype: DType = "float32") -> TensorSpec:
    return TensorSpec(name, dtype, (BATCH, *shape))


def counting(
    *, end: End = "end", reward: bool = True, floats: bool = False, least: int = 1
) -> Backend:
    """The world with an end of some kind, or none; with a reward or none; with float actions."""
    action = spec("action", 1) if floats else spec("action", dtype="int64")
    frames = spec("frames", SIZE, SIZE, 3, dtype="uint8")
    record, noise = spec("level", 2), spec("noise", 1)
    said = (spec("reward", 1), spec("end", dtype="int64"), spec("cont"))

    def see(pixels: np.ndarray) -> tuple[np.ndarray, ...]:
        return (pixels[:, 0, 0, ::2],)

    def count(level: np.ndarray, taken: np.ndarray, drawn: np.ndarray) -> tuple[np.ndarray, ...]:
        now, change = level[:, 0], taken.reshape(-1)
        after = now + 1 + change
        ended = after % ENDS == 0
        worth = (change + now / 100)[:, None]
        return np.stack([after, drawn[:, 0] * 255], 1), worth, ended, np.where(ended, 0.4, 0.6)

    def draw(level: np.ndarray) -> tuple[np.ndarray, ...]:
        picture = np.zeros((len(level), SIZE, SIZE, 3))
        picture[..., ::2] = level[:, None, None]
        return (picture,)

    gives = {"new.level": "next_level"}
    gives |= {"out.reward": "reward"} if reward else {}
    gives |= {f"out.{end}": end} if end else {}
    engines = (
        Function("see", see, (frames,), (record,)),
        Function("count", count, (record, action, noise), (spec("next_level", 2), *said)),
        Function("draw", draw, (record,), (frames,)),
    )
    step = {"level": "newest.level", "action": "action", "noise": "noise.spark"}
    programs = Programs(
        context=1,
        keep=1,
        least=least,
        action=action,
        num_actions=0 if floats else ACTIONS,
        records=(record,),
        noise={"spark": Noise("uniform", (1,))},
        outputs=tuple(s for s in said if f"out.{s.name}" in gives),
        encode=(Call("see", {"frames": "frame"}, {"new.level": "level"}),),
        predict=(Call("count", step, gives),),
        render=(Call("draw", {"level": "newest.level"}, {"frame": "frames"}),),
    )
    return Backend(
        name="numpy",
        precision="fp32",
        device="cpu",
        arrays=NUMPY,
        engines={engine.name: engine for engine in engines},
        programs=programs,
        encode_batch=64,
    )


def counted(first: int, length: int, floats: bool = False, name: str = "counted") -> Clip:
    """A clip of levels from `first` on, each one more, without blue; actions 0, or -1, 0, 1, ..."""
    frames = np.zeros((length, SIZE, SIZE, 3), np.uint8)
    frames[..., 0] = np.arange(first, first + length)[:, None, None]
    if floats:
        return Clip(frames, (np.arange(length) % 3 - 1).astype(np.float32)[:, None], name)
    return Clip(frames, np.zeros(length, np.int64), name)


def levels(frames: np.ndarray) -> np.ndarray:
    """Of frames (..., H, W, 3)."""
    return frames[..., 0, 0, 0].astype(np.int64)


def sparks(frames: np.ndarray) -> np.ndarray:
    """The noise that frames (..., H, W, 3) drew."""
    return frames[..., 0, 0, 2].astype(np.int64)
