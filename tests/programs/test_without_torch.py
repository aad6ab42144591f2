"""A bundle runs on ONNX Runtime and numpy: nothing imports torch, or what belongs to it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Bundles
from wmdeploy.clips.read import SAMPLE_CLIP

PROGRAM = """
import json, sys
from pathlib import Path
from wmdeploy.bundle import Bundle
from wmdeploy.clips.read import read_clip
from wmdeploy.engines.base import load_backend
from wmdeploy.programs.session import Session

bundle, clip, backend = sys.argv[1:]
session = Session(load_backend(backend, Bundle.open(Path(bundle))))
session.reset(read_clip(Path(clip), size=32, count=4).frames)
for _ in range(8):
    session.step()
print(json.dumps(sorted(sys.modules)))
"""
CLI = """
import json, sys
from wmdeploy.cli import main

try:
    main(sys.argv[1:])
finally:
    print(json.dumps(sorted(sys.modules)))
"""
HEAVY = {"torch", "safetensors", "onnxscript", "einops", "matplotlib", "gymnasium"}


def imported(program: str, *words: str | Path) -> set[str]:
    command = [sys.executable, "-c", program, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_a_session_on_onnx_runtime(bundles: Bundles) -> None:
    assert not imported(PROGRAM, bundles().path, SAMPLE_CLIP, "ort-cpu") & HEAVY


def test_it_shows_where_a_backend_needs_torch(bundles: Bundles) -> None:
    assert "torch" in imported(PROGRAM, bundles().path, SAMPLE_CLIP, "eager")


@pytest.mark.parametrize("verb", ["inspect", "rollout", "--version", "--help"])
def test_verbs_of_a_deployment(verb: str, bundles: Bundles, tmp_path: Path) -> None:
    words: list[str | Path] = [verb]
    if verb == "inspect":
        words += [bundles().path]
    elif verb == "rollout":
        words += [bundles().path, SAMPLE_CLIP, "-o", tmp_path / "dream.gif", "--horizon", "3"]
    assert not imported(CLI, *words) & HEAVY
