"""The diffusion family beside numbers of the authors' own code; see tests/golden/diamond."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from tests.families.diffusion.conftest import CONTEXT, Recorded
from wmdeploy.bundle import Bundle
from wmdeploy.engines.base import load_backend
from wmdeploy.families.diffusion.family import DiffusionFamily
from wmdeploy.families.diffusion.network import DiffusionModel, SelfAttention
from wmdeploy.programs.engine import Backend
from wmdeploy.programs.modules import module_backend
from wmdeploy.programs.session import Session
from wmdeploy.psnr import IDENTICAL_DB, psnr

Golden = dict[str, np.ndarray]
FAMILY = DiffusionFamily()
BACKENDS = ("published", "modules", "ort-cpu")
ROWS = 2


@dataclass(frozen=True)
class Rollout:
    """What two rows imagined: frames (T, 2, H, W, 3), and outputs by name, (T, 2, ...)."""

    frames: np.ndarray
    outputs: dict[str, np.ndarray]

    def decibels(self, expected: np.ndarray) -> np.ndarray:
        """(T, 2), `IDENTICAL_DB` where a frame is equal bit for bit."""
        errors = np.square(self.frames.astype(np.float64) - expected).mean((2, 3, 4))
        return np.vectorize(psnr)(errors)


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest, model: DiffusionModel) -> Iterator[Backend]:
    if request.param == "published":
        yield module_backend(FAMILY.baseline_deployment(model, "fp32"), name="published")
    elif request.param == "modules":
        yield module_backend(FAMILY.deployment(model, "default", "fp32"), name="modules")
    else:
        bundle: Bundle = request.getfixturevalue("bundle")
        yield load_backend("ort-cpu", bundle)


def imagine(backend: Backend, golden: Golden, count: int, forced: bool) -> Rollout:
    session = Session(backend, batch=ROWS)
    session.reset(golden["first"], golden["actions"][:, : CONTEXT - 1])
    frames, outputs = [], []
    for at in range(count):
        frames.append(session.step(golden["actions"][:, CONTEXT - 1 + at]))
        outputs.append(session.outputs())
        if forced:
            session.observe(golden["frames"][at])
    names = outputs[0].keys()
    return Rollout(np.stack(frames), {n: np.stack([o[n] for o in outputs]) for n in names})


def check_outputs(rollout: Rollout, golden: Golden, tolerance: float) -> None:
    count = len(rollout.frames)
    for name in ("reward", "end"):
        np.testing.assert_array_equal(rollout.outputs[name], golden[name][:count])
    logits = np.concatenate(
        [rollout.outputs["reward_logits"], rollout.outputs["end_logits"]], axis=2
    )
    np.testing.assert_allclose(logits, golden["logits"][:count], rtol=0, atol=tolerance)


def test_frames_after_the_authors_own_are_theirs(
    backend: Backend, golden: Golden, recorded: Recorded
) -> None:
    """All 40 of both rows; which are equal bit for bit is a matter of the CPU's order of sums."""
    recorded.ticks = 2
    rollout = imagine(backend, golden, 40, forced=True)
    decibels = rollout.decibels(golden["frames"])
    assert decibels.min() >= 75
    assert (decibels == IDENTICAL_DB).sum() >= 70
    check_outputs(rollout, golden, 2e-3)


def test_eight_free_frames_are_the_authors(
    backend: Backend, golden: Golden, recorded: Recorded
) -> None:
    rollout = imagine(backend, golden, 8, forced=False)
    decibels = rollout.decibels(golden["frames"][:8])
    assert decibels.min() >= 60
    assert decibels[0].min() >= 80
    check_outputs(rollout, golden, 2e-2)


def test_a_sum_with_the_input_of_attention_is_not_the_authors(
    model: DiffusionModel, golden: Golden, recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As most write it, and as a reader of the paper would."""
    forward = SelfAttention.forward

    def usual(self: SelfAttention, x: torch.Tensor) -> torch.Tensor:
        return forward(self, x) - self.norm(x) + x

    monkeypatch.setattr(SelfAttention, "forward", usual)
    published = module_backend(FAMILY.baseline_deployment(model, "fp32"), name="published")
    rollout = imagine(published, golden, 1, forced=False)
    assert rollout.decibels(golden["frames"][:1]).max() < 60


def test_golden_sizes_are_those_of_tiny(model: DiffusionModel) -> None:
    assert model.config == FAMILY.presets["tiny"]
