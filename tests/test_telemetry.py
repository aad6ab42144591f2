"""Usage data that runtimes send: they keep an id in the user's home, unless told not to.

They decide when they are imported, so these run in processes of their own, whose home is empty.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Bundles
from wmdeploy.clips.read import SAMPLE_CLIP

SWITCH = "ORT_DISABLE_TELEMETRY"
PLACES = {"HOME": "home", "XDG_CACHE_HOME": "cache", "TMPDIR": "tmp"}


def files_written(place: Path, *command: str | Path, **environment: str) -> set[str]:
    """Run Python with a home, a cache and a temporary folder of its own; the files there, after."""
    inherited = {name: value for name, value in os.environ.items() if name != SWITCH}
    for name in PLACES.values():
        (place / name).mkdir()
    places = {variable: str(place / name) for variable, name in PLACES.items()}
    subprocess.run([sys.executable, *command], check=True, env=inherited | places | environment)
    return {path.name for path in place.rglob("*") if path.is_file()}


def test_rollout_leaves_no_file_of_onnxruntime(bundles: Bundles, tmp_path: Path) -> None:
    rollout = ("-m", "wmdeploy.cli", "rollout", bundles().path, SAMPLE_CLIP, "--horizon", "2")
    assert files_written(tmp_path, *rollout, "-o", tmp_path / "o.mkv") == {"o.mkv"}


@pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="needs openvino")
def test_rollout_leaves_no_file_of_openvino(bundles: Bundles, tmp_path: Path) -> None:
    rollout = ("-m", "wmdeploy.cli", "rollout", bundles().path, SAMPLE_CLIP, "--horizon", "2")
    chosen = ("--backend", "openvino", "-o", tmp_path / "o.mkv")
    # it sends nothing where CI is "true", which is no merit of ours
    assert files_written(tmp_path, *rollout, *chosen, CI="") == {"o.mkv"}


@pytest.mark.parametrize(
    "module",
    [
        "wmdeploy.benchmarks.worker",
        "wmdeploy.benchmarks.bisect.onnx_values",
        "wmdeploy.engines.ort.cpu",
        "wmdeploy.exporters.verify",
    ],
)
def test_any_package_of_ours_before_onnxruntime_is_enough(module: str, tmp_path: Path) -> None:
    assert files_written(tmp_path, "-c", f"import {module}, onnxruntime") == set()


def test_a_user_can_leave_it_on(tmp_path: Path) -> None:
    code = f"import os, wmdeploy; assert os.environ['{SWITCH}'] == '0'"
    files_written(tmp_path, "-c", code, **{SWITCH: "0"})
