"""Changes as a table."""

import io

from rich.console import Console

from tests.benchmarks.made_reports import made_report
from wmdeploy.benchmarks.compare.run import compare
from wmdeploy.benchmarks.compare.table import comparison_table
from wmdeploy.benchmarks.report import Report


def test_the_table_fits_a_terminal_of_80(report: Report) -> None:
    found = compare(report, made_report(1, slower={"step": 2.0}))
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(comparison_table(found, everything=True))
    told = console.export_text()
    assert "slower" in told and "unchanged" in told and "…" not in told
