"""A report as Markdown for a pull request.

Names in a report may come from anywhere: neither markup nor a table can be made of them.
"""

import re

from wmdeploy.benchmarks.render import tables
from wmdeploy.benchmarks.render.format import about
from wmdeploy.benchmarks.render.tables import Table
from wmdeploy.benchmarks.report import Report
from wmdeploy.text import printable


def to_markdown(report: Report) -> str:
    """Speed, memory and parity of each backend by stage, then what is worth a warning."""
    skipped = [row for row in report.frames() if not row.is_timed]
    lines = [
        f"### wmdeploy bench: {escape(report.bundle.name)}",
        "",
        escape(about(report)),
        "",
        *markdown_table(tables.summary(report)),
        "",
        *(f"- {escape(row.backend)}: {row.verdict}, {escape(row.reason)}" for row in skipped),
        *(f"- warning: {escape(warning)}" for warning in report.warnings),
        "",
        "<details><summary>environment</summary>",
        "",
        *markdown_table(tables.facts(report)),
        "",
        "</details>",
        "",
    ]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines))


def markdown_table(table: Table) -> list[str]:
    """Its lines, without the columns that are for the page only."""
    table = table.narrow()
    if not table.rows:
        return []
    rules = ["---:" if heading in table.numeric else "---" for heading in table.headings]
    noisy = {"warn": ", noisy"}  # a colour elsewhere
    cells = [[escape(cell.text + noisy.get(cell.mark, "")) for cell in r] for r in table.rows]
    return [_line(table.headings), f"|{'|'.join(rules)}|", *map(_line, cells)]


def _line(cells: "tuple[str, ...] | list[str]") -> str:
    return f"| {' | '.join(cells)} |"


def escape(value: object) -> str:
    """Plain text within a line of Markdown: no markup, no table, no mention of a person."""
    text = "" if value is None else printable(" ".join(str(value).split()))
    text = text.replace("&", "&amp;").replace("<", "&lt;")
    return re.sub(r"([\\`*_\[\]|~#])", r"\\\1", text).replace("@", "&#64;")
