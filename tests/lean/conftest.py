"""The environment without torch: `make test-lean`."""

import importlib.util
from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--bundles", help="folder that tests.lean.make_bundles has written")


@pytest.fixture(scope="session")
def bundles(request: pytest.FixtureRequest) -> Path:
    folder = request.config.getoption("--bundles", default=None)
    if folder is None:
        pytest.skip("without bundles: run make test-lean")
    return Path(folder)


@pytest.fixture(autouse=True)
def no_torch() -> None:
    if importlib.util.find_spec("torch") is not None:
        pytest.skip("torch is installed here: run make test-lean")
