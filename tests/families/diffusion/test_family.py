"""The diffusion family: files, sizes, precisions, and its denoising steps."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.families.diffusion.conftest import DIAMOND
from wmdeploy.bundle import Bundle
from wmdeploy.clips.read import SAMPLE_CLIP
from wmdeploy.engines.base import load_backend
from wmdeploy.errors import BackendError, CheckpointError, ExportError
from wmdeploy.exporters.export import ExportOptions, export_bundle
from wmdeploy.families.convert import convert
from wmdeploy.families.diffusion import graphs
from wmdeploy.families.diffusion.config import PRESETS
from wmdeploy.families.diffusion.family import DiffusionFamily
from wmdeploy.families.diffusion.network import AdaptiveGroupNorm, DiffusionModel
from wmdeploy.families.directory import parse_config
from wmdeploy.families.find import load_model
from wmdeploy.families.weights import read_safetensors
from wmdeploy.programs.modules import module_backend
from wmdeploy.programs.session import Session

FAMILY = DiffusionFamily()
TINY = PRESETS["tiny"]
CONV_IN = "denoiser.inner_model.conv_in.weight"


@pytest.fixture
def state() -> dict[str, Tensor]:
    return read_safetensors(DIAMOND / "weights.safetensors")


def conversion(state: dict[str, Tensor], folder: Path) -> Path:
    save_file(state, folder / "agent.safetensors")
    convert(folder / "agent.safetensors", "diffusion", folder / "model")
    return folder / "model"


def test_converted_weights_are_the_authors_by_name(
    converted: Path, state: dict[str, Tensor]
) -> None:
    loaded = load_model(converted).state_dict()
    assert loaded.keys() == state.keys()
    assert all(torch.equal(loaded[name], state[name]) for name in state)


def test_published_sizes_are_read_of_their_tensors(tmp_path: Path) -> None:
    config = dataclasses.replace(PRESETS["diamond"], num_actions=9)
    with torch.device("meta"):
        shapes = FAMILY.build(config).state_dict()
    found, _ = FAMILY.convert({f"agent.{name}": tensor for name, tensor in shapes.items()})
    assert found == config


def test_published_sizes_are_the_published_parameters() -> None:
    with torch.device("meta"):
        model = FAMILY.build(PRESETS["diamond"])
    facts = FAMILY.facts(model)
    assert facts.parameters["all"] == 10_306_819
    assert (facts.image_size, facts.num_actions) == (64, 4)


def without(name: str) -> Any:
    return lambda state: state.pop(name)


def reshaped(name: str, *shape: int) -> Any:
    return lambda state: state.update({name: torch.zeros(shape)})


REFUSED = {
    "another family": (lambda state: state.pop(CONV_IN), "expected a checkpoint that DIAMOND's"),
    "an upsampler": (reshaped("upsampler.conv_in.weight", 2), "models with an upsampler"),
    "no embedding": (without("rew_end_model.act_emb.weight"), "act_emb.weight' .* is missing"),
    "no layer": (without("denoiser.inner_model.conv_out.bias"), 'conv_out.bias" is missing'),
    "two axes": (reshaped("rew_end_model.act_emb.weight", 6), r"got shape \(6,\), expected 2 axes"),
    "another width": (reshaped(CONV_IN, 32, 12, 3, 3), r"got shape \(32, 12, 3, 3\), expected"),
    "more rewards": (reshaped("rew_end_model.head.2.weight", 7, 32), "got 7 logits"),
    "no channels": (
        reshaped("rew_end_model.encoder.blocks.2.resblocks.0.conv1.bias", 0),
        "reward_channels: got",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_checkpoint_of_diamond_is_refused_in_a_line(
    case: str, state: dict[str, Tensor], tmp_path: Path
) -> None:
    change, message = REFUSED[case]
    change(state)
    with pytest.raises(CheckpointError, match=message) as refusal:
        conversion(state, tmp_path)
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"image_size": 33}, "image_size: got 33, expected a multiple of 2"),
        ({"num_actions": 0}, "num_actions: got 0"),
        ({"cond": 62}, "cond: got 62"),
        ({"depths": (1,)}, "depths: got"),
        ({"channels": (32, 36)}, "channels: got 36"),
        ({"channels": (56, 56)}, "channels: got 112"),
        ({"reward_channels": ()}, "reward_channels: got"),
        ({"reward_depths": (1, 1, 0)}, "reward_depths: got"),
        ({"steps": 65}, "steps: got 65"),
        ({"sigma_min": 6.0}, "sigma_min: got 6.0"),
        ({"sigma_max": float("nan")}, "sigma_min: got"),
        ({"sigma_data": 0.0}, "sigma_data: got"),
        ({"sigma_offset": -1.0}, "sigma_offset: got"),
        ({"rho": 0}, "rho: got 0"),
    ],
)
def test_sizes_that_no_model_has_are_refused(sizes: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        dataclasses.replace(TINY, **sizes)


@pytest.mark.parametrize("steps", [1, 4])
def test_graphs_sample_as_the_authors_in_any_number_of_steps(steps: int) -> None:
    """Also for a context of 2, another width at each resolution, and a single block."""
    config = dataclasses.replace(
        TINY, image_size=16, context=2, channels=(16, 32), attention=(True, False), steps=steps
    )
    model = FAMILY.initialized(config, 1)
    assert isinstance(model, DiffusionModel)
    rows = np.random.default_rng(0).integers(0, 256, (2, 2, 16, 16, 3), np.uint8)
    frames = []
    for deployed in (
        FAMILY.deployment(model, "default", "fp32"),
        FAMILY.baseline_deployment(model, "fp32"),
    ):
        session = Session(module_backend(deployed, name="modules"), batch=2)
        session.reset(rows, np.array([[1], [2]]))
        frames.append(np.stack([session.step(np.array([3, at])) for at in range(3)]))
    difference = np.abs(frames[0].astype(int) - frames[1])
    assert (difference > 0).mean() < 1e-2
    assert difference.max() <= 2
    assert frames[0].std() > 2


@pytest.mark.parametrize("name", ["denoise", "reward_end"])
def test_exported_graphs_compute_norms_as_instances_of_the_same_tensors(
    model: DiffusionModel, name: str
) -> None:
    exported = [type(part) for part in graphs.EXPORTED[name](model).modules()]
    assert graphs.InstanceNorm in exported and AdaptiveGroupNorm not in exported
    published = [part for graph in graphs.PUBLISHED.values() for part in graph(model).modules()]
    assert graphs.InstanceNorm not in map(type, published)


def test_actions_and_frames_before_change_what_is_imagined(model: DiffusionModel) -> None:
    backend = module_backend(FAMILY.deployment(model, "default", "fp32"), name="modules")
    rows = np.random.default_rng(0).integers(0, 256, (3, 4, 32, 32, 3), np.uint8)
    rows[1:] = rows[0]
    rows[2, 0] = 255 - rows[2, 0]  # the oldest of its four frames
    session = Session(backend, batch=3)
    session._pool._rollouts.set_streams(np.arange(3), [0, 0, 0])
    session.reset(rows, np.array([[1, 1, 1], [4, 1, 1], [1, 1, 1]]))
    first, acted, seen = session.step(0)
    assert (first != acted).any()
    assert (first != seen).any()


@pytest.mark.slow
def test_a_wrong_noise_level_is_found_at_export(
    converted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each graph gives what its module gives; the authors' frame is another one."""
    init = graphs.Levels.__init__

    def shifted(self: graphs.Levels, model: DiffusionModel) -> None:
        init(self, model)
        self.factors = self.factors.roll(1, 0)

    monkeypatch.setattr(graphs.Levels, "__init__", shifted)
    with pytest.raises(ExportError, match=r"frame \d of a rollout: it is .* dB from"):
        export_bundle(
            ExportOptions(source=str(converted), output=tmp_path / "bundle", clip=SAMPLE_CLIP)
        )
    assert not (tmp_path / "bundle").exists()


