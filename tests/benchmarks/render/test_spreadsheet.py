"""Reports as CSV."""

import csv
import io
import re

from tests.benchmarks.made_reports import report_of, row_of
from tests.benchmarks.render.hostile import hostile
from wmdeploy.benchmarks.render.spreadsheet import to_csv
from wmdeploy.benchmarks.report import Memory, Report


def test_csv_has_a_line_for_each_row(report: Report) -> None:
    lines = list(csv.DictReader(io.StringIO(to_csv(report))))
    assert len(lines) == len(report.rows)
    for line, row in zip(lines, report.rows, strict=True):
        assert (line["backend"], line["stage"]) == (row.backend, row.stage)
        assert line["runs"] == str(len(row.samples_ms)) and "samples_ms" not in line
        assert line["p50_ms"] == repr(row.p50_ms)
    worst = [line["parity.worst_frame_psnr_db.64"] for line in lines if line["stage"] == "frame"]
    assert worst[0] == "" and float(worst[1]) > 70
    assert lines[1]["memory.engines.weights"] == "52.0"
    assert "parity" not in lines[0] and "parity.psnr_db" not in lines[0]


def test_a_cell_is_no_formula() -> None:
    row = row_of("=1+1", speedup=-1.0)
    (line,) = csv.DictReader(io.StringIO(to_csv(report_of([row]))))
    assert line["backend"] == "'=1+1" and line["speedup"] == "-1.0"


FORMULAS = (
    *(" =1+1", "\n=1+1", "a\n=1+1", "\t@x", "\x0b-1", "\u00a0+1", "\uff1d1", "\x1b=1", "\x00 =1"),
)


def test_cells_are_no_formulas_however_they_begin() -> None:
    rows = [row_of(reason=text) for text in FORMULAS]
    lines = to_csv(report_of(rows)).splitlines()
    assert len(lines) == 1 + len(FORMULAS)
    cells = [row["reason"] for row in csv.DictReader(lines)]
    assert all(cell[0] in "'a\\" and cell.isprintable() for cell in cells), cells


def test_names_of_columns_are_no_formulas_either() -> None:
    memory = Memory(resident=1.0, engines={"=1+1": 2.0})
    head = next(csv.reader(io.StringIO(to_csv(report_of([row_of(memory=memory)])))))
    assert "memory.engines.=1+1" in head and not any(name.startswith("=") for name in head)


def test_csv_of_a_stranger_holds_no_control_characters(report: Report) -> None:
    text = to_csv(hostile(report))
    assert r"\x07?" in text and not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", text)
    lines = list(csv.DictReader(io.StringIO(text)))
    assert len(lines) == len(report.rows)


def test_csv_of_nothing_is_empty() -> None:
    assert to_csv(report_of()).strip() == ""
