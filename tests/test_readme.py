"""The commands and the program of the README run as they stand there."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.cli.test_cli import ROOT, VERBS
from wmdeploy.families.tokens.config import PRESETS, TokensConfig, TransformerConfig
from wmdeploy.families.tokens.family import TokensFamily

pytestmark = pytest.mark.slow

README = (ROOT / "README.md").read_text()


PAGES = [README, *(page.read_text() for page in sorted((ROOT / "docs").glob("*.md")))]


def blocks(language: str, text: str = README) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


LINES = [line for page in PAGES for block in blocks("sh", page) for line in block.splitlines()]
COMMANDS = [line for line in dict.fromkeys(LINES) if line.startswith("wmdeploy ")]


# the user's own files that the pages name: a checkpoint of tokens with 4 heads, and a family
MODELS = """
from tests.families.mean_pool import MeanPoolFamily

class MyFamily(MeanPoolFamily):
    presets = {"tiny": MeanPoolFamily.presets["mean-pool-16"]}
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("readme")
    sizes = TransformerConfig(num_actions=6, frames=20, layers=2, heads=4, d_model=64)
    agent = TokensFamily().initialized(TokensConfig(PRESETS["tiny"].tokenizer, sizes), 1)
    torch.save(agent.state_dict(), place / "iris.pt")
    (place / "my_models.py").write_text(MODELS)
    return place


# so that the suite stays short; nothing that a command needs is added. Float16 is judged by these
# models: after 20 steps their codes still lie on top of each other (98.2% agree), after 60 no more
SHORTER = {
    "record": ["--frames", "256"],
    "train": ["--vqvae-steps", "100", "--temporal-steps", "20", "--precision", "fp32"],
    "bench": ["--seconds", "0.05", "--backend", "ort-cpu"],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_command_runs(place: Path, command: str) -> None:
    arguments = shlex.split(command, comments=True)[1:]
    arguments += SHORTER.get(arguments[0], [])
    if arguments[0] == "distill":
        arguments += ["--stage", f"{'encoder' if '--encoder' in arguments else 'student'}.steps=20"]
    result = subprocess.run(
        [sys.executable, "-m", "wmdeploy.cli", *arguments],
        cwd=place,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert result.returncode == 0, result.stderr + result.stdout


def test_program_runs(place: Path) -> None:
    program = "\n".join(blocks("python"))
    result = subprocess.run(
        [sys.executable, "-c", program + "\nprint(frame.shape, frame.dtype)"],
        cwd=place,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "(1, 64, 64, 3) uint8"


def test_make_targets_of_the_readme_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = re.findall(r"^make (\w+)", "\n".join(blocks("sh")), flags=re.MULTILINE)
    assert set(targets) == {"demo", "play", "test"}
    for target in targets:
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE)


def test_every_verb_is_in_the_readme() -> None:
    named = set(re.findall(r"^\| `wmdeploy ([\w-]+)", README, flags=re.MULTILINE))
    assert named == set(VERBS)


def test_linked_files_exist() -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


def test_file_tree_names_what_exists() -> None:
    tree = next(block for block in blocks("text") if block.startswith("wmdeploy/  "))
    parent = ""
    for line in tree.splitlines():
        name = line.split()[0]
        parent = parent if line.startswith(" ") else name
        path = ROOT / parent / name if line.startswith(" ") else ROOT / name
        assert path.is_dir(), line
