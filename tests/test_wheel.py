"""What is installed: one package, `wmdeploy`, with the folders that a checkout has on top."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.test_imports import FOLDERS, ROOT

pytestmark = pytest.mark.slow
LEFT_OUT = (".git", ".venv*", "build", "dist", "*.egg-info", "__pycache__", ".*_cache")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an sdist, and the wheel that was built from it."""
    place = tmp_path_factory.mktemp("built")
    checkout, target = place / "checkout", place / "dist"
    shutil.copytree(ROOT, checkout, symlinks=True, ignore=shutil.ignore_patterns(*LEFT_OUT))
    command = [sys.executable, "-m", "build", "--outdir", str(target), str(checkout)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return target


def test_wheel_of_the_sdist_holds_every_file_of_the_checkout(built: Path) -> None:
    names = set(zipfile.ZipFile(next(built.glob("*.whl"))).namelist())
    for folder in ("wmdeploy", *FOLDERS):
        home = "" if folder == "wmdeploy" else "wmdeploy/"
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                assert home + path.relative_to(ROOT).as_posix() in names


def test_wheel_installs_no_other_name(built: Path) -> None:
    wheel = zipfile.ZipFile(next(built.glob("*.whl")))
    tops = {name.split("/")[0] for name in wheel.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"wmdeploy"}


def test_installed_package_runs_beside_another_one_of_that_name(
    built: Path, tmp_path: Path
) -> None:
    site = tmp_path / "site"
    zipfile.ZipFile(next(built.glob("*.whl"))).extractall(site)
    (site / "benchmarks").mkdir()
    (site / "benchmarks" / "__init__.py").write_text("OWNER = 'somebody else'")
    code = "import benchmarks, wmdeploy.benchmarks as ours; print(benchmarks.OWNER, ours.__file__)"
    expected = f"somebody else {site / 'wmdeploy' / 'benchmarks' / '__init__.py'}"
    assert run(site, "-c", code).strip() == expected
    assert "bench" in run(site, "-m", "wmdeploy.cli", "--help")


def run(site: Path, *command: str) -> str:
    """What Python prints, in another folder, with no checkout on its path."""
    done = subprocess.run(
        [sys.executable, *command],
        env=os.environ | {"PYTHONPATH": str(site)},
        cwd=site.parent,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
