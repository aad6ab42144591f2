"""Files that verbs write their results to."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wmdeploy.errors import WmdeployError
from wmdeploy.files import check_output, real_path, write_text

if TYPE_CHECKING:
    from wmdeploy.benchmarks.report import Report


Json = Annotated[Path | None, typer.Option(help="Write the result to this JSON file.")]
Html = Annotated[Path | None, typer.Option(help="Write a self-contained HTML page to this file.")]
Markdown = Annotated[
    Path | None, typer.Option(help="Write a summary for a pull request to this file.")
]
Csv = Annotated[Path | None, typer.Option(help="Write one line per row to this CSV file.")]


def check_outputs(paths: Iterable[Path | None], *inputs: Path) -> list[Path]:
    """The paths that are given, each of which can be written.

    Raises:
        WmdeployError: one cannot be written, or two are the same file.
    """
    given = [path for path in paths if path is not None]
    for number, path in enumerate(given):
        check_output(path, *inputs)
        if real_path(path) in (real_path(other) for other in given[:number]):
            raise WmdeployError(f"{path}: is given twice; each output needs a file of its own")
    return given


def write_forms(
    report: "Report", html: Path | None, markdown: Path | None, csv: Path | None
) -> None:
    """Write a report's page, summary and rows to those of the paths that are given."""
    from wmdeploy.benchmarks.render.html import write_page
    from wmdeploy.benchmarks.render.markdown import to_markdown
    from wmdeploy.benchmarks.render.spreadsheet import to_csv

    if html:
        write_page(report, html)
    if markdown:
        write_text(to_markdown(report), markdown)
    if csv:
        write_text(to_csv(report), csv)
