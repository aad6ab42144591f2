"""The command line. Options become dataclasses, which become arguments; only this file prints.

Nothing heavy is imported until a command runs, so that `wmdeploy --help` answers at once.
"""

import enum
import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from wmdeploy import __version__
from wmdeploy.clips.read import SAMPLE_CLIP
from wmdeploy.errors import WmdeployError, require
from wmdeploy.files import check_output, check_output_directory, write_document, write_text

app = typer.Typer(
    help="Take latent world models from PyTorch to ONNX and TensorRT, with proof of parity.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
out = Console(markup=False, emoji=False)  # paths may hold square brackets and colons
err = Console(stderr=True, markup=False, emoji=False)

Clip = Annotated[Path, typer.Option(help="A video, picture folder, .npz or recorded clip.")]
Seed = Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Seed of everything that is random.")]


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


def _example(text: str) -> str:
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


@app.command(epilog=_example("wmdeploy record pong -o data/pong --frames 3000 --size 64"))
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
    with _bar() as bar:
        task = bar.add_task(f"record {game}", total=frames)
        summary = record_game(options, output, lambda done: bar.update(task, completed=done))
    out.print(
        f"{summary.frames} frames of {summary.game} in {summary.clips} clips, "
        f"{summary.num_actions} actions, {summary.size_bytes / 1e6:.1f} MB: {output}",
        highlight=False,
        soft_wrap=True,
    )


@app.command(epilog=_example("wmdeploy train --data data/pong --preset tiny -o models/pong"))
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
        float | None, typer.Option(help="End by then, with a model that can be used.")
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
        **{name: value for name, value in given.items() if value is not None},  # type: ignore[arg-type]
    )
    for module in ("accelerate", "torchmetrics"):
        require(module, extra="train", purpose="training")
    from wmdeploy.quality.tables import quality_tables
    from wmdeploy.tables import training_line
    from wmdeploy.training.train import train as run_training

    with _bar() as bar:
        tasks: dict[str, Any] = {}

        def report(stage: str, step: int, total: int, loss: float | None) -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(stage, total=total)
            told = stage if loss is None else f"{stage} (loss {loss:.4f})"
            bar.update(tasks[stage], completed=step, total=total, description=told)

        summary = run_training(options, report)
    if not summary.fresh:
        out.print(f"{output}: already trained with these options, nothing to do", highlight=False)
    for line in summary.skipped:
        err.print(Text("skipped: ", style="yellow").append(line, style="default"))
    for table in quality_tables(summary.quality):
        out.print(table)
    for name, stage in summary.stages.items():
        out.print(training_line(name, stage), highlight=False)


@app.command(epilog=_example("wmdeploy evaluate models/pong --data data/pong --plot pong.png"))
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
) -> None:
    """Judge a model on clips it was not trained on, beside copying the last frame."""
    require("torchmetrics", extra="train", purpose="evaluating")
    from benchmarks.evaluate import EvaluateOptions
    from benchmarks.evaluate import evaluate as run_evaluation
    from engines.base import Settings
    from wmdeploy.quality.pictures import write_picture, write_plot
    from wmdeploy.quality.tables import quality_tables

    for target in (json, plot, strip):
        if target:
            check_output(target, Path(source), *data)
    options = EvaluateOptions(
        source, tuple(data), backend, context, clips, Settings(device.value), strip is not None
    )
    with _bar() as bar:
        tasks: dict[str, Any] = {}

        def report(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=total)
            bar.update(tasks[what], completed=done, total=total)

        found, picture = run_evaluation(options, report)
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
            out.print(f"written: {target}", highlight=False)


@app.command(
    epilog=_example("wmdeploy export models/pong -o bundles/pong --clip data/pong/clip-00000.mkv")
)
def export(
    model: Annotated[
        str,
        typer.Argument(help="Model directory, reference .pt, or preset (reference, small, tiny)."),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="Bundle to write.")],
    layout: Annotated[
        LayoutName, typer.Option(help="token: folded projections. latent: as written.")
    ] = LayoutName.token,
    precision: Annotated[PrecisionName, typer.Option()] = PrecisionName.fp32,
    max_batch: Annotated[int, typer.Option(help="Largest batch of the graphs.")] = 8,
    opset: Annotated[int, typer.Option(help="ONNX opset, 21 to 24.")] = 23,
    seed: Seed = 0,
    slim: Annotated[bool, typer.Option(help="Leave the PyTorch model out, for shipping.")] = False,
    clip: Annotated[
        Path, typer.Option(help="Real frames that the graphs are verified on.")
    ] = SAMPLE_CLIP,
) -> None:
    """Export a model as a bundle of ONNX graphs, each verified against PyTorch."""
    from exporters.export import ExportOptions, export_bundle
    from wmdeploy.tables import bundle_tables

    options = ExportOptions(
        source=model,
        output=output,
        clip=clip,
        layout=layout.value,
        precision=precision.value,
        max_batch=max_batch,
        opset=opset,
        seed=seed,
        slim=slim,
    )
    with err.status("export") as status:
        bundle, made = export_bundle(options, lambda stage: status.update(stage))
    if not made:
        out.print(f"{output}: up to date, nothing to do", highlight=False)
        return
    for table in bundle_tables(bundle, details=False):
        out.print(table)


