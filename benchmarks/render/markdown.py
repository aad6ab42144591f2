"""A report as Markdown for a pull request, and as CSV for a spreadsheet.

Names in a report may come from anywhere: neither a table nor a formula can be made of them.
"""

import csv
import io
import re
from typing import Any

import msgspec

from wmdeploy.benchmarks.compare.compatibility import flatten, section
from wmdeploy.benchmarks.report import Report, Row
from wmdeploy.text import printable

LISTS = ("samples_ms", "round_ms", "device_samples_ms")  # a spreadsheet has one line for each row
FORMULA = tuple("=+-@＝＋－＠")  # how a cell that a spreadsheet computes begins
SUMMARY_STAGES = ("frame", "imagine", "slide", "encode", "prefill", "step", "decode")


def to_csv(report: Report) -> str:
    """A line for each row; nested figures as columns such as `parity.worst_frame_psnr_db.32`."""
    lines = []
    for row in report.rows:
        fields = msgspec.to_builtins(row)
        scalars = {name: value for name, value in fields.items() if name not in LISTS}
        lines.append({**flatten(scalars), "runs": len(row.samples_ms)})
    names = list(dict.fromkeys(name for line in lines for name in line))
    columns = [a for a in names if not any(b.startswith(f"{a}.") for b in names)]
    fields_of_row = [*Row.__dataclass_fields__, "runs"]
    columns.sort(key=lambda name: fields_of_row.index(name.split(".")[0]))  # stable
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writerow({name: _cell(name) for name in columns})
    writer.writerows({name: _cell(value) for name, value in line.items()} for line in lines)
    return text.getvalue()


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


def about(report: Report) -> str:
    """One line: what was measured, and where."""
    bundle, environment = report.bundle, report.environment
    recipe = section(bundle, "recipe")
    gpu = section(environment, "gpu").get("name")
    what = [recipe.get("precision"), f"{recipe.get('layout')} layout",
            f"context {bundle.get('context')}", f"horizon {bundle.get('horizon')}"]  # fmt: skip
    where = [gpu, environment.get("cpu"), f"{environment.get('cores')} cores"]
    return "; on ".join(", ".join(str(x) for x in part if x) for part in (what, where))


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


def figure(value: float | None) -> str:
    """Three significant digits at most, without exponents."""
    if value is None:
        return ""
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def speed_up(row: Row) -> str:
    """Such as `1.86x (1.83 to 1.89)`, with what is to be doubted about it."""
    told = f"{ratio(row)} ({interval(row)})" if interval(row) else ratio(row)
    return f"{told}, noisy" if row.noisy else told


def ratio(row: Row) -> str:
    """The baseline's time over this row's."""
    return "" if row.speedup is None else f"{row.speedup:.2f}x"


def interval(row: Row) -> str:
    """The 95% interval of the speed-up."""
    low, high = row.speedup_low, row.speedup_high
    return "" if low is None or high is None or low == high else f"{low:.2f} to {high:.2f}"


def worst_db(row: Row) -> str:
    """PSNR of the worst frame of the longest rollout."""
    worst = (row.parity and row.parity.worst_frame_psnr_db) or {}
    return f"{min(worst.values()):.1f}" if worst else ""


def _cell(value: Any) -> Any:
    """A text in one printable line that no spreadsheet computes."""
    if not isinstance(value, str):
        return value
    text = " ".join(printable(value).split())
    return f"'{text}" if text.startswith(FORMULA) else text


def _escape(value: object) -> str:
    """Plain text within a line of Markdown: no markup, no table, no mention of a person."""
    text = "" if value is None else printable(" ".join(str(value).split()))
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace("@", "&#64;")
    return re.sub(r"([\\`*_\[\]|~#])", r"\\\1", text)
