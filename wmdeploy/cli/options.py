"""Options that several verbs share, each with one name, one meaning and one parser."""

import enum
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from wmdeploy.cli.common import print_notes
from wmdeploy.cli.progress import show_progress
from wmdeploy.clips.source import ReadOptions
from wmdeploy.engines.base import BACKENDS
from wmdeploy.errors import TrainingError, WmdeployError
from wmdeploy.families.find import use_family

NODE_BACKENDS = tuple(name for name in BACKENDS if name.startswith("ort-"))  # show inner values

PROFILED_BACKENDS = tuple(name for name, entry in BACKENDS.items() if entry.profiler)


def named_family(context: typer.Context, value: str | None) -> str | None:
    """The callback of `--family`: its name, once this process knows the family."""
    if value is None or context.resilient_parsing:
        return value
    return use_family(value)


def from_hub(context: typer.Context, value: Any) -> Any:
    """The callback of every source: what of it lies on a hub is downloaded, and its path given."""
    from wmdeploy.hub.address import is_address
    from wmdeploy.hub.download import resolve

    if context.resilient_parsing:  # the shell completes a command, which does not run
        return value
    if isinstance(value, list | tuple):
        return [from_hub(context, one) for one in value]
    if value is None or not is_address(value):
        return value
    remarks: list[str] = []
    with show_progress() as progress:
        path = resolve(value, progress, remarks)
    print_notes(remarks)
    return str(path) if isinstance(value, str) else path


class FitName(enum.StrEnum):
    squeeze = "squeeze"
    crop = "crop"
    pad = "pad"


class PrecisionName(enum.StrEnum):
    fp32 = "fp32"
    fp16 = "fp16"


class WeightsName(enum.StrEnum):
    float = "float"
    int8 = "int8"


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


def backend_help(text: str, backends: Iterable[str] = BACKENDS) -> str:
    return f"{text} Available: {', '.join(backends)}."


Backends = Annotated[
    list[str] | None,
    typer.Option(
        "--backend",
        help=backend_help(
            "Backend to run; repeat the option or separate names with commas. Default: every "
            "backend that this machine can run, except aoti, which takes minutes to load."
        ),
    ),
]
Backend = Annotated[
    list[str] | None,
    typer.Option("--backend", help=backend_help("Backend that runs a bundle. Default: ort-cpu.")),
]
Decoder = Annotated[
    str,
    typer.Option(
        "--decoder",
        help="Decoder that renders: full, or a student that `wmdeploy distill` made, such as lite.",
    ),
]
Clip = Annotated[
    Path,
    typer.Option(
        help="Clip of real frames: a video, picture folder, .npz or recorded clip.",
        show_default="a built-in clip of Freeway",
        callback=from_hub,
    ),
]
Clips = Annotated[
    list[Path] | None,
    typer.Option(
        "--clip",
        help="Clip of real frames: a video, picture folder, .npz or recorded clip. Repeat for "
        "more: parity is measured on all of them, time on the first. Default: built-in clips of "
        "Freeway.",
        callback=from_hub,
    ),
]
Batch = Annotated[
    list[str] | None,
    typer.Option(
        "--batch",
        help="Number of sessions that run together, such as 1,2,4,8; repeat the option or "
        "separate numbers with commas. Default: 1.",
    ),
]
Starts = Annotated[
    list[Path] | None,
    typer.Argument(
        help="Clips of real frames, or folders of them, to begin from.",
        show_default="those of the bundle, or built-in ones of Freeway",
        callback=from_hub,
    ),
]
SiteFolder = Annotated[
    Path | None,
    typer.Option(
        "--site",
        help="Folder that wmdeploy site wrote of this bundle: pages can then run the model in the "
        "tab as well, and compare.",
        show_default=False,
    ),
]
Context = Annotated[int, typer.Option(min=1, help="Number of real frames given to the model.")]
BenchContext = Annotated[
    int | None,
    typer.Option(
        "--context",
        min=1,
        help="Number of real frames given to the model. Default: 8, or as many as it takes.",
    ),
]
ParityHorizon = Annotated[
    int | None,
    typer.Option(
        "--horizon", help="Number of frames to imagine for parity. Default: 4 context windows."
    ),
]
Refill = Annotated[
    int | None,
    typer.Option(
        help="Keep this many tokens when the window is full, instead of sliding it by one."
    ),
]
Device = Annotated[
    DeviceName,
    typer.Option("--device", help="Device of PyTorch backends; auto takes a GPU if there is one."),
]
TrainDevice = Annotated[
    DeviceName, typer.Option(help="Device to train on; auto takes a GPU if there is one.")
]
MaxMinutes = Annotated[
    float | None,
    typer.Option(help="Stop training after this many minutes, with a usable model."),
]
Tf32 = Annotated[bool, typer.Option("--tf32", help="Allow TF32 in float32 products on a GPU.")]
Seconds = Annotated[
    float,
    typer.Option(
        "--seconds", help="Seconds of measurement per stage and backend; at least 12 rounds run."
    ),
]
Within = Annotated[
    float,
    typer.Option(
        "--within", help="Stop a stage early once its speed-ups are known to ± this many percent."
    ),
]
Fps = Annotated[
    float | None,
    typer.Option("--fps", help="Resample videos to this many frames per second, by timestamp."),
]
Fit = Annotated[
    FitName,
    typer.Option(help="How to make frames square: scale them, crop them, or pad them with black."),
]
Series = Annotated[
    str | None,
    typer.Option(
        help="Name of the series of frames to read from a folder or file that has several, such "
        "as rgb or wrist."
    ),
]
Family = Annotated[
    str | None,
    typer.Option(
        "--family",
        help="Family of the model, where its files do not name it: one that is shipped or "
        "installed, or module:Class. A plugin runs its own code.",
        callback=named_family,
    ),
]
Seed = Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Random seed.")]


