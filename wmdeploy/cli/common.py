"""The application of all verbs: its entry point, its errors, the lines that several verbs print."""

import signal
import sys
from collections.abc import Iterable
from typing import Annotated

import typer
from rich.text import Text

from wmdeploy import __version__
from wmdeploy.cli.console import err, out, use_any_encoding
from wmdeploy.errors import WmdeployError
from wmdeploy.families.find import plugin_fault
from wmdeploy.files import explained
from wmdeploy.install import install_command
from wmdeploy.text import one_line

app = typer.Typer(
    help="Deploy latent world models: export them from PyTorch to ONNX and TensorRT, run them "
    "frame by frame, and compare every backend with PyTorch.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

EXPORT_PACKAGES = ("torch", "safetensors", "onnxscript", "einops")  # of the extra `export`
# Errors of too little memory that have no type of their own: torch on a CPU, the loader, Python.
_NO_MEMORY = (
    "DefaultCPUAllocator: can't allocate memory",
    "failed to map segment from shared object",
    "can't start new thread",
)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; exits with 1 and one line for errors that the user can mend."""
    # as Ctrl-C: what is half-written is removed, and processes that were started end too
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    use_any_encoding()
    try:
        app(arguments)
    except Exception as error:
        message = _explanation(error)
        if message is None:
            raise
        err.print(Text("error: ", style="red").append(one_line(message), style="default"))
        sys.exit(1)


def _explanation(error: Exception) -> str | None:
    """What the user can mend; None for a bug of ours."""
    if isinstance(error, WmdeployError | MemoryError | RecursionError):
        return str(error) or f"{type(error).__name__}: too large for this machine"
    if isinstance(error, OSError):
        return explained(error)
    if isinstance(error, UnicodeEncodeError) and error.encoding == "utf-8":
        name = error.object[max(0, error.start - 100) : error.end + 100]
        return f"{name}: the name is not UTF-8, which this command needs; rename it"
    if isinstance(error, ModuleNotFoundError) and error.name in EXPORT_PACKAGES:
        fix = install_command("export")
        return f"this needs {error.name}, which is not installed; install it with: {fix}"
    # of torch, which is not imported here
    text = str(error)
    if type(error).__name__ == "OutOfMemoryError" or any(words in text for words in _NO_MEMORY):
        text = one_line(text[max(0, text.find(_NO_MEMORY[0])) :])
        return f"{text}; use a smaller batch, or a machine with more memory"
    return plugin_fault(error)


def example(text: str) -> str:
    return f"[dim]Example:[/dim] {text}"


def _print_version(asked: bool) -> None:
    if asked:
        out.print(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_print_version, help="Print the version."
        ),
    ] = False,
) -> None:
    pass


def print_note(line: str) -> None:
    """Print what a user should know of an input, on standard error."""
    err.print(Text("note: ", style="yellow").append(line, style="default"))


def print_notes(lines: Iterable[str]) -> None:
    for line in lines:
        print_note(line)


def print_warnings(lines: Iterable[str]) -> None:
    """Print what may make a result wrong, on standard error."""
    for line in lines:
        err.print(Text("warning: ", style="yellow").append(line, style="default"))


def print_skipped(lines: Iterable[str]) -> None:
    """Print what a verb left out, and why, on standard error."""
    for line in lines:
        err.print(Text("skipped: ", style="yellow").append(line, style="default"))
