"""A report as CSV for a spreadsheet."""

import csv
import io
from typing import Any

import msgspec

from wmdeploy.benchmarks.report import Report, Row, flatten
from wmdeploy.text import printable

LISTS = ("samples_ms", "round_ms", "device_samples_ms")  # a spreadsheet has one line for each row


FORMULA = tuple("=+-@＝＋－＠")  # how a cell that a spreadsheet computes begins


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


def _cell(value: Any) -> Any:
    """A text in one printable line that no spreadsheet computes."""
    if not isinstance(value, str):
        return value
    text = " ".join(printable(value).split())
    return f"'{text}" if text.startswith(FORMULA) else text
