"""A report as Markdown for a pull request, and as CSV for a spreadsheet.

Names in a report may come from anywhere: neither a table nor a formula can be made of them.
"""

import re

from wmdeploy.benchmarks.render.format import about, figure, speed_up, worst_db
from wmdeploy.benchmarks.report import Report, Row, flatten, section
from wmdeploy.benchmarks.stages import SUMMARY_STAGES
from wmdeploy.text import printable


def to_markdown(report: Report) -> str:
    """Speed, memory and parity of each backend by stage, then what is worth a warning."""
    timed = [row for row in report.rows if row.p50_ms is not None]
    skipped = {row.backend: row for row in report.rows if row.p50_ms is None}
    facts = {
        **flatten(report.environment),
        **flatten(section(report.bundle, "recipe"), "recipe."),
    }
    lines = [
        f"### wmdeploy bench: {_escape(report.bundle.get('name'))}",
        "",
        _escape(about(report)),
        "",
        "| stage | backend | p50 ms | speed-up (95% interval) | memory MB | worst dB | verdict |",
        "|---|---|---:|---:|---:|---:|---|",
        *(_line(row) for stage in SUMMARY_STAGES for row in timed if row.stage == stage),
        "",
        *(f"- {_escape(name)}: {row.verdict}, {_escape(row.reason)}"
          for name, row in skipped.items()),
        *(f"- warning: {_escape(warning)}" for warning in report.warnings),
        "",
        "<details><summary>environment</summary>",
        "",
        "| what | value |",
        "|---|---|",
        *(f"| {_escape(name)} | {_escape(value)} |" for name, value in facts.items()
          if not name.startswith("gpu_states.")),
        "",
        "</details>",
        "",
    ]  # fmt: skip
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines))


def _line(row: Row) -> str:
    batch = f", batch {row.batch}" if row.batch > 1 else ""
    cells = [
        _escape(row.stage) + batch,
        _escape(row.backend),
        figure(row.p50_ms),
        speed_up(row),
        figure(row.memory_mb) if row.stage == "frame" else "",
        worst_db(row) if row.stage == "frame" else "",
        row.verdict + (f": {_escape(row.reason)}" if row.reason else ""),
    ]
    return f"| {' | '.join(cells)} |"


def _escape(value: object) -> str:
    """Plain text within a line of Markdown: no markup, no table, no mention of a person."""
    text = "" if value is None else printable(" ".join(str(value).split()))
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace("@", "&#64;")
    return re.sub(r"([\\`*_\[\]|~#])", r"\\\1", text)
