"""From a game to a model: record, train, evaluate."""

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
    err,
    example,
    out,
    print_note,
    progress_bar,
    read_options,
)
from wmdeploy.errors import require
from wmdeploy.files import check_output, check_output_directory, write_document

commands = typer.Typer()


@commands.command(epilog=example("wmdeploy record pong -o data/pong --frames 3000 --size 64"))
def record(
    game: Annotated[str, typer.Argument(help="An Atari game: pong, ms_pacman, Riverraid ...")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Data folder to write.")],
    frames: Annotated[int, typer.Option(min=1, help="Frames to record, all clips together.")],
    seed: Seed = 0,
    size: Annotated[int, typer.Option(help="Height and width of the frames.")] = 256,
    frame_skip: Annotated[int, typer.Option(help="Emulator frames for each recorded one.")] = 4,
    clip_frames: Annotated[int, typer.Option(help="Frames in a clip, at most.")] = 500,
    stickiness: Annotated[
        float, typer.Option(help="Chance that the emulator repeats the previous action.")
    ] = 0.0,
    all_actions: Annotated[
        bool, typer.Option("--all-actions", help="All 18 actions, to mix games in a training.")
    ] = False,
) -> None:
    """Play a real Atari game with a random policy and record clips with their actions."""
    from wmdeploy.clips import RecordOptions
    from wmdeploy.clips import record as record_game

    options = RecordOptions(
        game, frames, seed, size, frame_skip, stickiness, clip_frames, all_actions
    )
    with progress_bar() as bar:
        task = bar.add_task(f"record {game}", total=frames)
        summary = record_game(options, output, lambda done: bar.update(task, completed=done))
    out.print(
        f"{summary.frames} frames of {summary.game} in {summary.clips} clips, "
        f"{summary.num_actions} actions, {summary.size_bytes / 1e6:.1f} MB: {output}",
    )


@commands.command(epilog=example("wmdeploy train --data data/pong --preset tiny -o models/pong"))
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
    residual: Annotated[
        bool | None, typer.Option(help="Predict the change of the latent; default the preset's.")
    ] = None,
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
        "residual": residual,
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
    if not summary.fresh:
        out.print(f"{output}: already trained with these options, nothing to do")
    for line in summary.skipped:
        err.print(Text("skipped: ", style="yellow").append(line, style="default"))
    for table in quality_tables(summary.quality):
        out.print(table)
    for name, stage in summary.stages.items():
        out.print(training_line(name, stage))


@commands.command(epilog=example("wmdeploy evaluate models/pong --data data/pong --plot pong.png"))
def evaluate(
    source: Annotated[str, typer.Argument(help="A model or a bundle.")],
    data: Annotated[list[Path], typer.Option(help="Folder of clips; repeat for several.")],
    backend: Annotated[
        str | None, typer.Option(help="What runs a bundle, beside PyTorch; default ort-cpu.")
    ] = None,
    context: Annotated[int, typer.Option(min=2, help="Frames given to a rollout.")] = 8,
    clips: Annotated[
        int | None, typer.Option(min=1, help="At most so many of each folder.")
    ] = None,
    device: Annotated[
        DeviceName, typer.Option(help="Of PyTorch backends; auto: a GPU if there is one.")
    ] = DeviceName.auto,
    json: Annotated[Path | None, typer.Option(help="Write the scores here.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Write PSNR over horizon here, .png.")] = None,
    strip: Annotated[
        Path | None, typer.Option(help="Write real and imagined frames here, .png.")
    ] = None,
    fps: Fps = None,
    fit: Fit = FitName.squeeze,
    series: Series = None,
) -> None:
    """Judge a model on clips it was not trained on, beside copying the last frame."""
    require("torchmetrics", extra="train", purpose="evaluating")
    if plot:
        require("matplotlib", extra="train", purpose="drawing a plot")
    from wmdeploy.benchmarks.evaluation.evaluate import EvaluateOptions
    from wmdeploy.benchmarks.evaluation.evaluate import evaluate as run_evaluation
    from wmdeploy.engines.base import Settings
    from wmdeploy.quality.plots import write_picture, write_plot
    from wmdeploy.quality.tables import quality_tables

    for target in (json, plot, strip):
        if target:
            check_output(target, Path(source), *data)
    options = EvaluateOptions(
        source,
        tuple(data),
        backend,
        context,
        clips,
        Settings(device.value),
        strip is not None,
        read_options(fps, fit, series),
    )
    with progress_bar() as bar:
        tasks: dict[str, Any] = {}

        def report(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=total)
            bar.update(tasks[what], completed=done, total=total)

        found, picture = run_evaluation(options, report, print_note)
    for line in found.skipped:
        err.print(Text("skipped: ", style="yellow").append(line, style="default"))
    for table in quality_tables(found):
        out.print(table)
    if json:
        write_document(found, json)
    if plot:
        write_plot(found, plot)
    if strip and picture is not None:
        write_picture(strip, picture)
    for target in (json, plot, strip):
        if target:
            out.print(f"written: {target}")
