"""Models of the recurrent family whose states differ clearly, and their bundles."""

from pathlib import Path

import numpy as np
import pytest
import torch

from wmdeploy.bundle import Bundle
from wmdeploy.clips.clip import Clip
from wmdeploy.clips.read import SAMPLE_CLIP, read_clip
from wmdeploy.clips.write import write_npz
from wmdeploy.exporters.export import ExportOptions, export_bundle
from wmdeploy.families import load_family, load_model, save_model
from wmdeploy.families.recurrent.config import RecurrentConfig
from wmdeploy.families.recurrent.network import RecurrentModel
from wmdeploy.manifest import Precision

FLOATS = RecurrentConfig(
    image_size=16, depth=4, deter=24, hidden=20, units=16, variables=4, classes=4, action_size=2
)


def as_if_trained(model: torch.nn.Module) -> RecurrentModel:
    """Initial weights draw nearly evenly, and begin from zeros: an error would not show."""
    assert isinstance(model, RecurrentModel)
    torch.manual_seed(3)
    for layer in (model.dynamics._imgs_stat_layer, model.dynamics._obs_stat_layer):
        layer.weight.mul_(5)
    model.dynamics.W.normal_()
    for tensor in model.parameters():
        if tensor.ndim == 1:  # norms and biases
            tensor.add_(0.1 * torch.randn_like(tensor))
    return model


@pytest.fixture(scope="session")
def model() -> RecurrentModel:
    return as_if_trained(load_model("tiny", 1, family="recurrent"))


@pytest.fixture(scope="session")
def clip() -> Clip:
    return read_clip(SAMPLE_CLIP, size=64, count=72)


def exported(
    model: RecurrentModel, folder: Path, clip: Path = SAMPLE_CLIP, precision: Precision = "fp32"
) -> Bundle:
    save_model(model, folder / "model")
    options = ExportOptions(
        source=str(folder / "model"), output=folder / "bundle", clip=clip, precision=precision
    )
    return export_bundle(options)[0]


@pytest.fixture(scope="session")
def bundle(model: RecurrentModel, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return exported(model, tmp_path_factory.mktemp("integers"))


@pytest.fixture(scope="session")
def half(model: RecurrentModel, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return exported(model, tmp_path_factory.mktemp("half"), precision="fp16")


@pytest.fixture(scope="session")
def floats_model() -> RecurrentModel:
    return as_if_trained(load_family("recurrent").initialized(FLOATS, 2))


@pytest.fixture(scope="session")
def floats_clip(tmp_path_factory: pytest.TempPathFactory) -> Clip:
    path = tmp_path_factory.mktemp("clips") / "floats.npz"
    actions = np.random.default_rng(0).normal(size=(72, 2)).astype(np.float32)
    write_npz(path, read_clip(SAMPLE_CLIP, size=16, count=72).frames, actions)
    return read_clip(path, size=16, count=72)


@pytest.fixture(scope="session")
def floats_bundle(
    floats_model: RecurrentModel, floats_clip: Clip, tmp_path_factory: pytest.TempPathFactory
) -> Bundle:
    folder = tmp_path_factory.mktemp("floats")
    write_npz(folder / "clip.npz", floats_clip.frames, floats_clip.actions)
    return exported(floats_model, folder, folder / "clip.npz")
