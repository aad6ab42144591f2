"""Reports as Markdown."""

import re

from tests.benchmarks.made_reports import report_of, row_of, with_bundle
from tests.benchmarks.render.hostile import hostile
from wmdeploy.benchmarks.render.markdown import markdown_table, to_markdown
from wmdeploy.benchmarks.render.tables import latency, summary
from wmdeploy.benchmarks.report import Report


def bars(line: str) -> int:
    """Those that part cells."""
    return len(re.findall(r"(?<!\\)\|", line))


def test_markdown_has_the_figures_and_the_environment(report: Report) -> None:
    text = to_markdown(report)
    frame = next(line for line in text.splitlines() if line.startswith("| frame | ort-cpu"))
    row = next(r for r in report.rows if (r.backend, r.stage) == ("ort-cpu", "frame"))
    assert f"| {row.speedup:.2f}x ±" in frame and f"| {row.memory_mb:.0f} |" in frame
    assert "<details><summary>environment</summary>" in text and "| cpu | AMD EPYC |" in text
    assert "- warning: ort-cpu: threads are more than free cores" in text
    assert text.startswith("### wmdeploy bench: small\n") and "\n\n\n" not in text


def test_table_has_the_cells_of_every_renderer(report: Report) -> None:
    table = summary(report)
    head, rule, *lines = markdown_table(table)
    assert head == f"| {' | '.join(table.headings)} |" and bars(rule) == bars(head)
    assert [bars(line) for line in lines] == [bars(head)] * len(table.rows)
    assert rule.split("|")[1:-1] == [
        "---:" if heading in table.numeric else "---" for heading in table.headings
    ]


def test_columns_of_the_page_are_left_out(report: Report) -> None:
    table = latency(report)
    assert "95% interval" in table.headings
    assert "95% interval" not in markdown_table(table)[0]


def test_backends_that_did_not_run_are_told() -> None:
    skipped = row_of("x", verdict="skipped", reason="no *GPU*")
    assert "- x: skipped, no \\*GPU\\*" in to_markdown(report_of([skipped]))


def test_markdown_of_hostile_names_is_still_a_table(report: Report) -> None:
    text = to_markdown(hostile(report))
    assert "<img" not in text and "<script" not in text and "@team" not in text
    head = next(line for line in text.splitlines() if line.startswith("| stage"))
    frames = [line for line in text.splitlines() if line.startswith("| frame")]
    assert len(frames) == 6 and {bars(line) for line in frames} == {bars(head)}


def test_name_of_a_bundle_ends_no_heading(report: Report) -> None:
    text = to_markdown(with_bundle(report, name="a\n# b\r\n| c"))
    assert text.splitlines()[0] == r"### wmdeploy bench: a \# b \| c"


def test_markdown_holds_no_control_characters(report: Report) -> None:
    text = to_markdown(hostile(report))
    assert r"\x07?" in text and not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", text)


def test_noisy_speed_up_says_so_without_a_colour() -> None:
    rows = [
        row_of(p50_ms=2.0, speedup=1.0),
        row_of("ort-cpu", p50_ms=1.0, speedup=2.0, noisy=True, verdict="pass"),
    ]
    text = to_markdown(report_of(rows))
    assert "| 2.00x, noisy |" in text and "1.00x, noisy" not in text


def test_table_without_rows_is_no_table() -> None:
    rows = [row_of("tensorrt", verdict="skipped", reason="no GPU")]
    assert "|  |" not in to_markdown(report_of(rows)) and "||" not in to_markdown(report_of(rows))
