"""A page, drawn once."""

import pytest

from wmdeploy.benchmarks.render.html import render
from wmdeploy.benchmarks.report import Report


@pytest.fixture(scope="session")
def html(report: Report) -> str:
    return render(report)
