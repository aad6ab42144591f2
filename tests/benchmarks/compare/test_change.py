"""Speed and memory of one row in two reports."""

import dataclasses
import math
from typing import Any

import pytest

from tests.benchmarks.compare.helpers import status
from tests.benchmarks.made_reports import row_of, with_rows
from wmdeploy.benchmarks.compare.change import speed_up_of
from wmdeploy.benchmarks.compare.run import compare
from wmdeploy.benchmarks.report import Report, Row


def test_figures_of_a_damaged_report_are_told(report: Report) -> None:
    def rounds(ms: float) -> Any:
        return lambda row: dataclasses.replace(
            row, round_ms=[1.0 if row.backend == "eager" else ms] * len(row.round_ms)
        )

    found = compare(with_rows(report, rounds(1e-300)), with_rows(report, rounds(1e300)))
    assert found.regressions[0].change == "over 100,000,000% slower"


def test_few_rounds_are_compared_by_their_ratio(report: Report) -> None:
    few = with_rows(report, lambda row: dataclasses.replace(row, round_ms=row.round_ms[:5]))
    assert not compare(few, few).regressions
    slow = with_rows(few, lambda row: dataclasses.replace(
        row, **{n: v / 2 for n in ("speedup", "speedup_low", "speedup_high")
                if row.backend == "compile" and row.speedup_low and (v := getattr(row, n))}
    ))  # fmt: skip
    assert {c.backend for c in compare(few, slow).regressions} == {"compile"}


def test_a_slower_baseline_and_single_times_are_information(report: Report) -> None:
    def change(row: Row) -> Row:
        slower = row.backend == "eager" or row.stage in ("load", "first_call")
        return dataclasses.replace(row, p50_ms=3 * row.p50_ms) if slower and row.p50_ms else row

    found = compare(report, with_rows(report, change))
    assert not found.regressions
    assert status(found, "eager", "p50 ms", "decoder") == "information"
    assert status(found, "ort-cpu", "p50 ms", "load") == "information"


@pytest.mark.parametrize(
    ("factor", "fail_on", "expected"),
    [(1.04, 0.0, "unchanged"), (1.06, 0.0, "regression"), (1.2, 0.25, "unchanged"),
     (1.3, 0.25, "regression"), (0.9, 0.05, "improvement")],
)  # fmt: skip
def test_memory_counts_from_five_per_cent(
    report: Report, factor: float, fail_on: float, expected: str
) -> None:
    def change(row: Row) -> Row:
        if (row.backend, row.batch) != ("ort-cpu", 4):
            return row
        return dataclasses.replace(row, memory_mb=factor * (row.memory_mb or 0))

    found = compare(report, with_rows(report, change), fail_on)
    memory = {(c.backend, c.batch): c.status for c in found.changes if c.what == "memory MB"}
    assert len(memory) == 6 and memory.pop(("ort-cpu", 4)) == expected
    assert set(memory.values()) == {"unchanged"}


def test_rows_without_an_interval_are_information(report: Report) -> None:
    old = with_rows(report, lambda row: dataclasses.replace(row, speedup_low=None))

    def change(row: Row) -> Row:
        return dataclasses.replace(row, p50_ms=1.5 * row.p50_ms) if row.p50_ms else row

    changes = compare(old, with_rows(old, change))
    assert not changes.regressions and not any(c.what == "speed-up" for c in changes.changes)
    assert {c.status for c in changes.changes if c.what == "p50 ms"} == {"information"}


def test_figures_that_make_no_sense_are_no_ratio() -> None:
    row = row_of("a", "step", speedup=2.0, speedup_low=0.0, speedup_high=3.0)
    assert speed_up_of(row) is None
    assert speed_up_of(dataclasses.replace(row, speedup_low=5.0)) is None
    whole = speed_up_of(dataclasses.replace(row, speedup_low=1.0, speedup_high=4.0))
    assert whole is not None and whole.log == pytest.approx(math.log(2))
