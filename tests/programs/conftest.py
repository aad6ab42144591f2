"""The families at hand as backends: their modules in PyTorch, and their exports on ONNX Runtime."""

from collections.abc import Callable

import pytest

from tests.conftest import Bundles
from tests.lean.make_bundles import float_clip
from tests.plugins import PRESETS
from wmdeploy.clips.read import SAMPLE_CLIP
from wmdeploy.engines.base import load_backend
from wmdeploy.exporters.export import ExportOptions, export_bundle
from wmdeploy.families import family_of, load_model
from wmdeploy.families.reference.world_model import WorldModel
from wmdeploy.programs.engine import Backend
from wmdeploy.programs.modules import module_backend

Backends = Callable[[str], Backend]


@pytest.fixture(scope="module")
def backends(
    plugins: None,
    micro_actions: WorldModel,
    bundles: Bundles,
    tmp_path_factory: pytest.TempPathFactory,
) -> Backends:
    """By a name such as "sampled", "token" (of the reference family), "sampled on ort-cpu"."""
    made: dict[str, Backend] = {}

    def get(name: str) -> Backend:
        if name not in made:
            family, _, backend = name.partition(" on ")
            if family in ("token", "latent"):
                deployed = family_of(micro_actions).deployment(micro_actions, family, "fp32")
                made[name] = module_backend(deployed, name="pytorch")
                if backend:
                    made[name] = load_backend(backend, bundles(family, actions=True))
            else:
                model = load_model(PRESETS[family], family=family)
                deployed = family_of(model).deployment(model, "default", "fp32")
                made[name] = module_backend(deployed, name="pytorch")
                if backend:
                    path = tmp_path_factory.mktemp("families") / family
                    floats = path.with_name("floats.npz")
                    clip = float_clip(floats) if family == "recurrent-like" else SAMPLE_CLIP
                    options = ExportOptions(
                        source=PRESETS[family], family=family, output=path, clip=clip
                    )
                    made[name] = load_backend(backend, export_bundle(options)[0])
        return made[name]

    return get