def read_options(fps: float | None, fit: FitName, series: str | None) -> ReadOptions:
    """How a verb reads clips."""
    return ReadOptions(fps, fit.value, series)


def parts(values: Sequence[str] | None) -> tuple[str, ...]:
    """The parts of an option that repeats and takes commas, each once, in their order."""
    texts = [part.strip() for value in values or () for part in value.split(",")]
    return tuple(dict.fromkeys(texts))


def names(option: str, values: Sequence[str] | None, available: Iterable[str]) -> tuple[str, ...]:
    """Names such as "token,latent"; all that are available where none is given.

    Raises:
        WmdeployError: a name is not available.
    """
    available = tuple(available)
    chosen = parts(values)
    for name in chosen:
        if name not in available:
            raise WmdeployError(f"{option}: got {name!r}, expected one of {', '.join(available)}")
    return chosen or available


def one_backend(values: Sequence[str] | None) -> str | None:
    """The name of a backend; None where none is given.

    Raises:
        WmdeployError: the backend is unknown, or there are several.
    """
    if not values:
        return None
    chosen = names("--backend", values, BACKENDS)
    if len(chosen) > 1:
        raise WmdeployError(f"--backend: got {', '.join(chosen)}, expected one backend")
    return chosen[0]


def numbers(option: str, values: Sequence[str] | None) -> tuple[int, ...]:
    """Whole numbers such as "1,2,4".

    Raises:
        WmdeployError: a part is no whole number.
    """
    try:
        return tuple(int(part) for part in parts(values))
    except ValueError:
        given = ",".join(values or ())
        raise WmdeployError(f"{option}: got {given!r}, expected numbers such as 1,2,4") from None


def stage_settings(values: Sequence[str] | None) -> dict[str, float]:
    """Settings of stages, such as denoiser.steps=4000, by name.

    Raises:
        TrainingError: one is none.
    """
    return dict(map(_setting, values or ()))


def _setting(text: str) -> tuple[str, float]:
    name, _, value = text.partition("=")
    try:
        return name, float(value)
    except ValueError:
        raise TrainingError(
            f"stage: got {text!r}, expected a setting and a number, such as denoiser.steps=4000"
        ) from None


def parse_percent(text: str) -> float:
    """`5%` or `5` as 0.05.

    Raises:
        WmdeployError: it is no number, or none of 0 or more.
    """
    try:
        value = float(text.strip().removesuffix("%"))
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise WmdeployError(f"--fail-on: got {text!r}, expected a percentage such as 5%")
    return value / 100
