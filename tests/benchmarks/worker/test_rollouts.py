"""What a worker records for parity."""

import numpy as np
import torch

from tests.conftest import MICRO, Bundles, future_pixels
from wmdeploy.benchmarks.worker.rollouts import Rollout, record
from wmdeploy.clips.clip import Clip
from wmdeploy.engines.base import Settings, load_backend
from wmdeploy.engines.session import Session
from wmdeploy.models.world_model import WorldModel

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