@app.command(epilog=_example("wmdeploy build-engine bundles/pong --arch sm_86 --arch sm_89"))
def build_engine(
    bundle: Annotated[Path, typer.Argument(help="A bundle exported with --precision fp16.")],
    flavour: Annotated[FlavourName, typer.Option(help="auto: tensorrt if installed.")] = (
        FlavourName.auto
    ),
    arch: Annotated[
        list[str] | None,
        typer.Option(help="sm_86, sm_89 ...; repeat for several. Default: current, this GPU."),
    ] = None,
    max_batch: Annotated[
        int | None, typer.Option(help="Largest batch; default the bundle's.")
    ] = None,
    workspace: Annotated[float | None, typer.Option(help="GiB the builder may use.")] = None,
    opt_level: Annotated[int, typer.Option(help="0 builds fastest, 5 runs fastest.")] = 3,
    graph: Annotated[
        list[str] | None, typer.Option(help="encoder, prefill, step, decoder; default all.")
    ] = None,
) -> None:
    """Build FP16 TensorRT plans from a bundle's graphs, into the bundle."""
    from engines.trt.flavour import CURRENT
    from engines.trt.plans import BuildOptions, build_plans
    from wmdeploy.tables import plans_table

    options = BuildOptions(
        bundle=bundle,
        flavour=flavour.value,
        architectures=tuple(arch or (CURRENT,)),
        max_batch=max_batch,
        workspace_gib=workspace,
        opt_level=opt_level,
        graphs=tuple(graph or ()),
    )
    with _bar() as bar:
        tasks: dict[str, Any] = {}

        def report(name: str, phase: str, done: float) -> None:
            if name not in tasks:
                tasks[name] = bar.add_task(name, total=100)
            told = f"{name}: {phase.lower()}"
            bar.update(tasks[name], completed=round(100 * done), description=told)

        results = build_plans(options, report)
    built = [record for record, new in results if new]
    if not built:
        out.print(f"{bundle}: all plans are up to date, nothing to do", highlight=False)
        return
    out.print(plans_table(built))
    if kept := len(results) - len(built):
        out.print(f"{kept} more were up to date", highlight=False)


@app.command(epilog=_example("wmdeploy rollout bundles/pong data/pong/clip-00000.mkv -o dream.gif"))
def rollout(
    source: Annotated[str, typer.Argument(help="A bundle, or a model (run by the baseline).")],
    clip: Annotated[Path, typer.Argument(help="Video, picture folder, .npz or clip.")],
    output: Annotated[Path, typer.Option("-o", "--output", help=".mp4, .gif, .mkv or .npz")],
    context: Annotated[int, typer.Option(min=1, help="Frames given.")] = 8,
    horizon: Annotated[int, typer.Option(min=1, help="Frames imagined.")] = 24,
    backend: Annotated[str | None, typer.Option(help="For a bundle; default ort-cpu.")] = None,
    device: Annotated[
        DeviceName, typer.Option(help="Of PyTorch backends; auto: a GPU if there is one.")
    ] = DeviceName.auto,
    refill: Annotated[int | None, typer.Option(help="Tokens kept when the window is full.")] = None,
    seed: Seed = 0,
) -> None:
    """Imagine the frames that follow a clip. Videos show the real future on the left, if known."""
    import numpy as np

    from engines.base import Settings
    from engines.rollout import image_size, open_source
    from engines.rollout import rollout as imagine
    from wmdeploy.clips import count_frames, read_clip, side_by_side, write_npz, write_video
    from wmdeploy.clips.write import check_suffix

    check_suffix(output)
    check_output(output, clip, Path(source))
    have = count_frames(clip)
    with err.status("load"):
        engines = open_source(source, backend, seed, Settings(device.value))
    real = read_clip(clip, size=image_size(engines), count=min(have, context + horizon))
    with _bar() as bar:
        task = bar.add_task("imagine", total=horizon)
        frames = imagine(
            engines, real, context, horizon, refill, lambda n: bar.update(task, completed=n)
        )
    if output.suffix.lower() == ".npz":
        write_npz(output, frames)
    else:
        future = np.zeros_like(frames)  # black where the clip does not know it
        known = real.frames[context : context + horizon]
        future[: len(known)] = known
        write_video(output, side_by_side(future, frames) if len(known) else frames, real.fps)
    told = f"{horizon} frames imagined by {engines.name} on {engines.device}: {output}"
    out.print(told, highlight=False)


