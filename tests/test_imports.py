"""Who may import whom, and under which names."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CLI = ROOT / "wmdeploy" / "cli"
FOLDERS = ("exporters", "engines", "benchmarks")  # at the top; each is a package of wmdeploy
# The packages on the left import nothing but those on the right.
MAY_IMPORT = {
    "wmdeploy": {"wmdeploy"},
    "exporters": {"wmdeploy", "exporters"},
    "engines": {"wmdeploy", "engines"},
    "benchmarks": {"wmdeploy", *FOLDERS},
}


def imported_modules(nodes: list[ast.stmt]) -> set[str]:
    names: set[str] = set()
    for node in (inner for outer in nodes for inner in ast.walk(outer)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


def packages(modules: set[str]) -> set[str]:
    """Of our own modules: the top folders in which they lie."""
    parts = [name.split(".") for name in modules if name.startswith("wmdeploy.")]
    return {part[1] if part[1] in FOLDERS else "wmdeploy" for part in parts}


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_imports_point_one_way(folder: str) -> None:
    for path in (ROOT / folder).rglob("*.py"):
        if path.parent == CLI:
            continue  # the one place where all meet, inside its commands
        found = packages(imported_modules(ast.parse(path.read_text()).body))
        assert found <= MAY_IMPORT[folder], path


def test_cli_imports_other_packages_inside_commands_only() -> None:
    found: set[str] = set()
    for path in CLI.glob("*.py"):
        tree = ast.parse(path.read_text())
        top = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
        modules = imported_modules(list(top)) - {"wmdeploy.engines.base"}  # the names of backends
        assert not packages(modules) & set(FOLDERS), path
        found |= packages(imported_modules(tree.body))
    assert found == {"wmdeploy", *FOLDERS}


def rows_of_the_map() -> dict[str, list[str]]:
    """By path: the modules that no file there imports, as CONTRIBUTING says."""
    lines = (ROOT / "CONTRIBUTING.md").read_text().splitlines()
    start = lines.index("| where | what | does not import |") + 2
    rows = {}
    for line in lines[start : lines.index("", start)]:
        where, _, absent = (cell.strip() for cell in line.strip("|").split("|"))
        rows[where.strip("`")] = re.findall(r"`([\w.]+)`", absent)
    return rows


MAP = rows_of_the_map()


def breaches(modules: set[str], absent: list[str]) -> set[str]:
    return {name for name in modules for lacked in absent if f"{name}.".startswith(f"{lacked}.")}


@pytest.mark.parametrize("where", MAP)
def test_map_of_contributing_says_what_is_not_imported(where: str) -> None:
    place = ROOT / where
    files = sorted(place.rglob("*.py")) if place.is_dir() else [place]
    assert files and MAP[where]
    for path in files:
        modules = imported_modules(runtime_nodes(ast.parse(path.read_text())))
        assert not breaches(modules, MAP[where]), path


def test_map_has_every_folder() -> None:
    folders = {
        f"{path.relative_to(ROOT)}/"
        for top in (ROOT / "benchmarks", ROOT / "engines")
        for path in top.iterdir()
        if (path / "__init__.py").is_file()
    }
    assert folders <= set(MAP)


def test_the_test_of_the_map_can_fail() -> None:
    assert breaches({"torch.nn", "torchmetrics"}, ["torch"]) == {"torch.nn"}


def runtime_nodes(tree: ast.Module) -> list[ast.stmt]:
    """All statements but those that only a type checker reads."""
    checked = "if TYPE_CHECKING:"
    return [node for node in tree.body if not ast.unparse(node).startswith(checked)]


@pytest.mark.parametrize("folder", FOLDERS)
def test_bare_names_are_refused(folder: str) -> None:
    """They are other projects' names too: whoever comes last into site-packages wins there."""
    code = [sys.executable, "-c", f"import {folder}"]
    result = subprocess.run(code, cwd=ROOT, capture_output=True, text=True)
    assert f"expected 'import wmdeploy.{folder}'" in result.stderr
