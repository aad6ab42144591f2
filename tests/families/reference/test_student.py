"""A student decoder: its shapes, its graph in both layouts, and the weights it belongs to."""

import dataclasses
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.conftest import MICRO
from wmdeploy.errors import CheckpointError, TrainingError, WmdeployError
from wmdeploy.families import load_family, load_model, save_model
from wmdeploy.families.directory import WEIGHTS_FILE
from wmdeploy.families.find import SHIPPED
from wmdeploy.families.reference.config import PRESETS, StudentConfig, student_config
from wmdeploy.families.reference.distillation import weights_digest, with_student
from wmdeploy.families.reference.graphs import deployment
from wmdeploy.families.reference.student import Student
from wmdeploy.families.reference.student_graph import GraphStudent
from wmdeploy.families.reference.world_model import WorldModel


@pytest.fixture(scope="module")
def taught(micro: WorldModel) -> WorldModel:
    return with_student(micro, "lite", seed=5)


@pytest.mark.parametrize("preset", ["tiny", "small", "reference"])
@pytest.mark.parametrize("name", ["lite", "tiny"])
def test_a_student_makes_frames_with_far_fewer_operations(preset: str, name: str) -> None:
    sizes = PRESETS[preset]
    config = dataclasses.replace(sizes, student=student_config(name, sizes.vqvae, "0"))
    with torch.device("meta"):
        model = WorldModel(config)
        assert model.student is not None
        made = model.student(torch.empty(2, *sizes.vqvae.latent_shape))
    side = sizes.vqvae.image_size
    assert made.shape == (2, 3, side, side)
    graphs = deployment(WorldModel(config), "token", "fp32").graphs if preset == "tiny" else {}
    for graph in (f"decoder-{name}",) if graphs else ():
        assert 8 * graphs[graph]().operations() < graphs["decoder"]().operations()


def test_a_student_has_neither_norms_nor_attention(taught: WorldModel) -> None:
    assert taught.student is not None
    kinds = {type(module).__name__ for module in taught.student.modules()}
    assert kinds == {"Student", "Conv2d", "Sequential", "ReLU", "StudentBlock", "PixelShuffle"}


def test_both_layouts_of_a_student_give_the_same_frames(taught: WorldModel) -> None:
    assert taught.student is not None
    hidden = torch.randn(3, MICRO.temporal.d_model, generator=torch.Generator().manual_seed(0))
    latent = taught.temporal_model.output_proj(hidden)
    token, plain = (deployment(taught, layout, "fp32") for layout in ("token", "latent"))
    folded = token.graphs["decoder-lite"]().module
    assert isinstance(folded, GraphStudent)
    expected = plain.graphs["decoder-lite"]().module(latent)
    assert expected.shape == (3, 32, 32, 3) and expected.float().std() > 1
    assert (folded(hidden).int() - expected.int()).abs().max() <= 1
    small = taught.student.squeeze(latent.unflatten(1, MICRO.vqvae.latent_shape))
    torch.testing.assert_close(folded.squeeze(hidden), small.flatten(1), rtol=1e-4, atol=1e-5)


def test_a_student_is_saved_with_its_model(taught: WorldModel, tmp_path: Path) -> None:
    save_model(taught, tmp_path / "model")
    loaded = load_model(tmp_path / "model")
    assert loaded.config == taught.config
    for name, tensor in taught.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name


def test_a_student_of_other_weights_is_refused(taught: WorldModel, tmp_path: Path) -> None:
    save_model(taught, tmp_path / "model")
    path = tmp_path / "model" / WEIGHTS_FILE
    state = load_file(path)
    state["vqvae.decoder.conv_out.bias"] += 1e-3
    save_file(state, path)
    with pytest.raises(CheckpointError, match=r"student decoder is of the weights .*distil"):
        load_model(tmp_path / "model")


def test_teaching_again_takes_the_place_of_a_student(taught: WorldModel) -> None:
    again = with_student(taught, "tiny", seed=0)
    assert again.config.student is not None and again.config.student.name == "tiny"
    assert weights_digest(again) == weights_digest(taught)
    assert isinstance(again.student, Student) and again.student.config.name == "tiny"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "huge"}, "student.name: got huge, expected lite or tiny"),
        ({"widths": ()}, "student.widths"),
        ({"widths": (8, 0)}, "student.widths: got 0"),
        ({"latent_channels": -1}, "student.widths: got -1"),
    ],
)
def test_sizes_that_no_student_has_are_refused(changes: dict[str, object], message: str) -> None:
    sizes = {"name": "lite", "latent_channels": 8, "widths": (8, 8), "model": "0"}
    with pytest.raises(CheckpointError, match=message):
        StudentConfig(**{**sizes, **changes})  # type: ignore[arg-type]


def test_a_student_of_another_depth_is_refused() -> None:
    student = StudentConfig(name="lite", latent_channels=8, widths=(8,), model="0")
    with pytest.raises(CheckpointError, match=r"student.widths: got \(8,\), expected 2 widths"):
        dataclasses.replace(MICRO, student=student)


def test_an_unknown_decoder_is_refused_with_those_that_there_are(
    micro: WorldModel, taught: WorldModel
) -> None:
    with pytest.raises(CheckpointError, match="decoder: got 'huge', expected one of lite, tiny"):
        with_student(micro, "huge", 0)
    with pytest.raises(WmdeployError, match="decoder: got 'tiny', expected one of full, lite$"):
        deployment(taught, "token", "fp32").with_decoder("tiny")
    with pytest.raises(WmdeployError, match="expected one of full; .*distill"):
        deployment(micro, "token", "fp32").with_decoder("lite")


@pytest.mark.parametrize("name", sorted(SHIPPED.keys() - {"vqvae-transformer"}))
def test_a_family_without_students_refuses(name: str) -> None:
    with pytest.raises(TrainingError, match=f"family {name}: its models have no students"):
        load_family(name).distillation("decoder")
