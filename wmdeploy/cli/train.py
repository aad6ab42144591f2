"""`wmdeploy train`: train a model."""

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
    TrainPrecision,
    from_hub,
    read_options,
    stage_settings,
)
from wmdeploy.cli.progress import show_progress
from wmdeploy.cli.trained import print_summary
from wmdeploy.errors import require
from wmdeploy.families.find import DEFAULT
from wmdeploy.files import check_output_directory
from wmdeploy.training import TrainOptions


@app.command(epilog=example("wmdeploy train --data data/pong --preset tiny -o models/pong"))
def train(
    data: Annotated[
        list[Path],
        typer.Option(
            help="Folder of clips; repeat to train on several together.", callback=from_hub
        ),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="Model directory to write.")],
    preset: Annotated[
        str,
        typer.Option(
            help="Size of the model: reference, small or tiny, or a preset of another family."
        ),
    ] = "tiny",
    family: Family = None,
    stage: Annotated[
        list[str] | None,
        typer.Option(
            help="Steps, batch or rate of a stage of another family than the reference family, "
            "such as denoiser.steps=4000 or rewards.rate=1e-4; repeat for several."
        ),
    ] = None,
    vqvae_steps: Annotated[
        int, typer.Option(help="Largest number of VQ-VAE steps.")
    ] = TrainOptions.vqvae_steps,
    temporal_steps: Annotated[
        int, typer.Option(help="Largest number of transformer steps.")
    ] = TrainOptions.temporal_steps,
    vqvae_batch: Annotated[
        int, typer.Option(help="Frames per VQ-VAE step on each GPU.")
    ] = TrainOptions.vqvae_batch,
    temporal_batch: Annotated[
        int, typer.Option(help="Windows per transformer step on each GPU.")
    ] = TrainOptions.temporal_batch,
    vqvae_rate: Annotated[
        float, typer.Option(help="Peak learning rate of the VQ-VAE.")
    ] = TrainOptions.vqvae_rate,
    temporal_rate: Annotated[
        float, typer.Option(help="Peak learning rate of the transformer.")
    ] = TrainOptions.temporal_rate,
    vqvae: Annotated[
        Path | None,
        typer.Option(
            help="Model directory whose VQ-VAE is kept; only the transformer is trained then.",
            callback=from_hub,
        ),
    ] = None,
    actions: Annotated[
        bool, typer.Option(help="Condition the model on the recorded actions.")
    ] = True,
    max_minutes: MaxMinutes = None,
    patience: Annotated[
        int,
        typer.Option(
            help="Stop a stage after this many evaluations without improvement on held-out clips; "
            "0 never stops early."
        ),
    ] = TrainOptions.patience,
    precision: Annotated[
        TrainPrecision,
        typer.Option(help="Precision of products; bf16 and fp16 keep sums in float32."),
    ] = TrainPrecision.fp32,
    accumulate: Annotated[int, typer.Option(help="Number of batches per optimizer step.")] = 1,
    checkpointing: Annotated[
        bool,
        typer.Option(
            "--checkpointing", help="Recompute activations: use less memory and more time."
        ),
    ] = False,
    device: TrainDevice = DeviceName.auto,
    log: Annotated[Path | None, typer.Option(help="Folder for TensorBoard logs.")] = None,
    seed: Seed = 0,
    fps: Fps = None,
    fit: Fit = FitName.squeeze,
    series: Series = None,
) -> None:
    """Train a world model: of the reference family a VQ-VAE, then a transformer on its latents.

    Options with vqvae and temporal in their names are of the reference family alone.
    Run the same command again to continue a training that was interrupted.
    """
    check_output_directory(output, *data, *([vqvae] if vqvae else []))
    options = TrainOptions(
        data=tuple(data),
        output=output,
        family=family or DEFAULT,
        preset=preset,
        stages=stage_settings(stage),
        vqvae_steps=vqvae_steps,
        temporal_steps=temporal_steps,
        vqvae_batch=vqvae_batch,
        temporal_batch=temporal_batch,
        vqvae_rate=vqvae_rate,
        temporal_rate=temporal_rate,
        patience=patience,
        vqvae=vqvae,
        actions=actions,
        max_minutes=max_minutes,
        precision=precision.value,
        accumulate=accumulate,
        checkpointing=checkpointing,
        device=device.value,
        log=log,
        seed=seed,
        read=read_options(fps, fit, series),
    )
    for module in ("accelerate", "torchmetrics"):
        require(module, extra="train", purpose="training")
    from wmdeploy.training.train import train as run_training

    with show_progress() as progress:
        summary = run_training(options, progress, tell=print_note)
    if summary is not None:  # another process writes the model, and prints
        print_summary(summary)
