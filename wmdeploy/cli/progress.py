"""How far a verb is, on standard error: a bar on a terminal, plain lines in a log."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.progress import Progress as Bar

from wmdeploy.cli.console import err, quiet
from wmdeploy.progress import Progress, silent
from wmdeploy.text import printable

LINE_SECONDS = 30.0
LINE_SHARE = 0.1
LEAST_SECONDS = 1.0


@contextmanager
def show_progress() -> Iterator[Progress]:
    """What a library reports its progress to, while the block runs.

    Of several processes that train together, the first one shows it.
    """
    if quiet:
        yield silent
    elif not err.is_terminal or err.is_dumb_terminal:
        yield Lines(lambda line: err.print(line))
    else:
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[detail]}", markup=False),
        )
        # tables that are printed meanwhile go through the bar only where both share the terminal
        shared = sys.stdout.isatty()
        with Bar(*columns, console=err, transient=True, redirect_stdout=shared) as bar:
            yield _OneBar(bar)


class Lines:
    """A line for every 10% of a task or every 30 seconds, whichever is first; never two a second.

    Args:
        write: takes a line without its end.
        clock: seconds.
    """

    def __init__(
        self, write: Callable[[str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._write, self._clock = write, clock
        self._task: str | None = None
        self._start = self._written = clock()
        self._done = 0
        self._share = 0.0  # of the task, at its newest line

    def __call__(self, task: str, done: int, total: int, detail: str = "") -> None:
        now = self._clock()
        if task != self._task or done < self._done:
            self._task, self._start, self._share = task, now, 0.0
        self._done = done
        share = done / max(1, total)
        further = share - self._share >= LINE_SHARE - 1e-9
        silence = now - self._written
        if silence >= LINE_SECONDS or (further and silence >= LEAST_SECONDS):
            self._written, self._share = now, share
            elapsed = timedelta(seconds=round(now - self._start))
            line = f"{task}: {done} of {total} ({share:.0%}) after {elapsed}"
            self._write(f"{line}; {detail}" if detail else line)


class _OneBar:
    """A bar for the task of the moment; those before it are hidden."""

    def __init__(self, bar: Bar) -> None:
        self._bar = bar
        self._task: tuple[str, TaskID] | None = None

    def __call__(self, task: str, done: int, total: int, detail: str = "") -> None:
        detail = printable(detail)
        if self._task is None or self._task[0] != task:
            if self._task is not None:
                self._bar.update(self._task[1], visible=False)
            self._task = task, self._bar.add_task(printable(task), total=total, detail=detail)
        self._bar.update(self._task[1], completed=done, total=total, detail=detail)
