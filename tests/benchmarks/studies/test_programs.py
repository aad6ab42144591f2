"""Studies as programs: what the user can mend is told in one line."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Bundles


def told(study: str, *arguments: str | Path) -> str:
    """What a study that is refused says; its exit status is checked."""
    program = [sys.executable, "-m", f"wmdeploy.benchmarks.studies.{study}"]
    result = subprocess.run(
        [*program, *map(str, arguments)], capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 1 and not result.stdout
    return result.stderr


@pytest.mark.parametrize(
    "study", ["imagined_steps", "pool_rows", "precision_islands", "serving_load"]
)
def test_bundle_that_is_not_there_is_one_line(study: str, tmp_path: Path) -> None:
    more = (tmp_path,) if study == "imagined_steps" else ()
    said = told(study, tmp_path / "none", *more)
    assert said.startswith("error: ") and said.count("\n") == 1 and "none" in said


def test_clips_of_no_actions_are_one_line(bundles: Bundles, tmp_path: Path) -> None:
    said = told("imagined_steps", bundles(actions=True).path, tmp_path / "empty")
    assert said.startswith("error: ") and said.count("\n") == 1 and "empty" in said


def test_report_that_is_none_is_one_line(tmp_path: Path) -> None:
    paths = [tmp_path / "a.json", tmp_path / "b.json"]
    for path in paths:
        path.write_text("{}")
    said = told("false_alarms", *paths)
    assert said.startswith("error: ") and said.count("\n") == 1 and "a.json" in said
