"""A profile of a small bundle, made once."""

from collections.abc import Iterable, Iterator

import pytest

from tests.benchmarks.conftest import CEILINGS
from tests.conftest import Bundles
from wmdeploy.benchmarks.environment import Ceilings
from wmdeploy.benchmarks.profile import run
from wmdeploy.benchmarks.profile.document import Profile
from wmdeploy.benchmarks.profile.run import ProfileOptions, profile
from wmdeploy.clips.read import SAMPLE_CLIP

RUNS = 7


@pytest.fixture(autouse=True, scope="package")
def known_ceilings() -> Iterator[None]:
    """Measuring a machine takes seconds."""

    def constant(devices: Iterable[str], tf32: bool, progress: object) -> dict[str, Ceilings]:
        return dict.fromkeys(devices, CEILINGS)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "ceilings_of", constant)
        yield


@pytest.fixture(scope="package")
def profiled(bundles: Bundles, known_ceilings: None) -> Profile:
    """Of `ort-cpu`, all graphs."""
    return profile(ProfileOptions(bundle=bundles().path, clip=SAMPLE_CLIP, runs=RUNS))
