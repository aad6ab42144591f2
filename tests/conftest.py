"""Fixtures: a model small enough to run everything in a moment, real frames, exported bundles."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.plugins import CLASSES
from tests.squares import write_squares
from wmdeploy.bundle import Bundle
from wmdeploy.clips.clip import Clip
from wmdeploy.clips.read import SAMPLE_CLIP, read_clip
from wmdeploy.exporters.export import ExportOptions, export_bundle
from wmdeploy.families import save_model
from wmdeploy.families.find import VARIABLE
from wmdeploy.families.reference.config import TemporalConfig, VQVAEConfig, WorldModelConfig
from wmdeploy.families.reference.world_model import WorldModel
from wmdeploy.manifest import Precision, Weights

GOLDEN = Path(__file__).parent / "golden"
MICRO = WorldModelConfig(
    VQVAEConfig(image_size=32, widths=(8, 16, 16), latent_channels=8, codebook_size=32),
    TemporalConfig(d_model=32, layers=2, heads=2, context=6),
)

Bundles = Callable[..., Bundle]


def pytest_configure(config: pytest.Config) -> None:
    """Tests are of the CPU, wherever they run, but for `pytest -m gpu` (make test-gpu)."""
    if config.getoption("markexpr") != "gpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    reason = "torch finds no NVIDIA GPU here, or it is hidden: make test-gpu"
    for item in items:
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test has a cache of its own: what one left there must not be another's result."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="module")
def plugins() -> Iterator[None]:
    """This process, and those that it starts, know the families of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, ",".join(CLASSES))
        yield


@pytest.fixture(scope="session")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five short clips to train on, (48, 16, 16, 3) each, with actions. Do not write to them."""
    return write_squares(tmp_path_factory.mktemp("squares"))


@pytest.fixture(scope="session")
def micro() -> WorldModel:
    return WorldModel(MICRO).initialize(seed=1).eval().requires_grad_(False)


@pytest.fixture(scope="session")
def micro_actions() -> WorldModel:
    return WorldModel(MICRO.with_actions(3)).initialize(seed=2).eval().requires_grad_(False)


@pytest.fixture
def micro_model(micro: WorldModel, tmp_path: Path) -> Path:
    """The model directory of `micro`."""
    save_model(micro, tmp_path / "micro")
    return tmp_path / "micro"


@pytest.fixture(scope="session")
def clip() -> Clip:
    """40 real frames, (40, 32, 32, 3) uint8, with actions in 0..2."""
    return read_clip(SAMPLE_CLIP, size=32, count=40)


@pytest.fixture(scope="session")
def frames(clip: Clip) -> np.ndarray:
    return clip.frames


@pytest.fixture(scope="session")
def bundles(
    micro: WorldModel, micro_actions: WorldModel, tmp_path_factory: pytest.TempPathFactory
) -> Bundles:
    """bundles(layout, precision, actions, weights): exported once a session; not to be written."""
    root = tmp_path_factory.mktemp("bundles")
    made: dict[tuple[str, str, bool, str], Bundle] = {}

    def get(
        layout: str = "token",
        precision: Precision = "fp32",
        actions: bool = False,
        weights: Weights = "float",
    ) -> Bundle:
        key = (layout, precision, actions, weights)
        if key not in made:
            name = "-".join(map(str, key))
            save_model(micro_actions if actions else micro, root / f"{name}.model")
            options = ExportOptions(
                source=str(root / f"{name}.model"),
                output=root / name,
                clip=SAMPLE_CLIP,
                layout=layout,
                precision=precision,
                weights=weights,
                max_batch=4,
            )
            with pytest.MonkeyPatch.context() as patch:
                quantise_micro(patch)
                made[key], _ = export_bundle(options)
        return made[key]

    return get


def quantise_micro(patch: pytest.MonkeyPatch) -> None:
    """Let an export store weights of the smallest model as integers, the feedforward ones too."""
    patch.setattr("wmdeploy.exporters.quantise.LEAST", 2**12)
    patch.setattr("wmdeploy.exporters.quantise.BLOCK", 32)


def future_pixels(
    model: WorldModel, frames: np.ndarray, horizon: int, actions: np.ndarray | None = None
) -> np.ndarray:
    """The baseline's own answer, (horizon, H, W, 3) uint8."""
    from wmdeploy.families.reference.world_model import to_pixels

    given = None if actions is None else torch.tensor(actions)[None]
    imagined = model.predict_future(torch.tensor(frames)[None], horizon, given)
    return to_pixels(imagined[0]).numpy()
