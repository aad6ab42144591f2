"""What all commands share: the application, its consoles and errors, options of the same kind."""

import enum
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from wmdeploy import __version__
from wmdeploy.errors import WmdeployError

app = typer.Typer(
    help="Take latent world models from PyTorch to ONNX and TensorRT, with proof of parity.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
# of several processes that train together, the first one tells
_quiet = os.environ.get("RANK", "0") != "0"
out = Console(markup=False, emoji=False, quiet=_quiet)  # paths may hold square brackets and colons
err = Console(stderr=True, markup=False, emoji=False)

Clip = Annotated[Path, typer.Option(help="A video, picture folder, .npz or recorded clip.")]
Seed = Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Seed of everything that is random.")]

# torch's words; on a CPU it has no type of its own for it
_CPU_OUT_OF_MEMORY = "DefaultCPUAllocator: can't allocate memory"


class LayoutName(enum.StrEnum):
    token = "token"
    latent = "latent"


class PrecisionName(enum.StrEnum):
    fp32 = "fp32"
    fp16 = "fp16"


class TrainPrecision(enum.StrEnum):
    fp32 = "fp32"
    bf16 = "bf16"
    fp16 = "fp16"


class DeviceName(enum.StrEnum):
    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class FlavourName(enum.StrEnum):
    auto = "auto"
    tensorrt = "tensorrt"
    tensorrt_rtx = "tensorrt-rtx"


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; exits with 1 and one line for errors that are the user's to mend."""
    # as Ctrl-C: what is half-written is swept up, and processes that were started end too
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        app(arguments)
    except (WmdeployError, OSError, MemoryError, RecursionError) as error:
        told = str(error) or f"{type(error).__name__}: too large for this machine"
        line = Text("error: ", style="red").append(" ".join(told.splitlines()), style="default")
        err.print(line, soft_wrap=True)
        sys.exit(1)
    except RuntimeError as error:  # of torch, which is not imported here
        told = " ".join(str(error).split())
        if type(error).__name__ != "OutOfMemoryError" and _CPU_OUT_OF_MEMORY not in told:
            raise
        told = told[max(0, told.find(_CPU_OUT_OF_MEMORY)) :]
        line = Text("error: ", style="red").append(told, style="default")
        line.append("; take a smaller batch, or a machine with more memory", style="default")
        err.print(line, soft_wrap=True)
        sys.exit(1)


def example(text: str) -> str:
    return f"[dim]Example:[/dim] {text}"


def _print_version(asked: bool) -> None:
    if asked:
        out.print(__version__, highlight=False)
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


def tell(remarks: Sequence[str]) -> None:
    """What a user should know of an input, one line each, on standard error."""
    for remark in remarks:
        err.print(Text("note: ", style="yellow").append(remark, style="default"), soft_wrap=True)


def numbers(option: str, text: str) -> tuple[int, ...]:
    """Whole numbers in a list such as "1,2,4"."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise WmdeployError(f"{option}: got {text!r}, expected numbers such as 1,2,4") from None


def progress_bar() -> Any:
    """A progress bar on standard error; none where that is no terminal."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    text = TextColumn("[progress.description]{task.description}")
    columns = (text, BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=err, transient=True, disable=_quiet or not err.is_terminal)
