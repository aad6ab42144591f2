"""Programs behind figures in docs/."""

import sys
from collections.abc import Callable

import typer

from wmdeploy.errors import WmdeployError
from wmdeploy.files import explained
from wmdeploy.text import one_line


def run_study(study: Callable[..., None]) -> None:
    """A study as a program: of its arguments; an error that the user can mend is one line."""
    try:
        typer.run(study)
    except (WmdeployError, OSError) as error:
        line = explained(error) if isinstance(error, OSError) else str(error)
        sys.exit(f"error: {one_line(line)}")
