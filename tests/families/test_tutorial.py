"""docs/families/your-own.md: its files are written and its commands run, in the page's order."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from wmdeploy.bundle import Bundle
from wmdeploy.clips.read import SAMPLE_CLIP, read_clip
from wmdeploy.clips.write import write_npz

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "families" / "your-own.md").read_text()
BLOCKS = re.findall(r"^```(\w+) ?(\S*)\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)
# what pip needs to work here: no network, and nothing installed beside the suite's own packages
OFFLINE = ["--no-build-isolation", "--no-index", "--quiet", "--target"]
SHORTER = ["--seconds", "0.05"]


def run(arguments: list[str], place: Path, code: int = 0) -> str:
    paths = [str(ROOT), str(place / "site")]
    result = subprocess.run(
        [sys.executable, *arguments],
        cwd=place,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths), "COLUMNS": "160"},
    )
    assert result.returncode == code, f"{arguments}: {result.stderr}{result.stdout}"
    return result.stdout + result.stderr


def run_command(command: str, place: Path, code: int = 0) -> str:
    name, *arguments = shlex.split(command)
    if name == "pip":
        assert arguments[0] == "install"
        return run(["-m", "pip", *arguments, *OFFLINE, "site"], place)
    assert name == "wmdeploy"
    arguments += SHORTER if arguments[0] == "bench" else []
    return run(["-m", "wmdeploy.cli", *arguments], place, code)


@pytest.mark.slow
def test_the_page_runs(tmp_path: Path) -> None:
    clip = read_clip(SAMPLE_CLIP, size=32, count=40)
    write_npz(tmp_path / "clip.npz", clip.frames, clip.actions)
    said: dict[str, str] = {}
    for language, where, text in BLOCKS:
        if where.startswith("file="):
            (tmp_path / where.removeprefix("file=")).write_text(text)
        elif where == "run":
            run(["-c", text], tmp_path)
        else:
            assert language == "sh"
            for command in text.splitlines():
                said[command.split(" -o ")[0]] = run_command(command, tmp_path)
    made = {name: Bundle.open(tmp_path / "bundles" / name) for name in ("wave", "installed-wave")}
    assert {bundle.manifest.family for bundle in made.values()} == {"wave"}
    assert Bundle.open(tmp_path / "bundles" / "trained-wave").manifest.recipe.source != "small-wave"
    half = "wmdeploy export small-wave --family wave_family:WaveFamily --precision fp16 -o half"
    assert "family wave: it has no float16" in run_command(half, tmp_path, code=1)
    assert "imagine_next" in said["wmdeploy inspect bundles/wave"]
    assert any("pass" in text for command, text in said.items() if "bench" in command)
    dream = np.load(tmp_path / "dream.npz")["frames"]
    assert (
        dream.shape[1:] == (32, 32, 3) and len(np.unique(dream[8:].reshape(-1, 3072), axis=0)) > 9
    )


def test_the_model_is_as_small_as_the_page_says() -> None:
    files = {where: text for _, where, text in BLOCKS if where.startswith("file=")}
    assert len(files["file=wave_model.py"].splitlines()) < 60
    assert len(files["file=wave_family.py"].splitlines()) < 100
