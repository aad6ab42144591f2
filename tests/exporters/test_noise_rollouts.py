"""The rollout of an export whose model draws noise: real frames come in between."""

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np
import pytest

from wmdeploy.errors import ExportError
from wmdeploy.exporters import verify as checks
from wmdeploy.exporters.verify import verify_rollout
from wmdeploy.families.tensors import floats, pixels
from wmdeploy.programs.arrays import NUMPY
from wmdeploy.programs.contract import Call, Noise, Programs, TensorSpec
from wmdeploy.programs.engine import Backend

SIZE = 32
STEEPNESS = 8  # by so much an error grows from frame to frame
Arrays = Mapping[str, np.ndarray]


class Function:
    """A graph that is a function of one array."""

    def __init__(
        self,
        name: str,
        function: Callable[[np.ndarray], np.ndarray],
        inputs: tuple[TensorSpec, ...],
        output: TensorSpec,
    ) -> None:
        self.name, self.inputs = name, inputs
        self.outputs: tuple[TensorSpec, ...] = (output,)
        self._function = function

    def run(self, feeds: Arrays, into: Arrays | None = None) -> dict[str, np.ndarray]:
        return {self.outputs[0].name: self._function(feeds[self.inputs[0].name])}

    def synchronize(self) -> None: ...

    def close(self) -> None: ...


def draw(values: np.ndarray) -> np.ndarray:
    """(B,) in [0, 1) -> frames whose error is the value's, however small."""
    dither = np.arange(SIZE * SIZE * 3) / (SIZE * SIZE * 3)
    levels = np.floor(values[:, None] * 250 + dither)
    return levels.astype(np.uint8).reshape(-1, SIZE, SIZE, 3)


def chaos(error: float, noise: bool) -> Backend:
    """A model that multiplies what differs; `error` is added to each of its predictions."""
    value, next_value = floats("value"), floats("next_value")
    drawn = (floats("noise"),) if noise else ()

    def step(values: np.ndarray) -> np.ndarray:
        return ((values * STEEPNESS) % 1 + error).astype(np.float32)

    frames, frame = pixels("frames", SIZE), pixels("frame", SIZE)
    engines = (
        Function(
            "encoder", lambda x: (x.mean((1, 2, 3)) / 250).astype("float32"), (frames,), value
        ),
        Function("step", step, (value, *drawn), next_value),
        Function("decoder", draw, (value,), frame),
    )
    feeds = {"value": "newest.value"} | ({"noise": "noise.x"} if noise else {})
    programs = Programs(
        context=4,
        keep=4,
        records=(value,),
        noise={"x": Noise("normal", ())} if noise else {},
        encode=(Call("encoder", {"frames": "frame"}, {"new.value": "value"}),),
        predict=(Call("step", feeds, {"new.value": "next_value"}),),
        render=(Call("decoder", {"value": "newest.value"}, {"frame": "frame"}),),
    )
    return Backend(
        name="chaos",
        precision="fp32",
        device="cpu",
        arrays=NUMPY,
        engines={engine.name: engine for engine in engines},
        programs=programs,
        encode_batch=8,
        threads=1,
    )


def verify(error: float, noise: bool) -> None:
    exported, baseline = chaos(error, noise), chaos(0, noise)
    frames = draw(np.array([0.123, 0.456, 0.789, 0.321]))
    verify_rollout(
        exported.engines,
        modules=exported,
        baseline=baseline,
        frames=frames,
        actions=None,
        exactness="fp32",
    )


def test_rounding_that_grows_passes_where_a_model_draws_noise() -> None:
    verify(2e-5, noise=True)


def test_rounding_that_grows_is_refused_where_a_model_draws_none() -> None:
    with pytest.raises(ExportError, match=r"frame [3-8] of a rollout"):
        verify(2e-5, noise=False)


def test_what_a_prediction_hands_on_is_judged_where_a_model_draws_noise() -> None:
    """An error that is small in the first frame, and too large in the one that follows from it."""
    with pytest.raises(ExportError, match="frame 2 of a rollout"):
        verify(1e-4, noise=True)


def test_a_wrong_first_frame_is_refused_where_a_model_draws_noise() -> None:
    with pytest.raises(ExportError, match="frame 1 of a rollout"):
        verify(1e-2, noise=True)


class Said:
    """A session without frames, and what it gives for people."""

    def __init__(self, **outputs: list[float]) -> None:
        self.programs = dataclasses.replace(chaos(0, noise=True).programs, render=())
        self._outputs = {name: np.array([row], np.float32) for name, row in outputs.items()}

    def outputs(self) -> dict[str, np.ndarray]:
        return self._outputs


@pytest.mark.parametrize(
    ("name", "off", "found"),
    [
        ("reward_logits", 1e-4, False),  # 1% of logits that hardly differ from each other
        ("logits", 1e-4, False),
        ("logits", 2e-3, True),
        ("reward", 1e-4, True),
    ],
)
def test_small_logits_may_differ_by_what_changes_no_choice(
    name: str, off: float, found: bool
) -> None:
    ours, theirs = Said(**{name: [0.01, -0.01 + off]}), Said(**{name: [0.01, -0.01]})
    fault = checks._difference(ours, theirs, "fp32")  # type: ignore[arg-type]
    assert bool(fault and f'the output "{name}" differs' in fault) is found
