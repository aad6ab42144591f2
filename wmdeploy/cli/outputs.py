"""Where bench and report write a report's forms."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wmdeploy.errors import WmdeployError
from wmdeploy.files import check_output, real_path, write_text

if TYPE_CHECKING:
    from wmdeploy.benchmarks.report import Report


Html = Annotated[Path | None, typer.Option(help="Write a page here: one file.")]


Markdown = Annotated[Path | None, typer.Option(help="Write a summary for a pull request here.")]


Csv = Annotated[Path | None, typer.Option(help="Write a line for each row here.")]


def check_outputs(paths: Iterable[Path | None], *inputs: Path) -> list[Path]:
    """Those that are given, once it is sure that each can be written, and none over another.

    Raises:
        WmdeployError: one cannot, or two are the same file.
    """
    given = [path for path in paths if path is not None]
    for number, path in enumerate(given):
        check_output(path, *inputs)
        if real_path(path) in (real_path(other) for other in given[:number]):
            raise WmdeployError(f"{path}: is given twice; each output needs a file of its own")
    return given


def write_forms(
    found: "Report", html: Path | None, markdown: Path | None, csv: Path | None
) -> None:
    """Write a report's page, summary and rows, those that a path is given for."""
    from wmdeploy.benchmarks.render.html import write_page
    from wmdeploy.benchmarks.render.markdown import to_markdown
    from wmdeploy.benchmarks.render.spreadsheet import to_csv

    if html:
        write_page(found, html)
    if markdown:
        write_text(to_markdown(found), markdown)
    if csv:
        write_text(to_csv(found), csv)
