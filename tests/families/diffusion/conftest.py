"""The golden model, its export, and sessions that draw the recorded noise."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import save_file

from tests.conftest import GOLDEN
from wmdeploy.bundle import Bundle
from wmdeploy.clips.read import SAMPLE_CLIP
from wmdeploy.exporters.export import ExportOptions, export_bundle
from wmdeploy.families.convert import convert
from wmdeploy.families.diffusion.network import DiffusionModel
from wmdeploy.families.find import load_model
from wmdeploy.families.weights import read_safetensors
from wmdeploy.programs import runner
from wmdeploy.programs.contract import Noise

DIAMOND = GOLDEN / "diamond"
CONTEXT = 4


@pytest.fixture(scope="session")
def golden() -> dict[str, np.ndarray]:
    with np.load(DIAMOND / "expected.npz") as file:
        return dict(file)


@pytest.fixture(scope="session")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The golden weights as a model directory, from a checkpoint as the authors save it."""
    folder = tmp_path_factory.mktemp("diamond")
    state = read_safetensors(DIAMOND / "weights.safetensors")
    state["actor_critic.encoder.weight"] = state["rew_end_model.act_emb.weight"].clone()
    save_file(state, folder / "agent.safetensors")
    convert(folder / "agent.safetensors", "diffusion", folder / "model")
    return folder / "model"


@pytest.fixture(scope="session")
def model(converted: Path) -> DiffusionModel:
    found = load_model(converted)
    assert isinstance(found, DiffusionModel)
    return found


@pytest.fixture(scope="session")
def bundle(converted: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    output = tmp_path_factory.mktemp("bundles") / "diamond"
    return export_bundle(ExportOptions(source=str(converted), output=output, clip=SAMPLE_CLIP))[0]


class Recorded:
    """What the authors' code drew, as `wmdeploy.programs.noise.draw` gives it.

    Attributes:
        ticks: of a row's clock for each frame; a real frame in place of a prediction is one more.
    """

    def __init__(self, golden: dict[str, np.ndarray]) -> None:
        self.ticks = 1
        self._arrays = {
            "x": golden["noise"],
            "reward": golden["gumbel_reward"],
            "end": golden["gumbel_end"],
        }

    def draw(self, noise: Noise, name: str, seed: int, stream: int, frame: int) -> np.ndarray:
        at, absorbs = divmod(frame - CONTEXT, self.ticks)
        if at < 0 or absorbs:  # what a real frame draws decides nothing
            return np.zeros(noise.shape, np.float32)
        return self._arrays[name][at, stream].astype(np.float32)


@pytest.fixture
def recorded(golden: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch) -> Recorded:
    """Sessions draw what the authors' code drew."""
    made = Recorded(golden)
    monkeypatch.setattr(runner, "draw", made.draw)
    return made
