"""The lowest versions that CI runs with are the lower bounds of pyproject.toml."""

import re
import tomllib

from tests.cli.test_cli import ROOT

# `make test-lowest` installs neither what needs a GPU, nor Ray, nor the tools that judge the code
OTHERS = ("gpu", "ray", "rtx", "tensorrt")
TOOLS = ("build", "mypy", "playwright", "pre-commit", "ruff", "types-protobuf", "types-psutil")


def test_lowest_versions_are_the_bounds_of_pyproject() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    asked = [*project["dependencies"]]
    asked += [line for name, lines in extras.items() if name not in OTHERS for line in lines]
    bounds = [line.replace(">=", "==") for line in asked if line.split(">=")[0] not in TOOLS]
    assert all(re.fullmatch(r"[a-z0-9-]+==[0-9.]+", line) for line in bounds), bounds
    lines = (ROOT / "constraints-lowest.txt").read_text().splitlines()
    assert [line for line in lines if not line.startswith("#")] == sorted(set(bounds))


def test_make_and_ci_run_with_them() -> None:
    assert "-c constraints-lowest.txt" in (ROOT / "Makefile").read_text()
    assert "make test-lowest" in (ROOT / ".github" / "workflows" / "ci.yml").read_text()
