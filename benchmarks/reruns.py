"""How far runs of one bench command lie apart, and what `wmdeploy compare` makes of them.

    for n in 1 2 3 4 5; do wmdeploy bench bundles/pong --json run-$n.json; done
    python -m benchmarks.reruns run-*.json

Nothing changed between the runs, so that each is compared with every other one, in both directions,
and what is flagged is a false alarm.
"""

from itertools import permutations
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from benchmarks.change import keyed
from benchmarks.comparable import baseline_of
from benchmarks.compare import compare
from benchmarks.narrow import narrow_table
from benchmarks.report import Report, read_json
from wmdeploy.errors import WmdeployError


def main(
    reports: Annotated[list[Path], typer.Argument(help="What --json wrote, two or more.")],
) -> None:
    """Print how far speed-ups lie apart, and how many comparisons flag a regression."""
    if len(reports) < 2:
        raise typer.BadParameter("got one report, expected two or more")
    try:
        _tell([read_json(path) for path in reports])
    except (WmdeployError, OSError) as error:
        raise typer.BadParameter(str(error)) from error


def _tell(found: list[Report]) -> None:
    out = Console(markup=False, highlight=False)
    runs = [keyed(report) for report in found]
    baseline = baseline_of(found[0])
    table = narrow_table(
        f"{len(runs)} runs of one command",
        "spread: of the speed-ups, highest over lowest; noisy: runs that said so",
        ("stage", "backend", "batch"),
        ("lowest", "highest", "spread", "noisy"),
    )
    for key in runs[0]:
        backend, stage, batch = key
        rows = [run[key] for run in runs if key in run]
        ratios = [row.speedup for row in rows if row.speedup and row.speedup_low]
        if len(ratios) == len(runs) and backend != baseline:
            table.add_row(
                stage, backend, str(batch), f"{min(ratios):.2f}x", f"{max(ratios):.2f}x",
                f"{max(ratios) / min(ratios) - 1:.1%}", str(sum(row.noisy for row in rows)),
            )  # fmt: skip
    out.print(table)
    pairs = list(permutations(found, 2))
    flagged = [c.regressions for old, new in pairs if (c := compare(old, new)).regressions]
    out.print(f"{len(flagged)} of {len(pairs)} ordered pairs are flagged")
    for changes in flagged:
        told = [f"{c.stage} of {c.backend}: {c.what} {c.change}" for c in changes]
        out.print(f"  {', '.join(told)}")


if __name__ == "__main__":
    typer.run(main)
