"""Bad inputs are one line, which names what was given and what was expected."""

import dataclasses
from typing import Any

import numpy as np
import pytest

from tests.envs.counting import counted, counting
from wmdeploy.clips.clip import Clip
from wmdeploy.envs.single import WorldModelEnv
from wmdeploy.envs.vector import WorldModelVectorEnv
from wmdeploy.errors import BackendError, ClipError, WmdeployError
from wmdeploy.programs.engine import Backend

CLIP = counted(1, 6)
# gymnasium closes an environment that is collected, whether or not it was refused
pytestmark = pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")


def refused(
    error: type[WmdeployError],
    words: str,
    backend: Backend | None = None,
    clips: list[Clip] | None = None,
    **options: Any,
) -> None:
    options = {"num_envs": 2, "context": 2} | options
    with pytest.raises(error, match=words) as found:
        WorldModelVectorEnv(backend or counting(), [CLIP] if clips is None else clips, **options)
    assert "\n" not in str(found.value)


def without(backend: Backend, **changes: Any) -> Backend:
    return dataclasses.replace(backend, programs=dataclasses.replace(backend.programs, **changes))


def test_models_that_are_no_environment() -> None:
    refused(BackendError, "predicts no reward; give reward=", counting(reward=False))
    refused(BackendError, "takes no actions", without(counting(), action=None, num_actions=0))
    refused(BackendError, "no program to render with", without(counting(), render=()))


def test_an_output_that_no_prediction_gives_is_no_reward() -> None:
    """Such as one of real frames alone, which would be a reward of the past."""
    backend = counting(reward=False)
    said = counting().programs.outputs
    refused(BackendError, "predicts no reward", without(backend, outputs=said))


def test_numbers_out_of_range() -> None:
    refused(BackendError, "num_envs: got 0, expected at least 1", num_envs=0)
    refused(BackendError, "max_steps: got 0, expected at least 1, or none", max_steps=0)
    refused(BackendError, "context: got 0 frames, expected at least 1", context=0)
    refused(BackendError, "context: got 2 frames, expected at least 4", counting(least=4))
    refused(BackendError, "action_range: is for float actions", action_range=(0, 1))
    floats = [counted(1, 6, floats=True)]
    refused(
        BackendError, "action_range: got 1 to 1", counting(floats=True), floats, action_range=(1, 1)
    )


def test_clips_that_do_not_fit() -> None:
    refused(ClipError, "clips: got none", clips=[])
    refused(
        ClipError,
        "clip short: has 1 frames, expected at least 2",
        clips=[CLIP, counted(1, 1, name="short")],
    )
    no_actions = Clip(CLIP.frames, None, "silent")
    refused(ClipError, "^(clip )?silent: ", clips=[no_actions])
    refused(ClipError, "floats: got actions", clips=[counted(1, 6, floats=True, name="floats")])
    large = Clip(np.zeros((6, 16, 16, 3), np.uint8), CLIP.actions, "large")
    refused(ClipError, r"clip large: got frames \(16, 16, 3\), expected \(8, 8, 3\)", clips=[large])
    many = Clip(CLIP.frames, np.full(6, 3), "many")
    refused(ClipError, "many: ", clips=[many])


@pytest.mark.parametrize(
    ("actions", "words"),
    [
        (np.zeros(3, np.int64), r"actions: got shape \(3,\), expected \(2,\)"),
        (np.int64(1), r"actions: got shape \(\), expected \(2,\)"),
        (np.zeros((2, 1), np.int64), r"actions: got shape \(2, 1\)"),
        (np.array([0, 3]), "got actions 0 to 3, expected 0 to 2"),
        (np.array([-1, 0]), "got actions -1 to 0, expected 0 to 2"),
        (np.zeros(2), "expected integers"),
    ],
)
def test_integer_actions_that_do_not_fit(actions: Any, words: str) -> None:
    env = WorldModelVectorEnv(counting(), [CLIP], num_envs=2, context=2)
    env.reset()
    with pytest.raises(BackendError, match=words):
        env.step(actions)


@pytest.mark.parametrize("value", [1.5, -2, np.nan, np.inf])
def test_float_actions_out_of_range(value: float) -> None:
    clips = [counted(1, 6, floats=True)]
    env = WorldModelVectorEnv(counting(floats=True), clips, num_envs=2, context=2)
    env.reset()
    with pytest.raises(BackendError, match="actions: got .*; give action_range= for a wider one"):
        env.step(np.array([[0], [value]], np.float32))


def test_a_step_before_a_reset() -> None:
    env = WorldModelVectorEnv(counting(), [CLIP], num_envs=2, context=2)
    with pytest.raises(BackendError, match="call reset first"):
        env.step(np.zeros(2, np.int64))


@pytest.mark.parametrize("value", [np.zeros(3), 0.0, np.array([0, np.nan])])
def test_a_reward_that_is_no_number_for_each_row(value: Any) -> None:
    env = WorldModelVectorEnv(
        counting(), [CLIP], num_envs=2, context=2, reward=lambda *given: value
    )
    env.reset()
    with pytest.raises(BackendError, match=r"reward: got .*, expected \(2,\) finite numbers"):
        env.step(np.zeros(2, np.int64))


def test_options_that_nobody_knows() -> None:
    for env in (
        WorldModelVectorEnv(counting(), [CLIP], num_envs=2, context=2),
        WorldModelEnv(counting(), [CLIP], context=2),
    ):
        with pytest.raises(BackendError, match="options: got start, and none are known"):
            env.reset(options={"start": 1})
