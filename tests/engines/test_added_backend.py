"""A backend that is added as CONTRIBUTING.md says, a file and an entry, is a backend everywhere."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Bundles
from wmdeploy.engines.base import BACKENDS, BackendEntry, Settings
from wmdeploy.engines.devices import runs_on_cpu

ROOT = Path(__file__).parents[2]
# Python imports a module of this name when it starts, in the bench and in its workers.
ENTRY = """
from wmdeploy.engines.base import BACKENDS, BackendEntry
BACKENDS["added"] = BackendEntry("added_backend:load", "cpu")
"""
LOADER = """
import dataclasses
from wmdeploy.engines.base import load_backend

def load(bundle, settings):
    return dataclasses.replace(load_backend("ort-cpu", bundle, settings), threads=7)
"""


@pytest.mark.slow
def test_added_backend_of_the_cpu_is_benched_without_a_gpu(
    bundles: Bundles, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(ENTRY)
    (tmp_path / "added_backend.py").write_text(LOADER)
    report = tmp_path / "report.json"
    command = [sys.executable, "-m", "wmdeploy.cli", "bench", str(bundles().path)]
    command += ["--backend", "added", "--context", "4", "--horizon", "4"]
    command += ["--seconds", "0", "--json", str(report)]
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    done = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    rows = [row for row in json.loads(report.read_text())["rows"] if row["backend"] == "added"]
    assert {row["verdict"] for row in rows} == {"pass"}
    assert {row["threads"] for row in rows} == {7}


@pytest.mark.parametrize(
    ("device", "asked", "on_cpu"),
    [("cpu", "cpu", True), ("any", "cpu", True), ("cuda", "cpu", False), ("cpu", "auto", True)],
)
def test_an_entry_says_where_its_backend_runs(
    device: str, asked: str, on_cpu: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(BACKENDS, "added", BackendEntry("added_backend:load", device))  # type: ignore[arg-type]  # one of three strings
    assert runs_on_cpu("added", Settings(asked)) == on_cpu  # type: ignore[arg-type]  # likewise
