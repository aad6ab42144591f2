"""The command `wmdeploy compare`."""

import json
from pathlib import Path

import pytest

from tests.benchmarks.made_reports import made_report, runs, with_bundle, write_runs
from wmdeploy import cli
from wmdeploy.benchmarks.compare.pool import read_runs
from wmdeploy.benchmarks.report import MOST_POOLED, Report
from wmdeploy.files import write_document


def compare_command(tmp_path: Path, old: Report, new: Report, *options: str) -> int:
    write_document(old, tmp_path / "old.json")
    write_document(new, tmp_path / "new.json")
    with pytest.raises(SystemExit) as caught:
        cli.main(["compare", str(tmp_path / "old.json"), str(tmp_path / "new.json"), *options])
    assert isinstance(caught.value.code, int | None)
    return caught.value.code or 0


def test_command_exits_with_1_on_a_regression(
    tmp_path: Path, report: Report, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compare_command(tmp_path, report, made_report(1)) == 0
    told = capsys.readouterr().out
    assert told.startswith("no regressions, no improvements") and "NEW against OLD" not in told
    slow = made_report(1, slower={"decoder": 1.1})
    assert compare_command(tmp_path, report, slow) == 1
    told = capsys.readouterr().out
    assert "regression" in told and "decoder" in told and "encoder" not in told
    assert compare_command(tmp_path, report, slow, "--all", "--fail-on", "20") == 0
    assert "encoder" in capsys.readouterr().out


def test_command_refuses_in_one_line(
    tmp_path: Path, report: Report, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compare_command(tmp_path, report, with_bundle(report, horizon=4)) == 1
    assert capsys.readouterr().err.startswith("error: OLD and NEW measured different things")
    document = json.loads((tmp_path / "old.json").read_text())
    (tmp_path / "old.json").write_text(json.dumps(document | {"rows": 1}))
    with pytest.raises(SystemExit):
        cli.main(["compare", str(tmp_path / "old.json"), str(tmp_path / "new.json")])
    assert "is no report" in " ".join(capsys.readouterr().err.split())


def compared(*arguments: str) -> int:
    with pytest.raises(SystemExit) as caught:
        cli.main(["compare", *arguments])
    assert isinstance(caught.value.code, int | None)
    return caught.value.code or 0


def test_command_compares_folders_of_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = write_runs(tmp_path / "old", runs(0, 3))
    same = write_runs(tmp_path / "same", runs(3, 2))
    slower = write_runs(tmp_path / "slower", runs(3, 3, slower={"decoder": 1.2}))
    assert compared(old, same) == 0
    assert "runs pooled: 3 of OLD, 2 of NEW" in capsys.readouterr().out
    assert compared(old, slower) == 1
    assert compared(old, str(tmp_path / "slower" / "run-3.json")) == 1
    (tmp_path / "old" / "notes.txt").write_text("not read")
    (tmp_path / "old" / ".run-9.json").write_text("left by a write that was killed")
    assert read_runs(Path(old))[1] == 3


def test_folders_that_hold_no_runs_are_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = write_runs(tmp_path / "one", runs(0, 1))
    empty = write_runs(tmp_path / "empty", {})
    many = write_runs(tmp_path / "many", {str(n): made_report() for n in range(MOST_POOLED + 1)})
    other = write_runs(tmp_path / "other", runs(0, 1))
    (tmp_path / "other" / "sweep.json").write_text("{}")
    for folder, told in (
        (empty, "has 0 reports"), (many, f"has {MOST_POOLED + 1} reports"), (other, "sweep.json"),
    ):  # fmt: skip
        assert compared(one, folder) == 1
        error = capsys.readouterr().err
        assert told in " ".join(error.split()) and "Traceback" not in error
