"""What all commands share: the application, its consoles and errors, options of the same kind."""

import enum
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from wmdeploy import __version__
from wmdeploy.cli.console import err, out, use_any_encoding
from wmdeploy.clips.source import ReadOptions
from wmdeploy.errors import WmdeployError
from wmdeploy.files import explained
from wmdeploy.text import one_line

app = typer.Typer(
    help="Take latent world models from PyTorch to ONNX and TensorRT, with proof of parity.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


class FitName(enum.StrEnum):
    squeeze = "squeeze"
    crop = "crop"
    pad = "pad"


Clip = Annotated[Path, typer.Option(help="A video, picture folder, .npz or recorded clip.")]
Fps = Annotated[
    float | None,
    typer.Option("--fps", help="Frames per second to take from videos, by the times in them."),
]
Fit = Annotated[
    FitName, typer.Option(help="How frames become squares: scaled, cut, or with black beside them.")
]
Series = Annotated[
    str | None,
    typer.Option(help="Which frames of several in a folder or file: rgb, wrist ..."),
]
Seed = Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Seed of everything that is random.")]

# too little memory, where it has no type of its own: words of torch on a CPU, the loader, Python
_NO_MEMORY = (
    "DefaultCPUAllocator: can't allocate memory",
    "failed to map segment from shared object",
    "can't start new thread",
)


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
    use_any_encoding()
    try:
        app(arguments)
    except OSError as error:
        _fail(explained(error))
    except UnicodeEncodeError as error:
        if error.encoding != "utf-8":
            raise
        name = error.object[max(0, error.start - 100) : error.end + 100]
        _fail(f"{name}: a name that is no UTF-8, which this verb needs; rename it")
    except (WmdeployError, MemoryError, RecursionError) as error:
        _fail(str(error) or f"{type(error).__name__}: too large for this machine")
    except (RuntimeError, ImportError) as error:  # of torch, which is not imported here
        told = str(error)
        if type(error).__name__ != "OutOfMemoryError" and not any(w in told for w in _NO_MEMORY):
            raise
        told = one_line(told[max(0, told.find(_NO_MEMORY[0])) :])
        _fail(f"{told}; take a smaller batch, or a machine with more memory")


def _fail(told: str) -> None:
    err.print(Text("error: ", style="red").append(one_line(told), style="default"))
    sys.exit(1)


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


def read_options(fps: float | None, fit: FitName, series: str | None) -> ReadOptions:
    """How clips are to be read, from the options of a verb that reads some."""
    return ReadOptions(fps, fit.value, series)


def tell(remarks: Sequence[str]) -> None:
    """What a user should know of an input, one line each, on standard error."""
    for remark in remarks:
        print_note(remark)


def numbers(option: str, text: str) -> tuple[int, ...]:
    """Whole numbers in a list such as "1,2,4"."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise WmdeployError(f"{option}: got {text!r}, expected numbers such as 1,2,4") from None


def print_note(line: str) -> None:
    """What a user should know of the data, beside the results."""
    err.print(Text("note: ", style="yellow").append(line, style="default"))
