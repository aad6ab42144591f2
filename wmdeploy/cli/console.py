"""What all commands print with. The rules that hold for every line and table are here, once.

- A line is never broken by us, and a word in a table never: names can be copied, and found by grep.
- Control characters in names and messages, which may be a stranger's, do not reach the terminal.
- A reader that has gone (`| head -1`) ends the printing, not the work.
"""

import os
import sys
import textwrap
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.measure import Measurement
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from wmdeploy.text import printable


class Terminal(Console):
    """A console without markup and emoji, as paths may hold square brackets and colons."""

    def __init__(self, *, stderr: bool = False, quiet: bool = False) -> None:
        super().__init__(stderr=stderr, quiet=quiet, markup=False, emoji=False, highlight=False)

    def print(self, *objects: Any, **options: Any) -> None:
        if all(isinstance(one, str | Text) for one in objects):
            options.setdefault("soft_wrap", True)
        elif any(isinstance(one, Table) for one in objects):
            objects = tuple(_Unbroken(one) if isinstance(one, Table) else one for one in objects)
            options.setdefault("crop", False)
        super().print(*objects, **options)

    def render_str(self, text: str, **options: Any) -> Text:  # before the layout is computed
        return super().render_str(printable(text), **options)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=printable(segment.text))

    def on_broken_pipe(self) -> None:
        self.quiet = True
        with suppress(OSError, ValueError):  # or Python would tell of it when it ends
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.file.fileno())


class _Unbroken:
    """A table that gets as wide as its words; a title is one line, whatever the width."""

    def __init__(self, table: Table) -> None:
        self.table = table

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        unlimited = options.update(width=sys.maxsize)
        for column in self.table.columns:
            cells = [
                Measurement.get(console, unlimited, cell) for cell in (column.header, *column.cells)
            ]
            column.min_width = max(c.maximum if column.no_wrap else c.minimum for c in cells)
        if isinstance(self.table.title, str):
            title = printable(self.table.title)
            self.table.title = Text(title, "table.title", no_wrap=True, overflow="ignore")
        if isinstance(self.table.caption, str):
            words = textwrap.TextWrapper(
                options.max_width, break_long_words=False, break_on_hyphens=False
            )
            caption = words.fill(printable(self.table.caption))
            self.table.caption = Text(caption, "table.caption", no_wrap=True, overflow="ignore")
        least = Measurement.get(console, unlimited, self.table).minimum
        yield from console.render(self.table, options.update(width=max(options.max_width, least)))


def use_any_encoding() -> None:
    """Show `?` for what standard output and error cannot encode."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # it may be closed, or a test's
            stream.reconfigure(errors="replace")


# of several processes that train together, the first one prints
quiet = os.environ.get("RANK", "0") != "0"
out = Terminal(quiet=quiet)
err = Terminal(stderr=True)
