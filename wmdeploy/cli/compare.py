"""What is made from reports that are there: compare, report."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from wmdeploy.cli.common import err, example, out
from wmdeploy.errors import WmdeployError
from wmdeploy.files import check_output, real_path, write_text

if TYPE_CHECKING:
    from wmdeploy.benchmarks.report import Report

commands = typer.Typer()

Html = Annotated[Path | None, typer.Option(help="Write a page here: one file.")]
Markdown = Annotated[Path | None, typer.Option(help="Write a summary for a pull request here.")]
Csv = Annotated[Path | None, typer.Option(help="Write a line for each row here.")]


@commands.command(epilog=example("wmdeploy compare main.json branch.json --fail-on 5%"))
def compare(
    old: Annotated[
        Path, typer.Argument(help="What bench --json wrote before, or a folder of several runs.")
    ],
    new: Annotated[Path, typer.Argument(help="What it wrote after, or a folder likewise.")],
    fail_on: Annotated[
        str, typer.Option(help="The slowdown or growth that fails, in per cent.")
    ] = "5%",
    everything: Annotated[
        bool, typer.Option("--all", help="Show what has not changed, too.")
    ] = False,
) -> None:
    """Find regressions in speed, memory or parity, beyond the noise; exits with 1 if there are."""
    from wmdeploy.benchmarks.compare.pool import read_runs
    from wmdeploy.benchmarks.compare.run import (
        ALWAYS_SHOWN,
        comparison_table,
        parse_percent,
        summary,
    )
    from wmdeploy.benchmarks.compare.run import (
        compare as compare_reports,
    )

    limit = parse_percent(fail_on)
    (before, before_runs), (after, after_runs) = read_runs(old), read_runs(new)
    found = compare_reports(before, after, limit)
    if (before_runs, after_runs) != (1, 1):
        found.notes.insert(0, f"runs pooled: {before_runs} of OLD, {after_runs} of NEW")
    if everything or any(found.counts[status] for status in ALWAYS_SHOWN):
        out.print(comparison_table(found, everything))
    for note in found.notes:
        out.print(Text("note: ", style="yellow").append(note, style="default"))
    out.print(summary(found))
    if found.counts["unchanged"] + found.counts["information"] and not everything:
        err.print("--all shows what is unchanged, too", style="dim")
    if found.regressions:
        raise typer.Exit(1)


@commands.command(epilog=example("wmdeploy report pong.json --html pong.html"))
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
    from wmdeploy.benchmarks.render.markdown import to_csv, to_markdown

    if html:
        write_page(found, html)
    if markdown:
        write_text(to_markdown(found), markdown)
    if csv:
        write_text(to_csv(found), csv)
