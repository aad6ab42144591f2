"""The shape of every table of the benchmarks in a terminal."""

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table


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
