"""Fixtures of the benchmarks' tests: a made report, a model whose codes tie, known ceilings."""

from collections.abc import Iterable, Iterator

import numpy as np
import pytest

from tests.benchmarks.made_reports import made_report
from tests.conftest import Bundles
from tests.families.reference.ties import PICTURES, Tied, rounding, tied_bundle, tied_model
from wmdeploy.benchmarks.bench import run
from wmdeploy.benchmarks.environment import Ceilings
from wmdeploy.benchmarks.report import Report
from wmdeploy.bundle import Bundle
from wmdeploy.families.reference.world_model import WorldModel

CEILINGS = Ceilings(10.0, 100.0, 1)


@pytest.fixture(scope="session")
def report() -> Report:
    """Of three backends and two clips."""
    return made_report()


@pytest.fixture(scope="module")
def constant_ceilings() -> Iterator[None]:
    """Measuring a machine takes seconds, and its speed matters in `test_machine.py` alone."""

    def constant(devices: Iterable[str], tf32: bool, progress: object) -> dict[str, Ceilings]:
        return dict.fromkeys(devices, CEILINGS)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "ceilings_of", constant)
        yield


@pytest.fixture(scope="session")
def pictures() -> np.ndarray:
    """(4, 32, 32, 3), no two alike."""
    return PICTURES


@pytest.fixture(scope="session")
def tied(micro: WorldModel) -> Tied:
    """A model of which one code of the second picture ties."""
    return tied_model(micro, PICTURES[1], 0.5 * rounding(micro, PICTURES[1]))


@pytest.fixture(scope="session")
def tie_bundle(tied: Tied, bundles: Bundles, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Its bundle, whose encoder chooses the other code. Do not write to it."""
    return tied_bundle(tied, bundles(), tmp_path_factory.mktemp("tied") / "bundle")
