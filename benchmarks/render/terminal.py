"""A report as rich tables for the terminal."""

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table as RichTable
from rich.text import Text

from wmdeploy.benchmarks.render import tables
from wmdeploy.benchmarks.render.tables import Table
from wmdeploy.benchmarks.report import Report
from wmdeploy.text import printable

STYLES = {"warn": "yellow", "fail": "bold red", "pass": "green", "skipped": "yellow"}
UNBROKEN = ("stage", "backend", "speed-up", "of floor", "parity", "codes", "verdict")
GROUPED = ("stage", "backend")  # a first column that is shown where it changes


def report_tables(report: Report) -> list[RichTable]:
    """Latency by stage; what else there is, such as batches and named outputs; parity."""
    chosen = (
        tables.latency(report),
        tables.batches(report),
        tables.fixed_rate(report),
        tables.memory(report),
        tables.substitutions(report),
        tables.outputs(report),
        tables.parity(report),
    )
    failed = {row.backend for row in report.rows if row.verdict == "fail"}
    return [rich_table(table.narrow(), failed) for table in chosen if table.rows]


def rich_table(table: Table, failed: Sequence[str] | set[str] = ()) -> RichTable:
    """In a terminal's colours; rows of the backends that failed are red."""
    shown = new_table(table.title, table.caption)
    for heading in table.headings:
        shown.add_column(
            heading,
            justify="right" if heading in table.numeric else "left",
            no_wrap=heading in UNBROKEN,
        )
    at = table.headings.index("backend") if "backend" in table.headings else None
    grouped = table.headings[0] in GROUPED and len({r[0].text for r in table.rows}) < len(
        table.rows
    )
    for number, row in enumerate(table.rows):
        first = number == 0 or table.rows[number - 1][0].text != row[0].text
        last = number + 1 == len(table.rows) or table.rows[number + 1][0].text != row[0].text
        cells = [Text(printable(cell.text), style=STYLES.get(cell.mark, "")) for cell in row]
        if grouped:
            cells[0] = Text(cells[0].plain if first else "", style="bold")
        bad = at is not None and row[at].text in failed
        shown.add_row(*cells, style="red" if bad else None, end_section=grouped and last)
    return shown


def new_table(
    title: str, caption: str | None, left: Sequence[str] = (), right: Sequence[str] = ()
) -> RichTable:
    """Without lines between columns, so that it is narrow enough for a terminal of 100.

    Args:
        left, right: headings of words and of numbers.
    """
    table = RichTable(
        title=Text(printable(title), style="table.title"),
        caption=None if caption is None else Text(printable(caption), style="table.caption"),
        title_justify="left",
        caption_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 0),
    )
    for heading in left:
        table.add_column(heading)
    for heading in right:
        table.add_column(heading, justify="right")
    return table