def test_a_bundle_holds_its_sizes_and_runs_eagerly(bundle: Bundle, model: DiffusionModel) -> None:
    assert bundle.manifest.family == "diffusion"
    assert parse_config(FAMILY, bundle.manifest.model) == TINY
    frames = np.zeros((4, 32, 32, 3), np.uint8)
    for name in ("eager", "ort-cpu"):
        session = Session(load_backend(name, bundle))
        session.reset(frames, np.zeros(3, np.int64))
        assert session.step(0).shape == (1, 32, 32, 3)
        assert session.outputs()["reward"][0] in (-1, 0, 1)


@pytest.mark.slow
def test_float16_keeps_what_decides_in_float32(converted: Path, tmp_path: Path) -> None:
    """The export compares float16 graphs with float32 modules, and with the authors' frames."""
    options = ExportOptions(
        source=str(converted), output=tmp_path / "half", clip=SAMPLE_CLIP, precision="fp16"
    )
    manifest = export_bundle(options)[0].manifest
    outputs = {spec.name: spec.dtype for g in manifest.graphs.values() for spec in g.outputs}
    assert outputs["past"] == "float16"
    names = ("signal", "clean", "next_noisy", "reward_logits", "end_logits", "next_h", "next_c")
    assert {outputs[name] for name in names} == {"float32"}
    assert manifest.graphs["euler"].parity["next_noisy"].max_abs < 1e-5


def test_a_refill_below_what_a_frame_needs_is_refused(model: DiffusionModel) -> None:
    backend = module_backend(FAMILY.deployment(model, "default", "fp32"), name="modules")
    with pytest.raises(BackendError, match="refill: got 2, expected none"):
        Session(backend, refill=2)
