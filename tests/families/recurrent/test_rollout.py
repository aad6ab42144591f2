"""64 frames of two rows beside a plain loop, and float16 beside float32."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from tests.families.recurrent.published import Moment, Published
from wmdeploy.benchmarks.parity.outputs import total_variation
from wmdeploy.bundle import Bundle
from wmdeploy.clips.clip import Clip
from wmdeploy.engines.base import load_backend
from wmdeploy.families import family_of
from wmdeploy.families.recurrent.network import RecurrentModel
from wmdeploy.programs.contract import Noise
from wmdeploy.programs.engine import Backend
from wmdeploy.programs.modules import module_backend
from wmdeploy.programs.noise import draw
from wmdeploy.programs.session import Session

CONTEXT, FRAMES, ROWS, SEED = 5, 64, 2, 7
REAL = 20  # the frame that is predicted first, and then replaced by a real one

Made = dict[str, np.ndarray]  # by name, (FRAMES, ROWS, ...)
Start = Callable[[RecurrentModel, Bundle], Backend]


def baseline(model: RecurrentModel, bundle: Bundle) -> Backend:
    return module_backend(family_of(model).baseline_deployment(model, "fp32"), name="baseline")


def folded(model: RecurrentModel, bundle: Bundle) -> Backend:
    return module_backend(family_of(model).deployment(model, "default", "fp32"), name="folded")


def ort_cpu(model: RecurrentModel, bundle: Bundle) -> Backend:
    return load_backend("ort-cpu", bundle)


def of_a_session(backend: Backend, clip: Clip) -> Made:
    """The rows' contexts are of the clip's frames from 0 and from 1 on."""
    assert clip.actions is not None
    session = Session(backend, batch=ROWS, seed=SEED)
    for row in range(ROWS):
        real, acted = clip.frames[row : row + CONTEXT], clip.actions[row : row + CONTEXT - 1]
        session.reset(real, acted, rows=[row])
    made: dict[str, list[np.ndarray]] = {}
    for at in range(FRAMES):
        session.advance(clip.actions[at : at + ROWS])
        if at == REAL:
            session.observe(clip.frames[at : at + ROWS])
        else:
            made.setdefault("frame", []).append(session.render())
        states = [snapshot.state["state.stoch"] for snapshot in session.snapshot()]
        made.setdefault("stoch", []).append(np.concatenate(states))
        for name, value in session.outputs().items():
            made.setdefault(name, []).append(value)
    return {name: np.array(values) for name, values in made.items()}


def of_a_loop(model: RecurrentModel, clip: Clip) -> Made:
    """The same by a loop over tensors: the noise is drawn frame by frame, whatever is a frame."""
    assert clip.actions is not None
    config = model.config
    published = Published(model.state_dict(), config.classes, len(config.channels))
    shape = (config.variables, config.classes)
    clock = 0

    def noise() -> torch.Tensor:
        nonlocal clock
        kind = Noise("gumbel", shape)
        values = [draw(kind, "stoch", SEED, row, clock) for row in range(ROWS)]
        clock += 1
        return torch.tensor(np.stack(values))

    def real(at: int) -> torch.Tensor:
        return torch.tensor(clip.frames[at : at + ROWS])

    def action(at: int) -> torch.Tensor:
        assert clip.actions is not None
        taken = torch.tensor(clip.actions[max(at, 0) : max(at, 0) + ROWS])
        return F.one_hot(taken, config.num_actions).float() if config.num_actions else taken

    moment: Moment | None = None
    for at in range(CONTEXT):
        moment = published.observe(moment, real(at), action(at - 1), noise())
    assert moment is not None
    made: dict[str, list[np.ndarray]] = {}
    for at in range(FRAMES):
        before, moment = moment, published.imagine(moment, action(at), noise())
        if at == REAL:
            moment = published.observe(before, real(at), action(at), noise())
        else:
            made.setdefault("frame", []).append(published.frame(moment).numpy())
        made.setdefault("stoch", []).append(moment.stoch.argmax(-1).numpy())
        made.setdefault("reward", []).append(moment.reward.numpy())
        made.setdefault("cont", []).append(moment.cont.numpy())
    return {name: np.array(values) for name, values in made.items()}


def compare(got: Made, expected: Made) -> None:
    np.testing.assert_array_equal(got["stoch"], expected["stoch"])
    np.testing.assert_allclose(got["reward"], expected["reward"], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(got["cont"], expected["cont"], atol=1e-5)
    # rounded to a level, by float32 that was added up in another order
    np.testing.assert_allclose(got["frame"], expected["frame"], atol=0.51)


@pytest.mark.parametrize("start", [baseline, folded, ort_cpu])
def test_draws_what_a_plain_loop_draws(
    start: Start, model: RecurrentModel, bundle: Bundle, clip: Clip
) -> None:
    expected = of_a_loop(model, clip)
    compare(of_a_session(start(model, bundle), clip), expected)
    # the test means something: classes change, and so do pictures and rewards
    assert len(np.unique(expected["stoch"])) == model.config.classes
    assert (expected["stoch"][1:] != expected["stoch"][:-1]).mean() > 0.2
    assert expected["reward"].std() > 0.1 and expected["frame"].std(0).max() > 10


@pytest.mark.parametrize("start", [baseline, folded, ort_cpu])
def test_float_actions_draw_what_a_plain_loop_draws(
    start: Start, floats_model: RecurrentModel, floats_bundle: Bundle, floats_clip: Clip
) -> None:
    backend = start(floats_model, floats_bundle)
    compare(of_a_session(backend, floats_clip), of_a_loop(floats_model, floats_clip))


@torch.inference_mode()
def test_actions_and_the_learned_state_matter(model: RecurrentModel, clip: Clip) -> None:
    """Guards the model's weights: where neither changes what is drawn, no test above sees it."""
    expected = of_a_loop(model, clip)
    assert clip.actions is not None
    others = Clip(clip.frames, (clip.actions + 1) % 3, "others")
    assert (of_a_loop(model, others)["stoch"] != expected["stoch"]).mean() > 0.1
    kept = model.dynamics.W.clone()
    try:
        model.dynamics.W.zero_()
        assert (of_a_loop(model, clip)["stoch"] != expected["stoch"]).mean() > 0.1
    finally:
        model.dynamics.W.copy_(kept)


@pytest.mark.slow
def test_half_precision_draws_from_the_same_distributions(
    model: RecurrentModel, bundle: Bundle, half: Bundle, clip: Clip
) -> None:
    """Of the prior at each frame, where real frames have come before it."""
    assert clip.actions is not None
    recorded = []
    for backend in (baseline(model, bundle), load_backend("ort-cpu", half)):
        session = Session(backend, seed=SEED)
        session.reset(clip.frames[:1], clip.actions[:0])
        logits = []
        for at in range(1, 24):
            session.advance(int(clip.actions[at - 1]))
            logits.append(session.outputs()["logits"])
            session.observe(clip.frames[at])
        recorded.append(np.concatenate(logits))
    assert recorded[1].dtype == np.float32
    assert recorded[0].std() > 1
    variation = total_variation(recorded[1], recorded[0])
    assert 0 < variation < 1e-3
