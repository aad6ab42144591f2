"""Rules for all code, read from the code: sizes, words, how arguments are passed."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("wmdeploy", "exporters", "engines", "benchmarks")
CODE = sorted(path for folder in PACKAGES for path in (ROOT / folder).rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
LONGEST_FILE = 400  # lines
MOST_POSITIONAL = 5
DIALECT = re.compile(r"\b(race|entrants|told|drift|anchor|residual)\b")


def names(paths: list[Path]) -> list[str]:
    return [str(path.relative_to(ROOT)) for path in paths]


def test_no_file_is_long() -> None:
    counted = {path: len(path.read_text().splitlines()) for path in [*CODE, *TESTS]}
    assert not names([path for path, lines in counted.items() if lines > LONGEST_FILE])
    assert len(list((ROOT / "benchmarks").glob("*.py"))) <= 6


@pytest.mark.parametrize("path", CODE, ids=names(CODE))
def test_words_are_of_the_field(path: Path) -> None:
    lines = path.read_text().splitlines()
    assert not [line for line in lines if DIALECT.search(line)]


@pytest.mark.parametrize("path", CODE, ids=names(CODE))
def test_many_arguments_are_named(path: Path) -> None:
    """Of calls; and a dataclass of many fields takes them by name only."""
    faults = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and len(node.args) > MOST_POSITIONAL:
            callee = ast.unparse(node.func).split(".")[-1]
            if callee in defined():
                faults.append(f"{node.lineno}: {callee} with {len(node.args)} positional arguments")
        if isinstance(node, ast.ClassDef) and _fields_by_position(node) > MOST_POSITIONAL:
            faults.append(f"{node.lineno}: {node.name} is not kw_only")
    assert not faults


@cache
def defined() -> set[str]:
    """Names of our own functions and classes; a library's calls are its own matter."""
    kinds = ast.FunctionDef | ast.ClassDef
    trees = (ast.parse(path.read_text()) for path in CODE)
    return {node.name for tree in trees for node in ast.walk(tree) if isinstance(node, kinds)}


def _fields_by_position(node: ast.ClassDef) -> int:
    """Of a dataclass that is not kw_only; 0 for every other class."""
    for decorator in node.decorator_list:
        called = decorator.func if isinstance(decorator, ast.Call) else decorator
        if not (isinstance(called, ast.Name) and called.id == "dataclass"):
            continue
        keywords = decorator.keywords if isinstance(decorator, ast.Call) else []
        if not any(keyword.arg == "kw_only" for keyword in keywords):
            return sum(isinstance(item, ast.AnnAssign) for item in node.body)
    return 0
