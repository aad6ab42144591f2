"""Reports in a terminal."""

import dataclasses
import io

import pytest
from rich.console import Console

from tests.benchmarks.made_reports import report_of, row_of, with_rows_of
from tests.benchmarks.render.hostile import hostile
from wmdeploy.benchmarks.render.terminal import report_tables
from wmdeploy.benchmarks.report import Memory, Report


def shown(report: Report, width: int = 160) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(*report_tables(report))
    return console.export_text()


def test_tables_show_every_backend(report: Report) -> None:
    text = shown(report)
    for word in ("ort-cpu", "imagine", "speed-up", "of floor", "worst dB to 64", "GFLOP/s"):
        assert word in text


def test_every_part_of_the_report_has_its_table(report: Report) -> None:
    titles = [str(table.title).split(":")[0] for table in report_tables(report)]
    assert titles[:4] == [
        "small", "batches", "fixed rate", "which graph brings the error in"
    ]  # fmt: skip
    assert titles[4].startswith("parity with eager in float32") and len(titles) == 5
    fewer = dataclasses.replace(report, substitutions={}, fixed_rate=[])
    assert len(report_tables(fewer)) == 3
    assert report_tables(report_of()) == []


def test_latency_fits_100_columns(report: Report) -> None:
    lines = shown(report, 100).splitlines()
    rows = [r for r in report.rows if r.backend == "ort-cpu" and r.batch == 1 and r.round_ms]
    assert len(rows) == 7
    for row in rows:
        assert row.speedup and row.speedup_low and row.speedup_high
        half = (row.speedup_high - row.speedup_low) / 2 / row.speedup
        cell = f" {row.speedup:.2f}x ±{100 * half:.1f}% "
        # on one line, with the bound behind it
        assert any(cell in line and "80% ops" in line for line in lines), cell


def test_stages_stand_where_they_change(report: Report) -> None:
    lines = [line.split() for line in shown(report).splitlines()]
    words = {"eager", "ort-cpu", "compile"}
    first = [line[:2] for line in lines if len(line) > 4 and words & set(line[:2])]
    assert first[:4] == [["load", "eager"], ["ort-cpu", "1"], ["compile", "1"], ["first", "eager"]]


def test_rows_of_a_backend_that_failed_are_red(report: Report) -> None:
    failed = with_rows_of(report, "compile", verdict="fail", reason="worst frame 12.0 dB")
    latency = report_tables(failed)[0]
    styles = {str(row.style) for row in latency.rows}
    assert styles == {"None", "red"}
    assert sum(row.style == "red" for row in latency.rows) == 9
    assert all(row.style is None for row in report_tables(report)[0].rows)
    assert "failed: compile: worst frame 12.0 dB" in shown(failed)


def test_memory_on_a_gpu_is_shown_as_each_counts_it() -> None:
    memory = Memory(
        resident=900.0,
        gpu_process=1600.0,
        gpu_used=1900.0,
        torch_peak=250.0,
        engines={"weights": 663.0, "scratch": 180.0},
    )
    row = row_of("tensorrt", device="cuda:0", memory=memory, memory_mb=1600.0)
    text = shown(report_of([row]))
    for cell in ("1600", "1900", "250", "weights 663, scratch 180", "900"):
        assert cell in text


@pytest.mark.parametrize("width", [80, 160])
def test_markup_of_a_stranger_is_shown_as_it_is(report: Report, width: int) -> None:
    stranger = hostile(with_rows_of(report, "ort-cpu", backend="[red]x[/red]", reason="[/bold]"))
    assert "[red]x[/red]" in shown(stranger, width)
