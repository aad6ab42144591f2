"""How far a long task is: one protocol for all verbs. The command line alone shows it."""

from typing import Protocol


class Progress(Protocol):
    """Called whenever a task gets further.

    An exception that it raises, such as KeyboardInterrupt, ends the work as any other would.
    """

    def __call__(self, task: str, done: int, total: int, detail: str = "") -> None:
        """Show how far `task` is.

        Args:
            task: its name. Another name, or fewer parts done, begins a task and ends the last one.
            done: parts that are done, from 0 to `total`.
            total: all parts of the task, at least 1.
            detail: what is being done, or a figure of it, such as "loss 0.1234".
        """


def silent(task: str, done: int, total: int, detail: str = "") -> None:
    """Show nothing."""
