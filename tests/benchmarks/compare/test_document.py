"""The files of `wmdeploy compare`: JSON and Markdown for continuous integration."""

import json
import math
from pathlib import Path

import pytest

from wmdeploy import cli
from wmdeploy.benchmarks.compare import pool, run
from wmdeploy.benchmarks.compare.change import Change, Status
from wmdeploy.benchmarks.compare.document import comparison_document, to_markdown
from wmdeploy.benchmarks.compare.run import Comparison


def change(stage: str, status: Status, backend: str = "ort-cpu") -> Change:
    return Change(
        stage=stage, backend=backend, batch=1, what="speed-up", old="2.00x", new="1.50x",
        change="33.3% slower", status=status, noise="4.1%", size=math.inf,
    )  # fmt: skip


SLOWER = Comparison(
    [
        change("frame", "regression", "a|b"),
        change("step", "unclear"),
        change("encoder", "unchanged"),
    ],
    ["the machines differ: @cpu"],
    0.05,
)
SAME = Comparison([change("encoder", "unchanged")], [], 0.05)


def test_markdown_begins_with_the_verdict() -> None:
    lines = to_markdown(SLOWER).splitlines()
    assert lines[0].startswith("**wmdeploy compare: fail**: 1 regression, no improvements")
    assert lines[2].startswith("| stage | backend |")
    rows = [line for line in lines if line.startswith(("| frame", "| step", "| encoder"))]
    assert [row.split(" | ")[0] for row in rows] == ["| frame", "| step"]
    assert "| a\\|b |" in rows[0] and rows[0].endswith("| 4.1% | regression |")
    assert rows[1].endswith("| too noisy |")
    assert any("&#64;cpu" in line for line in lines)
    assert lines[-1].startswith("Fails on: speed 5% lower")


def test_markdown_of_no_change_has_no_table() -> None:
    text = to_markdown(SAME)
    assert text.startswith("**wmdeploy compare: pass**: no regressions") and "|" not in text
    assert "| encoder | ort-cpu | 1 |" in to_markdown(SAME, everything=True)


def test_document_has_all_changes_and_their_counts() -> None:
    document = comparison_document(SLOWER)
    assert (document.verdict, document.schema, document.fail_on) == ("fail", 1, 0.05)
    assert [entry.status for entry in document.changes] == ["regression", "unclear", "unchanged"]
    assert document.counts == {
        "regression": 1, "improvement": 0, "unclear": 1, "information": 0, "unchanged": 1,
    }  # fmt: skip
    assert comparison_document(SAME).verdict == "pass"


@pytest.fixture
def reports(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> tuple[str, str]:
    """Paths of two reports that differ as SLOWER says."""
    monkeypatch.setattr(pool, "read_runs", lambda path: (None, 1))
    monkeypatch.setattr(run, "compare", lambda old, new, limit: SLOWER)
    for name in ("old.json", "new.json"):
        (tmp_path / name).write_text("{}")
    return str(tmp_path / "old.json"), str(tmp_path / "new.json")


def test_command_writes_both_files_and_fails(reports: tuple[str, str], tmp_path: Path) -> None:
    outputs = [tmp_path / "changes.json", tmp_path / "changes.md"]
    with pytest.raises(SystemExit) as raised:
        cli.main(["compare", *reports, "--json", str(outputs[0]), "--markdown", str(outputs[1])])
    assert raised.value.code == 1
    document = json.loads(outputs[0].read_text())
    assert document["verdict"] == "fail" and document["changes"][0]["old"] == "2.00x"
    assert outputs[1].read_text() == to_markdown(SLOWER)
    assert not list(tmp_path.glob(".*"))  # nothing half-written is left


def test_command_does_not_write_over_a_report(
    reports: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        cli.main(["compare", *reports, "--json", reports[0]])
    assert "is the input" in capsys.readouterr().err
    assert Path(reports[0]).read_text() == "{}"
