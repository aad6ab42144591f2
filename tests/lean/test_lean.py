"""What a deployment needs, without torch: inspect, rollout, sessions and pools."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings

from tests.lean.make_bundles import CONTEXT, FRAMES, actions
from tests.programs.schedules import SCHEDULES, Rows, Schedule
from wmdeploy.bundle import Bundle
from wmdeploy.clips.read import SAMPLE_CLIP, read_clip
from wmdeploy.engines.base import load_backend
from wmdeploy.errors import MissingError
from wmdeploy.programs.session import Session
from wmdeploy.psnr import psnr

NAMES = ["tiny", "sampled", "recurrent"]


def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "wmdeploy.cli", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("module", ["torch", "onnxscript", "safetensors", "einops"])
def test_it_is_not_there(module: str) -> None:
    assert importlib.util.find_spec(module) is None


@pytest.mark.parametrize("name", NAMES)
def test_a_session_gives_pytorchs_frames(name: str, bundles: Path) -> None:
    session = Session(load_backend("ort-cpu", Bundle.open(bundles / name)), seed=5)
    clip = read_clip(SAMPLE_CLIP, size=session.backend.image_size, count=CONTEXT)
    session.reset(clip.frames, actions(session, CONTEXT - 1))
    frames = np.concatenate([session.step(actions(session, 1)) for _ in range(FRAMES)])
    with np.load(bundles / f"{name}.npz") as expected:
        errors = np.square(frames.astype(float) - expected["frames"]).mean((1, 2, 3))
    assert psnr(float(errors.max())) > 60
    assert isinstance(session.outputs(), dict)


@pytest.mark.parametrize("name", NAMES)
def test_rows_of_a_pool_are_what_they_would_be_alone(name: str, bundles: Path) -> None:
    backend = load_backend("ort-cpu", Bundle.open(bundles / name))
    frames = read_clip(SAMPLE_CLIP, size=backend.image_size, count=40).frames

    @settings(max_examples=20, deadline=None, derandomize=True)
    @given(SCHEDULES)
    def check(schedule: Schedule) -> None:
        rows = Rows(backend, frames)
        for verb, bits, number in [("add", 1, 3), ("add", 1, 8), *schedule]:
            rows.go(verb, bits, number)

    check()


def test_inspect_shows_the_programs(bundles: Path) -> None:
    shown = run("inspect", bundles / "sampled")
    assert shown.returncode == 0, shown.stderr
    assert "predict" in shown.stdout and "token" in shown.stdout


def test_rollout_writes_a_video(bundles: Path, tmp_path: Path) -> None:
    words = ("rollout", bundles / "tiny", SAMPLE_CLIP, "-o", tmp_path / "dream.gif")
    shown = run(*words, "--horizon", "3")
    assert shown.returncode == 0, shown.stderr
    assert "3 frames imagined by ort-cpu" in shown.stdout
    assert (tmp_path / "dream.gif").stat().st_size > 1000


@pytest.mark.parametrize(
    "words",
    [
        ("rollout", "tiny", str(SAMPLE_CLIP), "-o", "dream.gif"),  # a preset is a model
        ("export", "tiny", "-o", "bundle"),
        ("rollout", "BUNDLE", str(SAMPLE_CLIP), "-o", "dream.gif", "--backend", "eager"),
    ],
)
def test_what_needs_torch_says_how_to_install_it(
    words: tuple[str, ...], bundles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shown = run(*(str(bundles / "tiny") if word == "BUNDLE" else word for word in words))
    assert shown.returncode == 1
    assert "Traceback" not in shown.stderr
    assert "torch" in shown.stderr and "[export]" in shown.stderr.replace("\n", "")


def test_a_backend_of_torch_is_missing(bundles: Path) -> None:
    with pytest.raises(MissingError, match="backend eager needs torch"):
        load_backend("eager", Bundle.open(bundles / "tiny"))
