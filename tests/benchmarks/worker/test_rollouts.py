"""What a worker records for parity."""

import dataclasses

import numpy as np
import torch

from tests.benchmarks.worker.drawn import drawn_backend
from tests.conftest import MICRO, Bundles, future_pixels
from wmdeploy.benchmarks.worker.rollouts import Rollout, record
from wmdeploy.clips.clip import Clip
from wmdeploy.engines.base import Settings, load_backend
from wmdeploy.families.reference.world_model import WorldModel
from wmdeploy.programs.session import Session

S = MICRO.temporal.context


def test_record_is_what_the_model_says(
    micro_actions: WorldModel, bundles: Bundles, clip: Clip
) -> None:
    backend = load_backend("eager", bundles(actions=True), Settings("cpu"))
    frames, actions, context, horizon = clip.frames[:9], clip.actions, 4, S + 2
    assert actions is not None
    got = record(Rollout(Session(backend), frames, actions[:9], context), horizon)
    assert got["free"].shape == (horizon, *frames.shape[1:]) and len(got["forced"]) == 5
    held = np.concatenate([actions[:9], np.repeat(actions[8], horizon)])  # past the clip's end
    free = future_pixels(micro_actions, frames[:context], horizon, held[: context + horizon - 1])
    np.testing.assert_allclose(got["free"], free, atol=1)
    for now in range(context, 9):  # each from the true frames before it
        one = future_pixels(micro_actions, frames[:now], 1, actions[:now])
        np.testing.assert_allclose(got["forced"][now - context], one[0], atol=1)
    encoded = micro_actions.encode(torch.tensor(frames)[None])[1][0].numpy()
    np.testing.assert_array_equal(got["codes"], encoded)
    again = micro_actions.encode(torch.tensor(got["free"])[None])[1][0].numpy()
    np.testing.assert_array_equal(got["imagined_codes"], again)


def test_record_of_a_clip_that_ends_with_its_context(bundles: Bundles, clip: Clip) -> None:
    backend = load_backend("eager", bundles(), Settings("cpu"))
    got = record(Rollout(Session(backend), clip.frames[:4], None, 4), 3)
    assert len(got["free"]) == 3 and len(got["forced"]) == 0 and len(got["codes"]) == 4


def test_record_has_what_a_model_that_draws_says_of_true_frames(frames: np.ndarray) -> None:
    clip = np.ascontiguousarray(frames[:12, ::8, ::8])
    context, horizon = 5, 4  # more than the window, which is of one frame
    got, other = (
        record(Rollout(Session(backend), clip, None, context), horizon)
        for backend in (drawn_backend(), drawn_backend())
    )
    assert all(np.array_equal(got[name], other[name]) for name in got)  # of the same noise
    assert {name: array.shape[:1] for name, array in got.items()} == dict.fromkeys(
        ["free", "forced", "free/logits", "free/drawn", "forced/logits", "forced/drawn"], (horizon,)
    )
    session = Session(drawn_backend())
    session.reset(clip[:context])
    for at in range(horizon):  # what is absorbed, and not what was predicted
        np.testing.assert_array_equal(session.step()[0], got["forced"][at])
        predicted = session.outputs()["logits"][0]
        session.observe(clip[context + at])
        absorbed = session.outputs()["logits"][0]
        assert (predicted != absorbed).any()
        np.testing.assert_array_equal(got["forced/logits"][at], absorbed)


def test_rollout_gives_as_many_frames_as_a_model_needs(frames: np.ndarray) -> None:
    backend = drawn_backend()
    programs = dataclasses.replace(backend.programs, context=4, keep=4, least=4)
    needy = dataclasses.replace(backend, programs=programs)
    rollout = Rollout(Session(needy), np.ascontiguousarray(frames[:9, ::8, ::8]), None, 6)
    rollout.nearly_full()
    assert rollout.now == 3
    rollout.step()
