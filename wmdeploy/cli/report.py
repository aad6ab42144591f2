"""`wmdeploy report`: make a page, Markdown or CSV of a report."""

from pathlib import Path
from typing import Annotated

import typer

from wmdeploy.cli.common import app, example, out
from wmdeploy.cli.outputs import Csv, Html, Markdown, check_outputs, write_forms
from wmdeploy.errors import WmdeployError


@app.command(epilog=example("wmdeploy report pong.json --html pong.html"))
def report(
    stored: Annotated[Path, typer.Argument(metavar="REPORT", help="What bench --json wrote.")],
    html: Html = None,
    markdown: Markdown = None,
    csv: Csv = None,
) -> None:
    """Make a page, a summary or a spreadsheet of a stored report."""
    from wmdeploy.benchmarks.report import read_json

    outputs = check_outputs((html, markdown, csv), stored)
    if not outputs:
        raise WmdeployError("report: nothing to make; give --html, --markdown or --csv")
    write_forms(read_json(stored), html, markdown, csv)
    for path in outputs:
        out.print(f"written: {path}")
