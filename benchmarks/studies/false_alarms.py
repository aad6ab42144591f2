"""How far runs of one bench command lie apart, and what `wmdeploy compare` makes of them.

    for n in 1 2 3 4 5 6; do wmdeploy bench bundles/pong --json run-$n.json; done
    python -m wmdeploy.benchmarks.studies.false_alarms run-*.json --side 3

Nothing changed between the runs, so that each is compared with every other one, in both directions,
and what is flagged is a false alarm; or as many on each side as `--side` says.
"""

from collections.abc import Iterator
from functools import cache
from itertools import combinations
from math import comb
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from wmdeploy.benchmarks.compare.pool import pooled
from wmdeploy.benchmarks.compare.run import compare
from wmdeploy.benchmarks.render.terminal import new_table
from wmdeploy.benchmarks.report import Report, read_json, rows_by_key
from wmdeploy.benchmarks.studies import run_study

MOST_PAIRS = 1000  # each takes a tenth of a second or more


def main(
    reports: Annotated[list[Path], typer.Argument(help="What --json wrote, two or more.")],
    side: Annotated[int, typer.Option(min=1, help="Reports pooled on each side.")] = 1,
) -> None:
    """Print how far speed-ups lie apart, and how many comparisons flag a regression."""
    paths = sorted(set(reports))
    pairs = comb(len(paths), side) * comb(max(0, len(paths) - side), side)
    if not 1 <= pairs <= MOST_PAIRS:
        raise typer.BadParameter(
            f"got {len(paths)} reports, {side} for each side, which makes {pairs} ordered pairs; "
            f"expected 1 to {MOST_PAIRS}"
        )
    _print({str(path): read_json(path) for path in paths}, side)


def _print(reports: dict[str, Report], side: int) -> None:
    out = Console(markup=False, highlight=False)
    runs = [rows_by_key(report) for report in reports.values()]
    baseline = next(iter(reports.values())).baseline
    table = new_table(
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
    pairs = list(_pairs(reports, side))
    flagged = [c.regressions for old, new in pairs if (c := compare(old, new)).regressions]
    out.print(f"{len(flagged)} of {len(pairs)} ordered pairs are flagged")
    for changes in flagged:
        texts = [f"{c.stage} of {c.backend}: {c.what} {c.change}" for c in changes]
        out.print(f"  {', '.join(texts)}")


def _pairs(reports: dict[str, Report], side: int) -> Iterator[tuple[Report, Report]]:
    """All ordered pairs of as many different runs on each side."""
    pool = cache(lambda names: pooled({name: reports[name] for name in names}))
    for old in combinations(reports, side):
        for new in combinations([name for name in reports if name not in old], side):
            yield pool(old), pool(new)


if __name__ == "__main__":
    run_study(main)
