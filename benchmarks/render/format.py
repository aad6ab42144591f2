"""The shape of every table of the benchmarks in a terminal."""

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table

from wmdeploy.benchmarks.report import Report, Row, section


def narrow_table(
    title: str, caption: str | None, left: Sequence[str], right: Sequence[str]
) -> Table:
    """Without lines between columns, so that it is narrow enough for a terminal of 100."""
    table = Table(
        title=title,
        caption=caption,
        title_justify="left",
        caption_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 0),
    )
    for heading in left:
        table.add_column(heading)
    for heading in right:
        table.add_column(heading, justify="right")
    return table


def about(report: Report) -> str:
    """One line: what was measured, and where."""
    bundle, environment = report.bundle, report.environment
    recipe = section(bundle, "recipe")
    gpu = section(environment, "gpu").get("name")
    what = [recipe.get("precision"), f"{recipe.get('layout')} layout",
            f"context {bundle.get('context')}", f"horizon {bundle.get('horizon')}"]  # fmt: skip
    where = [gpu, environment.get("cpu"), f"{environment.get('cores')} cores"]
    return "; on ".join(", ".join(str(x) for x in part if x) for part in (what, where))


def figure(value: float | None) -> str:
    """Three significant digits at most, without exponents."""
    if value is None:
        return ""
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def speed_up(row: Row) -> str:
    """Such as `1.86x (1.83 to 1.89)`, with what is to be doubted about it."""
    told = f"{ratio(row)} ({interval(row)})" if interval(row) else ratio(row)
    return f"{told}, noisy" if row.noisy else told


def ratio(row: Row) -> str:
    """The baseline's time over this row's."""
    return "" if row.speedup is None else f"{row.speedup:.2f}x"


def interval(row: Row) -> str:
    """The 95% interval of the speed-up."""
    low, high = row.speedup_low, row.speedup_high
    return "" if low is None or high is None or low == high else f"{low:.2f} to {high:.2f}"


def worst_db(row: Row) -> str:
    """PSNR of the worst frame of the longest rollout."""
    worst = (row.parity and row.parity.worst_frame_psnr_db) or {}
    return f"{min(worst.values()):.1f}" if worst else ""
