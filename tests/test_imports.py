"""Who may import whom, and under which names."""

import ast
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


@pytest.mark.parametrize("folder", FOLDERS)
def test_bare_names_are_refused(folder: str) -> None:
    """They are other projects' names too: whoever comes last into site-packages wins there."""
    code = [sys.executable, "-c", f"import {folder}"]
    result = subprocess.run(code, cwd=ROOT, capture_output=True, text=True)
    assert f"expected 'import wmdeploy.{folder}'" in result.stderr
