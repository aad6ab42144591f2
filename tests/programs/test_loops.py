"""Sessions of families that sample, beside plain loops that know neither session nor cache."""

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.families import recurrent_like as recurrent
from tests.families import sampled
from wmdeploy.programs.contract import Noise
from wmdeploy.programs.modules import module_backend
from wmdeploy.programs.noise import draw
from wmdeploy.programs.session import Session

SEED = 7
FRAMES = np.random.default_rng(0).integers(0, 256, (12, 16, 16, 3), dtype=np.uint8)


def next_frame(
    model: sampled.Sampled, past: list[tuple[int, Tensor]], action: int, noise: np.ndarray
) -> tuple[Tensor, float]:
    """The next frame's tokens (K,) and reward: all that went before through the model at once.

    Args:
        past: of each frame since the start, the action that led to it and its tokens.
    """
    entries = [
        row for led, tokens in past for row in (model.actions.weight[led], *model.tokens(tokens))
    ]
    entries.append(model.actions.weight[action])
    tokens: list[Tensor] = []
    for at in range(sampled.K + 1):
        x = torch.stack([*entries, *(model.tokens(t) for t in tokens)])[None]
        empty = torch.zeros(1, sampled.ENTRIES, sampled.WIDTH)
        hidden, _, _ = model.attend(x, torch.tensor([0]), empty, empty)
        if at == 0:
            reward = float(model.reward(hidden[0, -1]))
        if at < sampled.K:
            tokens.append((model.head(hidden[0, -1]) + torch.from_numpy(noise[at])).argmax())
    return torch.stack(tokens), reward


@pytest.mark.parametrize("forced", [False, True])
@pytest.mark.parametrize("written", ["authors", "deployed"])
@torch.inference_mode()
def test_sampled_frames_are_those_of_a_plain_loop(written: str, forced: bool) -> None:
    """Over three starts from the newest frame; imagined, or observed after each prediction."""
    model = sampled.SampledFamily().load("sampled-4", 0, None)
    assert isinstance(model, sampled.Sampled)
    deployed = sampled.SampledFamily().deployment(model, "default", "fp32")
    if written == "authors":
        deployed = sampled.SampledFamily().baseline_deployment(model, "fp32")
    session = Session(module_backend(deployed, name="loop"), seed=SEED)
    kind = Noise("gumbel", (sampled.K + 1, sampled.CLASSES))
    codes = model.encode(torch.from_numpy(FRAMES))
    session.reset(FRAMES[:2], np.array([2]))
    past = [(sampled.ACTIONS, codes[0]), (2, codes[1])]
    clock = 2  # frames since the reset, of which each draws
    for step in range(10):
        action = step % sampled.ACTIONS
        if len(past) > sampled.CONTEXT:
            past = [(sampled.ACTIONS, past[-1][1])]  # the cache is full: the newest frame alone
        tokens, reward = next_frame(model, past, action, draw(kind, "tokens", SEED, 0, clock))
        clock += 1
        frame = session.step(np.array([action]))
        np.testing.assert_array_equal(frame, model.draw(tokens[None]).numpy())
        assert session.outputs()["reward"][0] == pytest.approx(reward, abs=1e-5)
        if forced:
            tokens = codes[2 + step]
            clock += 1
            session.observe(FRAMES[2 + step])
        past.append((action, tokens))


@torch.inference_mode()
def test_recurrent_states_are_those_of_a_plain_loop() -> None:
    model = recurrent.RecurrentFamily().load("recurrent-12", 0, None)
    assert isinstance(model, recurrent.Recurrent)
    deployed = recurrent.RecurrentFamily().deployment(model, "default", "fp32")
    session = Session(module_backend(deployed, name="loop"), seed=SEED)
    kind = Noise("gumbel", (recurrent.VARIABLES, recurrent.CLASSES))
    embed = recurrent.Encode(model)(torch.from_numpy(FRAMES))
    clock = 0

    def noise() -> Tensor:
        nonlocal clock
        clock += 1
        return torch.from_numpy(draw(kind, "stoch", SEED, 0, clock - 1))[None]

    def observed(
        deter: Tensor, stoch: Tensor, action: Tensor | None, frame: int
    ) -> tuple[Tensor, Tensor]:
        if action is not None:
            deter = model.move(deter, stoch, action)
        both = torch.cat([deter, embed[frame : frame + 1]], 1)
        return deter, model.choose(model.posterior(both), noise())[0]

    acted = torch.tensor([[[0.5, -1.0]], [[0.1, 0.2]], [[-0.3, 0.4]]])
    deter, stoch = torch.zeros(1, recurrent.DETER), torch.zeros(1, recurrent.VARIABLES).long()
    deter, stoch = observed(deter, stoch, None, 0)
    deter, stoch = observed(deter, stoch, acted[0], 1)
    session.reset(FRAMES[:2], acted[0].numpy())
    for step in range(6):
        action = acted[step % 3]
        before = deter, stoch
        deter = model.move(deter, stoch, action)
        stoch = model.choose(model.prior(deter), noise())[0]
        frame = session.step(action.numpy())
        np.testing.assert_array_equal(frame, recurrent.Decode(model)(deter, stoch).numpy())
        if step % 2:  # what really came: the state goes back, and takes the real frame in
            deter, stoch = observed(*before, action, 2 + step)
            session.observe(FRAMES[2 + step])
