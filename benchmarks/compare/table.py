"""Changes between reports as a table, and in a sentence."""

from rich.table import Table
from rich.text import Text

from wmdeploy.benchmarks.compare.change import LEAST_MEMORY, Status
from wmdeploy.benchmarks.compare.run import ALWAYS_SHOWN, STYLES, Comparison
from wmdeploy.benchmarks.render.terminal import new_table
from wmdeploy.benchmarks.stats import FALSE_ALARMS

LONGEST_WORDS = {"what": 8, "old": 7, "new": 7, "change": 6}  # else a terminal of 80 cuts them


WORDS: dict[Status, str] = {"unclear": "too noisy"}


def comparison_table(comparison: Comparison, everything: bool = False) -> Table:
    """What changed beyond the noise; with `everything`, all that was compared."""
    table = new_table(
        "NEW against OLD",
        "speed-up: over the baseline of the same report; its change on equal hardware is that of "
        "rounds in which the baseline took equally long. noise: what a change must exceed, for "
        f"{FALSE_ALARMS:.0%} false alarms in all rows together; of memory and parity a fixed "
        "tolerance",
        ("stage", "backend", "batch", "what"),
        ("old", "new", "change", "noise"),
    )
    table.add_column("verdict")
    for column in table.columns:
        column.no_wrap = column.header in ("stage", "backend", "batch", "verdict")
        column.min_width = LONGEST_WORDS.get(str(column.header))
    for change in comparison.changes:
        if everything or change.status in ALWAYS_SHOWN:
            word = WORDS.get(change.status, change.status)
            batch = "" if change.batch is None else str(change.batch)
            cells = (change.stage, change.backend, batch, change.what, change.old, change.new,
                     change.change, change.noise)  # fmt: skip
            style = STYLES[change.status]
            table.add_row(*(Text(cell) for cell in cells), Text(word, style=style))
    return table


def summary(comparison: Comparison) -> str:
    """Two lines: what changed, and by which rule."""
    counts = comparison.counts
    parts = [f"{_count(counts['regression'], 'regression')}",
            f"{_count(counts['improvement'], 'improvement')}"]  # fmt: skip
    if counts["unclear"]:
        parts.append(f"{counts['unclear']} too noisy to tell")
    parts.append(f"{counts['unchanged']} unchanged")
    if counts["information"]:
        parts.append(f"{counts['information']} changed, for information only")
    return (
        f"{', '.join(parts)}\n"
        f"fails on: speed {100 * comparison.fail_on:g}% lower, beyond the noise; memory "
        f"{100 * max(comparison.fail_on, LEAST_MEMORY):g}% larger; parity worse; a backend lost"
    )


def _count(number: int, what: str) -> str:
    return f"{number or 'no'} {what}{'' if number == 1 else 's'}"
