"""Texts of libraries name parameters; only the command line knows its flags, and only it exits."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.test_imports import CLI, ROOT

FLAG = re.compile(r"(?<![\w-])--[a-z]")
OTHERS = ("--upgrade", "--force-reinstall", "--pack-destination")  # flags of pip and npm
COMMAND = re.compile(r"wmdeploy [a-z-]+ [^`;]*")  # a whole command, which a reader can copy
# no text for people: what a recipe holds, and always has; variables of CSS; a command's end
OTHER = {
    "wmdeploy/clips/source.py": {"--fps", "--fit", "--series"},
    "benchmarks/render/html/svg.py": {"var(--line)", "var(--card)", "var(--s"},
    "benchmarks/render/card.py": {" --clip CLIP"},  # a command of the page
    "benchmarks/render/format.py": {" --backend "},
    "engines/trt/plans.py": {" --arch ", " --flavour "},
}


def libraries() -> list[Path]:
    folders = ("wmdeploy", "exporters", "engines", "benchmarks")
    places = [(ROOT / folder).rglob("*.py") for folder in folders]
    links = [ROOT / "wmdeploy" / name for name in ("engines", "exporters", "benchmarks")]
    return [
        path
        for place in places
        for path in place
        if path.parent != CLI and not any(path.is_relative_to(link) for link in links)
    ]


def texts(tree: ast.Module) -> Iterator[str]:
    """All strings but docstrings."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, documented) and node.body and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            if id(node) not in docstrings:
                yield node.value


@pytest.mark.parametrize("path", libraries(), ids=lambda path: str(path.relative_to(ROOT)))
def test_library_names_no_flag_and_does_not_exit(path: Path) -> None:
    tree = ast.parse(path.read_text())
    if '__name__ == "__main__"' in path.read_text():
        return  # a program has flags, and exits
    for text in texts(tree):
        said = COMMAND.sub("", text)
        for flag in OTHERS:
            said = said.replace(flag, "")
        if text not in OTHER.get(str(path.relative_to(ROOT)), ()):
            assert not FLAG.search(said), text
    assert "SystemExit" not in {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)}
