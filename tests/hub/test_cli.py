"""Verbs that read from a hub, in processes of their own, as users start them."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from tests.cli.test_cli import wmdeploy
from tests.conftest import Bundles
from tests.hub.conftest import files_of
from tests.hub.server import TOKEN, Hub
from wmdeploy.clips.read import SAMPLE_CLIP


@pytest.fixture
def full_hub(hub: Hub, bundles: Bundles) -> Hub:
    files = files_of(bundles().path)
    model = {n.removeprefix("model/"): d for n, d in files.items() if n.startswith("model/")}
    hub.add("anna/pong", {f"fp32/{name}": data for name, data in files.items()})
    hub.add("anna/model", model)
    hub.add("anna/clips", files_of(SAMPLE_CLIP.parent), kind="datasets")
    return hub


def test_inspect_shows_a_bundle_and_a_model(full_hub: Hub) -> None:
    result = wmdeploy("inspect", "hf://anna/pong/fp32")
    assert result.returncode == 0, result.stderr
    assert "files (hashes checked)" in result.stdout
    result = wmdeploy("inspect", "hf://anna/model@main")
    assert result.returncode == 0, result.stderr
    assert "parameters" in result.stdout


def test_rollout_of_a_bundle_and_a_clip_is_the_local_one(
    full_hub: Hub, bundles: Bundles, tmp_path: Path
) -> None:
    clip = "hf://datasets/anna/clips/clip-00000.mkv"
    for name, source, frames in (
        ("hub.npz", "hf://anna/pong/fp32", clip),
        ("local.npz", bundles().path, SAMPLE_CLIP),
    ):
        result = wmdeploy("rollout", source, frames, "--horizon", "2", "-o", tmp_path / name)
        assert result.returncode == 0, result.stderr
    with np.load(tmp_path / "hub.npz") as one, np.load(tmp_path / "local.npz") as other:
        assert np.array_equal(one["frames"], other["frames"])


@pytest.mark.slow
def test_export_and_bench_and_push_with_figures(
    full_hub: Hub, bundles: Bundles, tmp_path: Path
) -> None:
    clip = ("--clip", "hf://datasets/anna/clips/clip-00000.mkv")
    result = wmdeploy("export", "hf://anna/model", "-o", tmp_path / "b", *clip)
    assert result.returncode == 0, result.stderr
    short = ("--backend", "ort-cpu", "--context", "4", "--seconds", "0.05")
    push = ("push", tmp_path / "b", "hf://anna/new", "--license", "mit")
    result = wmdeploy(*push, HF_TOKEN=TOKEN)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("pushed to hf://anna/new: http://127.0.0.1:")
    report = ("--json", tmp_path / "report.json")
    result = wmdeploy("bench", "hf://anna/new", *short, *clip, *report)
    assert result.returncode == 0, result.stderr
    assert len(json.loads((tmp_path / "report.json").read_text())["rows"]) > 8
    result = wmdeploy(*push, "--report", tmp_path / "report.json", HF_TOKEN=TOKEN)
    assert result.returncode == 0, result.stderr
    card = full_hub.repositories["models/anna/new"].main["README.md"].decode()
    assert card.startswith("---\nlibrary_name: wmdeploy\nlicense: mit\n")
    assert "## Figures" in card and "ort-cpu" in card
    for command in re.findall(r"^wmdeploy (.*)$", card, flags=re.MULTILINE):
        assert command.split()[1] == "hf://anna/new"
    assert TOKEN not in result.stdout + result.stderr + card
    another = ("push", bundles().path, "hf://anna/other", "--report", tmp_path / "report.json")
    result = wmdeploy(*another, HF_TOKEN=TOKEN)
    assert result.returncode == 1 and "report: it is of another bundle than" in result.stderr
    assert "models/anna/other" not in full_hub.repositories


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["bench", "hf://anna/none"], "has no such model repository"),
        (["inspect", "hf://anna"], "expected hf://owner/name[/path][@revision]"),
        (
            ["rollout", "tiny", "hf://datasets/anna/none", "-o", "{tmp}/x.gif"],
            "has no such dataset",
        ),
        (["train", "--data", "hf://datasets/anna/none", "-o", "{tmp}/m"], "has no such dataset"),
        (["compare", "hf://anna/none/a", "hf://anna/none/b"], "has no such model repository"),
        (["push", "{bundle}", "hf://anna/new"], "pushing needs a token; set HF_TOKEN"),
        (["push", "{bundle}", "anna/new"], "expected hf://owner/name"),
        (["push", "{bundle}", "hf://anna/new", "--license", "a: b"], "license: got 'a: b'"),
        (["build-engine", "hf://anna/pong/fp32"], "cp -rL"),
    ],
)
def test_bad_input_is_one_line(
    full_hub: Hub, bundles: Bundles, tmp_path: Path, arguments: list[str], message: str
) -> None:
    names = {"tmp": str(tmp_path), "bundle": str(bundles().path)}
    result = wmdeploy(*(a.format(**names) for a in arguments))
    assert result.returncode == 1, result.stderr
    lines = [line for line in result.stderr.splitlines() if line.strip()]
    assert len(lines) == 1 and lines[0].startswith("error: "), result.stderr
    assert message in lines[0]
    assert not [path for path in tmp_path.iterdir() if path.name != "hub-cache"]


def test_offline_is_one_line(full_hub: Hub, hub_cache: Path) -> None:
    result = wmdeploy("inspect", "hf://anna/model", HF_HUB_OFFLINE="1")
    assert result.returncode == 1 and "HF_HUB_OFFLINE forbids to ask the hub" in result.stderr
    assert len(result.stderr.splitlines()) == 1 and not hub_cache.exists()


def test_completion_of_a_command_downloads_nothing(full_hub: Hub) -> None:
    wmdeploy(
        _WMDEPLOY_COMPLETE="complete_bash",
        COMP_WORDS="wmdeploy inspect hf://anna/model --",
        COMP_CWORD="3",
    )
    assert not full_hub.requests
