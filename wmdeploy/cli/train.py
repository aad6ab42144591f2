"""`wmdeploy train`: train a model."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from wmdeploy.cli.common import (
    DeviceName,
    Fit,
    FitName,
    Fps,
    Seed,
    Series,
    TrainPrecision,
    app,
    err,
    example,
    out,
    print_note,
    progress_bar,
    read_options,
)
from wmdeploy.errors import require
from wmdeploy.files import check_output_directory


@app.command(epilog=example("wmdeploy train --data data/pong --preset tiny -o models/pong"))
def train(
    data: Annotated[list[Path], typer.Option(help="Folder of clips; repeat to mix several.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Model directory to write.")],
    preset: Annotated[str, typer.Option(help="reference, small or tiny.")] = "tiny",
    vqvae_steps: Annotated[int | None, typer.Option(help="Steps of the VQ-VAE.")] = None,
    temporal_steps: Annotated[int | None, typer.Option(help="Steps of the transformer.")] = None,
    vqvae_batch: Annotated[int | None, typer.Option(help="Frames in a step, for each GPU.")] = None,
    temporal_batch: Annotated[
        int | None, typer.Option(help="Windows in a step, for each GPU.")
    ] = None,
    vqvae_rate: Annotated[float | None, typer.Option(help="Learning rate.")] = None,
    temporal_rate: Annotated[float | None, typer.Option(help="Learning rate.")] = None,
    vqvae: Annotated[
        Path | None, typer.Option(help="A model whose VQ-VAE is kept: train the transformer only.")
    ] = None,
    actions: Annotated[bool, typer.Option(help="Condition on the recorded actions.")] = True,
    max_minutes: Annotated[
        float | None, typer.Option(help="Train no longer; ends with a model that can be used.")
    ] = None,
    patience: Annotated[
        int | None, typer.Option(help="Looks at held-out clips without progress; 0: no early end.")
    ] = None,
    precision: Annotated[
        TrainPrecision, typer.Option(help="bf16 and fp16: mixed with float32.")
    ] = TrainPrecision.fp32,
    accumulate: Annotated[int, typer.Option(help="Batches in one step.")] = 1,
    checkpointing: Annotated[
        bool, typer.Option("--checkpointing", help="Less memory for activations, more time.")
    ] = False,
    device: Annotated[
        DeviceName, typer.Option(help="auto: a GPU if there is one.")
    ] = DeviceName.auto,
    log: Annotated[Path | None, typer.Option(help="Folder for TensorBoard.")] = None,
    seed: Seed = 0,
    fps: Fps = None,
    fit: Fit = FitName.squeeze,
    series: Series = None,
) -> None:
    """Train a VQ-VAE, then a transformer on its latents. Run again after a kill to go on."""
    from wmdeploy.training import TrainOptions

    check_output_directory(output, *data, *([vqvae] if vqvae else []))
    given = {
        "vqvae_steps": vqvae_steps,
        "temporal_steps": temporal_steps,
        "vqvae_batch": vqvae_batch,
        "temporal_batch": temporal_batch,
        "vqvae_rate": vqvae_rate,
        "temporal_rate": temporal_rate,
        "patience": patience,
    }
    options = TrainOptions(
        data=tuple(data),
        output=output,
        preset=preset,
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
        **{name: value for name, value in given.items() if value is not None},  # type: ignore[arg-type]
    )
    for module in ("accelerate", "torchmetrics"):
        require(module, extra="train", purpose="training")
    from wmdeploy.cli.tables import training_line
    from wmdeploy.quality.tables import quality_tables
    from wmdeploy.training.train import train as run_training

    with progress_bar() as bar:
        tasks: dict[str, Any] = {}

        def report(stage: str, step: int, total: int, loss: float | None) -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(stage, total=total)
            told = stage if loss is None else f"{stage} (loss {loss:.4f})"
            bar.update(tasks[stage], completed=step, total=total, description=told)

        summary = run_training(options, report, tell=print_note)
    if summary is None:  # the first process tells
        return
    if not summary.fresh:
        out.print(f"{output}: already trained with these options, nothing to do")
    for line in summary.skipped:
        err.print(Text("skipped: ", style="yellow").append(line, style="default"))
    for table in quality_tables(summary.quality):
        out.print(table)
    for name, stage in summary.stages.items():
        out.print(training_line(name, stage))
