"""Models that predict the change of the latent: folded exactly, exported, run, rendered."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.conftest import MICRO, future_pixels
from tests.test_engines import assert_same_pixels, modules
from tests.test_session import static_engines
from wmdeploy.bundle import Bundle
from wmdeploy.clips.clip import Clip
from wmdeploy.clips.read import SAMPLE_CLIP
from wmdeploy.engines.base import load_backend
from wmdeploy.engines.pytorch.eager import baseline
from wmdeploy.engines.session import Session
from wmdeploy.exporters.export import ExportOptions, export_bundle
from wmdeploy.manifest import Layout, Precision
from wmdeploy.models.checkpoint import load_model, save_model
from wmdeploy.models.graphs import Feedback
from wmdeploy.models.world_model import WorldModel

S = MICRO.temporal.context
Exported = Callable[[Layout, Precision], Bundle]


@pytest.fixture(scope="module")
def model() -> WorldModel:
    made = WorldModel(MICRO.with_actions(3).with_residual(True)).initialize(seed=4)
    with torch.no_grad():
        made.temporal_model.output_proj.weight.mul_(4)  # changes that can be seen
    return made.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def exported(model: WorldModel, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    root = tmp_path_factory.mktemp("residual")
    save_model(model, root / "model")
    made: dict[tuple[str, str], Bundle] = {}

    def get(layout: Layout, precision: Precision) -> Bundle:
        if (layout, precision) not in made:
            output = root / f"{layout}-{precision}"
            options = ExportOptions(
                str(root / "model"), output, SAMPLE_CLIP, layout, precision, max_batch=4
            )
            made[layout, precision] = export_bundle(options)[0]
        return made[layout, precision]

    return get


def baseline_frames(model: WorldModel, clip: Clip, context: int, horizon: int) -> np.ndarray:
    assert clip.actions is not None
    taken = clip.actions[: context + horizon - 1]
    return future_pixels(model, clip.frames[:context], horizon, taken)


def roll(session: Session, clip: Clip, context: int, horizon: int) -> np.ndarray:
    assert clip.actions is not None
    session.reset(clip.frames[:context], clip.actions[: context - 1])
    taken = clip.actions[context - 1 : context - 1 + horizon]
    return np.concatenate([session.step(int(action)) for action in taken])


def test_next_latent_is_the_latent_and_what_is_projected(model: WorldModel) -> None:
    latents = torch.randn(1, 3, MICRO.vqvae.latent_values)
    actions = torch.tensor([[0, 1, 2]])
    temporal = model.temporal_model
    hidden = temporal.contextualize(temporal.latent_proj(latents), actions)
    expected = latents + hidden @ temporal.output_proj.weight.t()
    torch.testing.assert_close(temporal(latents, actions), expected)


def test_feedback_is_what_is_added_to_the_token(model: WorldModel) -> None:
    temporal = model.temporal_model
    hidden = torch.randn(5, MICRO.temporal.d_model)
    latents = torch.randn(5, MICRO.vqvae.latent_values)
    expected = temporal.latent_proj(temporal.predict(hidden, latents))
    folded = temporal.latent_proj(latents) + Feedback(model)(hidden)
    torch.testing.assert_close(folded, expected, rtol=1e-4, atol=1e-5)


def test_directory_gives_the_model_back(model: WorldModel, tmp_path: Path) -> None:
    save_model(model, tmp_path / "model")
    again = load_model(tmp_path / "model")
    assert again.config.temporal.residual
    assert "temporal_model.output_proj.bias" not in again.state_dict()


@pytest.mark.parametrize("layout", ["token", "latent"])
@pytest.mark.parametrize("context", [1, 4, S + 2])
def test_rollout_is_the_baselines(
    model: WorldModel, clip: Clip, layout: Layout, context: int
) -> None:
    horizon = 3 * S  # far past the window
    expected = baseline_frames(model, clip, context, horizon)
    assert np.abs(expected[0].astype(int) - expected[-1]).mean() > 1  # it moves
    for backend in (baseline(model), modules(model, layout), static_engines(model, layout)):
        assert_same_pixels(roll(Session(backend), clip, context, horizon), expected)


@pytest.mark.parametrize("layout", ["token", "latent"])
def test_real_frames_are_built_on_when_they_come(
    model: WorldModel, clip: Clip, layout: Layout
) -> None:
    """Row 1 sees two real frames in the middle of its rollout, row 0 goes on from its own."""
    assert clip.actions is not None
    alone, told = (Session(modules(model, layout)) for _ in range(2))
    expected = roll(alone, clip, 4, 8)
    session = Session(modules(model, layout), batch=2)
    session.reset(clip.frames[:4], clip.actions[:3])
    for t in range(3):
        session.step(int(clip.actions[3 + t]))
    session.observe(clip.frames[6], rows=[1])
    session.observe(clip.frames[7], action=int(clip.actions[6]), rows=[1])
    told.reset(clip.frames[:4], clip.actions[:3])
    for t in range(3):
        told.step(int(clip.actions[3 + t]))
    told.observe(clip.frames[6])
    told.observe(clip.frames[7], action=int(clip.actions[6]))
    before = session.snapshot()
    for _ in range(2):
        actions = np.array([clip.actions[6], clip.actions[7]])
        frames = session.step(actions)
        assert_same_pixels(frames[:1], expected[3:4])
        frames = session.step(np.array([clip.actions[7], clip.actions[8]]))
        assert_same_pixels(frames[:1], expected[4:5])
        session.restore(before)
    wanted = told.step(int(clip.actions[7]))
    assert_same_pixels(session.step(actions)[1:], wanted)


def test_two_sessions_share_one_backend(model: WorldModel, clip: Clip) -> None:
    assert clip.actions is not None
    expected = roll(Session(modules(model)), clip, 4, 6)
    backend = static_engines(model, "token")
    one, other = Session(backend), Session(backend)
    one.reset(clip.frames[:4], clip.actions[:3])
    other.reset(clip.frames[9:12], clip.actions[9:11])
    for t in range(6):
        one.advance(int(clip.actions[3 + t]))
        other.step(0)
        assert_same_pixels(one.render(), expected[t : t + 1])


@pytest.mark.parametrize(
    ("name", "layout"), [("ort-cpu", "token"), ("ort-cpu", "latent"), ("compile", "token")]
)
def test_bundle_imagines_what_the_baseline_imagines(
    exported: Exported, model: WorldModel, clip: Clip, name: str, layout: Layout
) -> None:
    session = Session(load_backend(name, exported(layout, "fp32")))
    expected = baseline_frames(model, clip, 4, 2 * S)
    assert_same_pixels(roll(session, clip, 4, 2 * S), expected)


@pytest.mark.parametrize("layout", ["token", "latent"])
def test_float16_adds_up_in_float32(
    exported: Exported, model: WorldModel, clip: Clip, layout: Layout
) -> None:
    bundle = exported(layout, "fp16")
    fed_back = {bundle.manifest.wiring.feedback, "next_drift"}
    specs = bundle.manifest.graphs["step"].outputs
    assert {spec.dtype for spec in specs if spec.name in fed_back} == {"float32"}
    session = Session(load_backend("ort-cpu", bundle))
    expected = baseline_frames(model, clip, 4, 4 * S)
    got = roll(session, clip, 4, 4 * S)
    error = np.square(got.astype(float) - expected).mean((1, 2, 3))
    assert 10 * np.log10(255**2 / error.max()) > 40


def test_plans_are_built(exported: Exported, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed: the extra rtx")
    import shutil

    from wmdeploy.engines.trt.plans import BuildOptions, build_plans

    shutil.copytree(exported("token", "fp16").path, tmp_path / "bundle")
    results = build_plans(BuildOptions(bundle=tmp_path / "bundle", architectures=("sm_89",)))
    assert [record.graph for record, _ in results] == ["encoder", "prefill", "step", "decoder"]