@app.command(epilog=_example("wmdeploy bench bundles/pong --clip data/pong/clip-00000.mkv"))
def bench(
    bundle: Annotated[Path, typer.Argument(help="A bundle.")],
    backend: Annotated[
        list[str] | None, typer.Option(help="Repeat to choose; default all of this machine's.")
    ] = None,
    clip: Clip = SAMPLE_CLIP,
    context: Annotated[int, typer.Option(help="Frames given.")] = 8,
    horizon: Annotated[
        int | None, typer.Option(help="Frames imagined for parity; default 2 S.")
    ] = None,
    refill: Annotated[int | None, typer.Option(help="Tokens kept when the window is full.")] = None,
    batch: Annotated[
        str, typer.Option(help="Sessions that run together, such as 1,2,4,8,64.")
    ] = "1",
    device: Annotated[
        DeviceName, typer.Option(help="Of PyTorch backends; auto: a GPU if there is one.")
    ] = DeviceName.auto,
    tf32: Annotated[bool, typer.Option(help="Let float32 on a GPU use TF32.")] = False,
    seconds: Annotated[float, typer.Option(help="Time spent on each stage, at least.")] = 3.0,
    json: Annotated[Path | None, typer.Option(help="Write the report here.")] = None,
) -> None:
    """Compare backends with the PyTorch baseline: latency, memory, floor, parity."""
    from benchmarks.run import BenchOptions
    from benchmarks.run import bench as run_bench
    from benchmarks.table import report_tables
    from benchmarks.timing import Effort
    from engines.base import BACKENDS, Settings

    if json:
        check_output(json, bundle, clip)
    options = BenchOptions(
        bundle=bundle,
        clip=clip,
        backends=tuple(backend or BACKENDS),
        context=context,
        horizon=horizon,
        refill=refill,
        batches=_numbers("--batch", batch),
        settings=Settings(device.value, tf32),
        effort=Effort(seconds=seconds),
    )
    with err.status("bench") as status:
        report = run_bench(options, lambda who, what: status.update(f"{who}: {what}"))
    for table in report_tables(report):
        out.print(table)
    for warning in report.warnings:
        err.print(Text("warning: ", style="yellow").append(warning, style="default"))
    if json:
        write_document(report, json)
        out.print(f"report: {json}", highlight=False)
    failed = any(row.verdict == "fail" for row in report.rows)
    if failed or (backend and any(row.verdict == "skipped" for row in report.rows)):
        raise typer.Exit(1)  # a backend that was asked for by name and did not run has failed too


@app.command(epilog=_example("wmdeploy milestone models/pong -o milestone"))
def milestone(
    model: Annotated[str, typer.Argument(help="Model directory, reference .pt, or preset.")],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Folder for milestone.json and milestone.md."),
    ] = None,
    clip: Clip = SAMPLE_CLIP,
    device: Annotated[
        DeviceName, typer.Option(help="auto: a GPU if there is one.")
    ] = DeviceName.auto,
    seed: Seed = 0,
) -> None:
    """Run the reference report's four tests, and say which of its milestones a model reaches."""
    from rich.markdown import Markdown

    from benchmarks.milestone import MilestoneOptions, run_milestone, to_markdown
    from engines.base import BASELINE, Settings
    from engines.devices import pytorch_device

    where = pytorch_device(BASELINE, Settings(device.value)).type
    with err.status("milestone") as status:
        found = run_milestone(MilestoneOptions(model, where, clip, seed), status.update)
    page = to_markdown(found)
    out.print(Markdown(page))
    if output:
        output.mkdir(parents=True, exist_ok=True)
        write_document(found, output / "milestone.json")
        write_text(page, output / "milestone.md")
        out.print(f"written: {output}/milestone.json, milestone.md", highlight=False)


@app.command(epilog=_example("wmdeploy inspect bundles/pong"))
def inspect(
    path: Annotated[Path, typer.Argument(help="A bundle, a model directory, or a reference .pt.")],
) -> None:
    """Show what a bundle or a model holds, and check its hashes."""
    from wmdeploy.bundle import Bundle
    from wmdeploy.manifest import MANIFEST_FILE
    from wmdeploy.tables import bundle_tables, model_table

    if (path / MANIFEST_FILE).is_file():
        opened = Bundle.open(path)
        opened.verify()
        for table in bundle_tables(opened, details=True):
            out.print(table)
    else:
        out.print(model_table(path))


@app.command(epilog=_example("wmdeploy doctor"))
def doctor() -> None:
    """Show versions, devices and backends, and what would bring the missing ones."""
    from engines.trt.flavour import flavour_findings
    from wmdeploy.doctor import findings
    from wmdeploy.tables import doctor_table

    out.print(doctor_table([*findings(), *flavour_findings()]))


def _numbers(option: str, text: str) -> tuple[int, ...]:
    """Whole numbers in a list such as "1,2,4"."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise WmdeployError(f"{option}: got {text!r}, expected numbers such as 1,2,4") from None


def _bar() -> Any:
    """A progress bar on standard error; none where that is no terminal."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    text = TextColumn("[progress.description]{task.description}")
    columns = (text, BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=err, transient=True, disable=not err.is_terminal)


if __name__ == "__main__":
    main()
