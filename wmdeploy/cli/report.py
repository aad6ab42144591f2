"""`wmdeploy report`: render a stored report as HTML, Markdown or CSV."""

from pathlib import Path
from typing import Annotated

import typer

from wmdeploy.cli.common import app, example, out
from wmdeploy.cli.options import from_hub
from wmdeploy.cli.outputs import Csv, Html, Markdown, check_outputs, write_forms
from wmdeploy.errors import WmdeployError


@app.command(epilog=example("wmdeploy report pong.json --html pong.html"))
def report(
    stored: Annotated[
        Path,
        typer.Argument(metavar="REPORT", help="Report of bench --json.", callback=from_hub),
    ],
    html: Html = None,
    markdown: Markdown = None,
    csv: Csv = None,
) -> None:
    """Render a stored report as an HTML page, Markdown or CSV."""
    from wmdeploy.benchmarks.report import read_json

    outputs = check_outputs((html, markdown, csv), stored)
    if not outputs:
        raise WmdeployError("report: got no output, expected --html, --markdown or --csv")
    write_forms(read_json(stored), html, markdown, csv)
    for path in outputs:
        out.print(f"written: {path}")
