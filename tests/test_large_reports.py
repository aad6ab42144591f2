"""Reports of strangers: as large as nobody's run makes them, or with formulas for a spreadsheet."""

import csv
import dataclasses
from pathlib import Path

import msgspec
import pytest

from wmdeploy.benchmarks.render.html import MOST_SHOWN, render
from wmdeploy.benchmarks.render.spreadsheet import to_csv
from wmdeploy.benchmarks.report import MOST_ENTRIES, Report, read_json
from wmdeploy.errors import WmdeployError
from wmdeploy.files import write_document

STORED = Path(__file__).parents[1] / "docs" / "results" / "small-cpu.json"


@pytest.fixture(scope="module")
def stored() -> Report:
    return read_json(STORED)


def with_rows(report: Report, count: int) -> Report:
    rows = [
        dataclasses.replace(report.rows[0], backend=f"b{i}", samples_ms=[], round_ms=[])
        for i in range(count)
    ]
    return dataclasses.replace(report, rows=rows)


def test_report_of_75000_rows_is_refused(stored: Report, tmp_path: Path) -> None:
    write_document(msgspec.to_builtins(with_rows(stored, 75_000)), tmp_path / "x.json")
    with pytest.raises(WmdeployError, match="lists 75000 rows, expected at most 2000"):
        read_json(tmp_path / "x.json")


def test_report_of_as_many_entries_as_allowed_is_read(stored: Report, tmp_path: Path) -> None:
    write_document(msgspec.to_builtins(with_rows(stored, MOST_ENTRIES)), tmp_path / "x.json")
    assert len(read_json(tmp_path / "x.json").rows) == MOST_ENTRIES


@pytest.mark.parametrize("name", ["rows", "curves", "pacing"])
def test_page_of_too_much_is_refused_before_it_is_drawn(stored: Report, name: str) -> None:
    many = [None] * (MOST_SHOWN + 1)  # none of them is looked at
    with pytest.raises(WmdeployError, match=f"a page of 401 {name} would be too large"):
        render(dataclasses.replace(stored, **{name: many}))  # type: ignore[arg-type]


def test_too_many_pictures_are_refused_before_they_are_measured(stored: Report) -> None:
    strips = {str(i): "" for i in range(MOST_SHOWN + 1)}
    with pytest.raises(WmdeployError, match="a page of 401 strips would be too large"):
        render(dataclasses.replace(stored, strips=strips))


FORMULAS = (
    *(" =1+1", "\n=1+1", "a\n=1+1", "\t@x", "\x0b-1", "\u00a0+1", "\uff1d1", "\x1b=1", "\x00 =1"),
)


def test_cells_are_no_formulas_however_they_begin(stored: Report) -> None:
    rows = [dataclasses.replace(stored.rows[0], reason=text) for text in FORMULAS]
    lines = to_csv(dataclasses.replace(stored, rows=rows)).splitlines()
    assert len(lines) == 1 + len(FORMULAS)
    cells = [row["reason"] for row in csv.DictReader(lines)]
    assert all(cell[0] in "'a\\" and cell.isprintable() for cell in cells), cells
