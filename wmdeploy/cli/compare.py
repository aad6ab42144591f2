"""`wmdeploy compare`: find regressions between reports."""

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from wmdeploy.cli.common import app, err, example, out
from wmdeploy.cli.options import from_hub, parse_percent
from wmdeploy.cli.outputs import Json, Markdown, check_outputs
from wmdeploy.files import write_document, write_text


@app.command(epilog=example("wmdeploy compare main.json branch.json --fail-on 5%"))
def compare(
    old: Annotated[
        Path,
        typer.Argument(
            help="Report of bench --json, or a folder of reports of several runs.",
            callback=from_hub,
        ),
    ],
    new: Annotated[
        Path,
        typer.Argument(help="Report or folder to compare with OLD.", callback=from_hub),
    ],
    fail_on: Annotated[
        str, typer.Option(help="Smallest slowdown or memory growth that fails, in percent.")
    ] = "5%",
    everything: Annotated[bool, typer.Option("--all", help="Show unchanged figures, too.")] = False,
    json: Json = None,
    markdown: Markdown = None,
) -> None:
    """Find regressions in speed, memory or parity beyond the noise; exits with 1 if there are any.

    Pool several runs on each side to find smaller changes.
    """
    from wmdeploy.benchmarks.compare.document import comparison_document, to_markdown
    from wmdeploy.benchmarks.compare.pool import read_runs
    from wmdeploy.benchmarks.compare.run import ALWAYS_SHOWN
    from wmdeploy.benchmarks.compare.run import compare as compare_reports
    from wmdeploy.benchmarks.compare.table import comparison_table, summary

    limit = parse_percent(fail_on)
    outputs = check_outputs((json, markdown), old, new)
    (before, before_runs), (after, after_runs) = read_runs(old), read_runs(new)
    comparison = compare_reports(before, after, limit)
    if (before_runs, after_runs) != (1, 1):
        comparison.notes.insert(0, f"runs pooled: {before_runs} of OLD, {after_runs} of NEW")
    if everything or any(comparison.counts[status] for status in ALWAYS_SHOWN):
        out.print(comparison_table(comparison, everything))
    for note in comparison.notes:
        out.print(Text("note: ", style="yellow").append(note, style="default"))
    out.print(summary(comparison))
    if comparison.counts["unchanged"] + comparison.counts["information"] and not everything:
        err.print("--all also shows unchanged figures", style="dim")
    if json:
        write_document(comparison_document(comparison), json)
    if markdown:
        write_text(to_markdown(comparison, everything), markdown)
    for path in outputs:
        out.print(f"written: {path}")
    if comparison.regressions:
        raise typer.Exit(1)
