"""`wmdeploy compare`: find regressions between reports."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from wmdeploy.cli.common import app, err, example, out

if TYPE_CHECKING:
    pass


@app.command(epilog=example("wmdeploy compare main.json branch.json --fail-on 5%"))
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
    from wmdeploy.benchmarks.compare.run import ALWAYS_SHOWN, parse_percent
    from wmdeploy.benchmarks.compare.run import (
        compare as compare_reports,
    )
    from wmdeploy.benchmarks.compare.table import comparison_table, summary

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
