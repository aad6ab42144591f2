"""Sweeps as a table."""

import io

from rich.console import Console

from tests.benchmarks.sweep.cells import cell
from wmdeploy.benchmarks.sweep.budget import parse_budget
from wmdeploy.benchmarks.sweep.run import (
    Sweep,
)
from wmdeploy.benchmarks.sweep.table import sweep_table


def test_rows_fit_80_columns() -> None:
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(sweep_table(Sweep([cell(123.0, 3715.0, 120.0)]), parse_budget("frame<1ms")))
    line = next(line for line in console.export_text().splitlines() if "ort-cpu" in line)
    assert all(word in line for word in ("token fp32", "3715", "100.00%", "pass", "missed"))
