"""`wmdeploy distill`: a student decoder or encoder."""

from pathlib import Path
from typing import Annotated

import typer

from wmdeploy.cli.common import app, example, print_note
from wmdeploy.cli.options import (
    DeviceName,
    Family,
    Fit,
    FitName,
    Fps,
    MaxMinutes,
    Seed,
    Series,
    TrainDevice,
    from_hub,
    read_options,
    stage_settings,
)
from wmdeploy.cli.progress import show_progress
from wmdeploy.cli.trained import print_summary
from wmdeploy.errors import WmdeployError, require
from wmdeploy.files import check_output_directory
from wmdeploy.training import TrainOptions


@app.command(epilog=example("wmdeploy distill models/pong --data data/pong -o models/pong-lite"))
def distill(
    source: Annotated[
        str, typer.Argument(help="Model directory, checkpoint or preset.", callback=from_hub)
    ],
    data: Annotated[
        list[Path],
        typer.Option(
            help="Folder of clips of the model's game; repeat for several.", callback=from_hub
        ),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="Model directory to write.")],
    decoder: Annotated[
        str | None,
        typer.Option(
            "--decoder",
            help="Student decoder to make: lite, or tiny, which is smaller. Default: lite.",
            show_default=False,
        ),
    ] = None,
    encoder: Annotated[
        str | None,
        typer.Option(
            help="Student encoder to make instead, lite or tiny: it takes the encoder's place, for "
            "who observes real frames at rate.",
        ),
    ] = None,
    family: Family = None,
    stage: Annotated[
        list[str] | None,
        typer.Option(
            help="Steps, batch or rate of the training, such as student.steps=2000, or "
            "encoder.steps=2000 of an encoder; repeat for several."
        ),
    ] = None,
    max_minutes: MaxMinutes = None,
    device: TrainDevice = DeviceName.auto,
    log: Annotated[Path | None, typer.Option(help="Folder for TensorBoard logs.")] = None,
    seed: Seed = 0,
    fps: Fps = None,
    fit: Fit = FitName.squeeze,
    series: Series = None,
) -> None:
    """Train a small decoder to imitate a model's own, and write the model with both.

    The student learns from the full decoder and from real frames; --decoder of other verbs chooses
    between them. With --encoder it is a small encoder that learns the full one's codes.
    Run the same command again to continue a training that was interrupted.
    """
    if encoder is not None and decoder is not None:
        raise WmdeployError(
            "--encoder, --decoder: got both, expected one; distil the other from what this one "
            "makes"
        )
    check_output_directory(output, *data, Path(source))
    training = TrainOptions(
        data=tuple(data),
        output=output,
        stages=stage_settings(stage),
        max_minutes=max_minutes,
        device=device.value,
        log=log,
        seed=seed,
        read=read_options(fps, fit, series),
    )
    for module in ("accelerate", "torchmetrics"):
        require(module, extra="train", purpose="training")
    from wmdeploy.training.distill import DistillOptions
    from wmdeploy.training.distill import distill as run_distillation

    options = DistillOptions(
        source=source,
        student=next((name for name in (encoder, decoder) if name is not None), "lite"),
        part="decoder" if encoder is None else "encoder",
        training=training,
        family=family,
    )
    with show_progress() as progress:
        summary = run_distillation(options, progress, print_note)
    if summary is not None:  # another process writes the model, and prints
        print_summary(summary)
