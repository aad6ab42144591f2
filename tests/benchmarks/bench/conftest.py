"""No bench in these tests measures the machine."""

import pytest


@pytest.fixture(scope="module", autouse=True)
def ceilings(constant_ceilings: None) -> None:
    pass
