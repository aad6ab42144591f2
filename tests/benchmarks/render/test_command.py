"""The command `wmdeploy report`."""

from pathlib import Path

import pytest

from wmdeploy import cli
from wmdeploy.benchmarks.render.html import render
from wmdeploy.benchmarks.render.markdown import to_markdown
from wmdeploy.benchmarks.render.spreadsheet import to_csv
from wmdeploy.benchmarks.report import Report
from wmdeploy.files import write_document


def report_command(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as caught:
        cli.main(["report", *map(str, arguments)])
    assert isinstance(caught.value.code, int | None)
    return caught.value.code or 0


def test_command_makes_what_is_asked_for(
    report: Report, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_document(report, tmp_path / "r.json")
    assert report_command(tmp_path / "r.json", "--html", tmp_path / "a.html", "--markdown",
                          tmp_path / "a.md", "--csv", tmp_path / "a.csv") == 0  # fmt: skip
    assert (tmp_path / "a.html").read_text() == render(report)
    assert (tmp_path / "a.md").read_text() == to_markdown(report)
    assert (tmp_path / "a.csv").read_text() == to_csv(report)
    before = (tmp_path / "r.json").read_bytes()
    assert report_command(tmp_path / "r.json", "--html", tmp_path / "r.json") == 1
    assert "is the input" in capsys.readouterr().err
    assert (tmp_path / "r.json").read_bytes() == before
    assert report_command(tmp_path / "r.json") == 1
    assert "expected --html, --markdown or --csv" in capsys.readouterr().err
