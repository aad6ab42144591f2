"""Exported world models as environments: as in PyTorch, without it, and as docs/agents.md says."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.lean.make_bundles import float_clip
from tests.plugins import PRESETS
from tests.test_imports import ROOT
from wmdeploy.benchmarks.studies import imagined_steps
from wmdeploy.bundle import Bundle
from wmdeploy.clips.read import SAMPLE_CLIP, read_clip
from wmdeploy.clips.write import write_npz
from wmdeploy.engines.base import load_backend
from wmdeploy.envs.vector import WorldModelVectorEnv
from wmdeploy.exporters.export import ExportOptions, export_bundle
from wmdeploy.families import family_of, load_model
from wmdeploy.programs.modules import module_backend

pytestmark = pytest.mark.slow

WITHOUT_TORCH = """
import json, sys
from pathlib import Path
from wmdeploy.bundle import Bundle
from wmdeploy.clips.read import read_clip
from wmdeploy.engines.base import load_backend
from wmdeploy.envs.vector import WorldModelVectorEnv

backend = load_backend("ort-cpu", Bundle.open(Path("bundles/game")))
clip = read_clip(Path("data/game/clip.npz"), size=backend.image_size)
env = WorldModelVectorEnv(backend, [clip], num_envs=2, context=4, seed=0)
env.reset()
env.step(env.action_space.sample())
print(json.dumps(sorted(sys.modules)))
"""


@pytest.fixture(scope="module", params=["sampled", "recurrent-like"])
def place(
    request: pytest.FixtureRequest, plugins: None, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """With bundles/game, of a family with integer or float actions, and data/game."""
    family: str = request.param
    folder = tmp_path_factory.mktemp(family)
    (folder / "data" / "game").mkdir(parents=True)
    clip = folder / "data" / "game" / "clip.npz"
    if family == "sampled":
        sample = read_clip(SAMPLE_CLIP, size=16)
        write_npz(clip, sample.frames, sample.actions)
    else:
        float_clip(clip)
    output = folder / "bundles" / "game"
    export_bundle(ExportOptions(source=PRESETS[family], family=family, output=output, clip=clip))
    return folder


def test_two_backends_are_the_same_world(place: Path) -> None:
    bundle = Bundle.open(place / "bundles" / "game")
    clips = [read_clip(place / "data" / "game" / "clip.npz", size=16)]
    envs = [
        WorldModelVectorEnv(
            load_backend(name, bundle), clips, num_envs=3, context=3, max_steps=5, seed=4
        )
        for name in ("ort-cpu", "eager")
    ]
    envs[0].action_space.seed(0)
    np.testing.assert_array_equal(envs[0].reset()[0], envs[1].reset()[0])
    rewards = []
    for _ in range(12):
        action = np.asarray(envs[0].action_space.sample())
        one, two = (env.step(action) for env in envs)
        np.testing.assert_array_equal(one[0], two[0])
        np.testing.assert_allclose(one[1], two[1], atol=1e-4)
        np.testing.assert_array_equal(one[3], two[3])
        rewards.append(one[1])
    assert np.ptp(rewards) > 0.1


def test_an_environment_needs_no_torch(place: Path) -> None:
    loaded = set(json.loads(ran(WITHOUT_TORCH, place).splitlines()[-1]))
    assert "gymnasium" in loaded
    assert not loaded & {"torch", "stable_baselines3", "matplotlib", "wmdeploy.families"}


@pytest.mark.parametrize("place", ["sampled"], indirect=True)
def test_example_of_the_page_runs(place: Path) -> None:
    page = (ROOT / "docs" / "agents.md").read_text()
    (program,) = re.findall(r"^```python\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL)
    shorter = {"100_000": "128", "n_steps=128": "n_steps=4", "CnnPolicy": "MlpPolicy"}
    for words, others in shorter.items():
        assert words in program
        program = program.replace(words, others)
    ran(program, place)
    assert (place / "agents" / "game.zip").is_file()


def test_study_prints_both_speeds(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    imagined_steps.main(place / "bundles" / "game", place / "data" / "game", rows=2, turns=1)
    shown = capsys.readouterr().out
    assert "environment on ort-cpu" in shown and "environment on eager" in shown
    assert re.search(r"\| ratio \| \d+\.\d\dx \|", shown)
    assert "Rows step together: ends that the model predicts are ignored" in shown


def test_rows_of_the_study_stay_at_the_same_frame() -> None:
    model = load_model("tiny", seed=3, family="tokens")
    deployed = family_of(model).deployment(model, "default", "fp32")
    backend = module_backend(deployed, name="modules")
    clips = [read_clip(SAMPLE_CLIP, size=32)]
    ended = []
    for played in (backend, imagined_steps.endless(backend)):
        env = WorldModelVectorEnv(played, clips, num_envs=4, context=3, max_steps=10, seed=4)
        env.action_space.seed(0)
        env.reset()
        steps = [env.step(np.asarray(env.action_space.sample())) for _ in range(20)]
        ended.append(np.array([terminated | cut for _, _, terminated, cut, _ in steps]))
    freely, together = ended
    assert not (freely == freely[:, :1]).all()  # or the model ends no episode by itself
    assert np.flatnonzero(together.all(1)).tolist() == [9, 19] and together.sum() == 8


def ran(program: str, place: Path) -> str:
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout
