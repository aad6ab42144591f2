"""What there is, and what it is worth: bench, milestone, inspect, doctor."""

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.text import Text

from wmdeploy.cli.common import (
    Clip,
    DeviceName,
    Fit,
    FitName,
    Fps,
    Seed,
    Series,
    err,
    example,
    numbers,
    out,
    read_options,
    tell,
)
from wmdeploy.cli.compare import Csv, Html, Markdown, check_outputs, write_forms
from wmdeploy.clips.read import SAMPLE_CLIP, SAMPLE_CLIPS
from wmdeploy.errors import WmdeployError, require
from wmdeploy.files import check_inside, check_output, write_document, write_text
from wmdeploy.manifest import MANIFEST_FILE

commands = typer.Typer()


@commands.command(epilog=example("wmdeploy bench bundles/pong --clip data/pong/clip-00000.mkv"))
def bench(
    bundle: Annotated[Path, typer.Argument(help="A bundle.")],
    backend: Annotated[
        list[str] | None, typer.Option(help="Repeat to choose; default all of this machine's.")
    ] = None,
    clip: Annotated[
        list[Path] | None,
        typer.Option(
            help="A video, picture folder, .npz or recorded clip; repeat for more. Times are of "
            "the first, parity is of all."
        ),
    ] = None,
    context: Annotated[int, typer.Option(help="Frames given.")] = 8,
    horizon: Annotated[
        int | None, typer.Option(help="Frames imagined for parity; default 4 S.")
    ] = None,
    refill: Annotated[int | None, typer.Option(help="Tokens kept when the window is full.")] = None,
    batch: Annotated[
        str, typer.Option(help="Sessions that run together, such as 1,2,4,8,64.")
    ] = "1",
    threads: Annotated[
        str | None, typer.Option(help="Of CPU backends, each number in turn, such as 1,2.")
    ] = None,
    device: Annotated[
        DeviceName, typer.Option(help="Of PyTorch backends; auto: a GPU if there is one.")
    ] = DeviceName.auto,
    tf32: Annotated[bool, typer.Option(help="Let float32 on a GPU use TF32.")] = False,
    seconds: Annotated[
        float, typer.Option(help="Time for each stage and backend; 12 rounds at least.")
    ] = 3.0,
    within: Annotated[
        float, typer.Option(help="Percent to which speed-ups shall be known, ±.")
    ] = 1.5,
    fps: Annotated[
        float | None, typer.Option(help="Also ask for frames at this rate, as a game does.")
    ] = None,
    pace_seconds: Annotated[float, typer.Option(help="How long, with --fps.")] = 5.0,
    clip_fps: Annotated[
        float | None,
        typer.Option(help="Frames per second to take from the clips, by the times in them."),
    ] = None,
    fit: Fit = FitName.squeeze,
    series: Series = None,
    swap: Annotated[bool, typer.Option(help="Find out which graph brings the error in.")] = False,
    json: Annotated[Path | None, typer.Option(help="Write the report here.")] = None,
    html: Html = None,
    markdown: Markdown = None,
    csv: Csv = None,
) -> None:
    """Compare backends with the PyTorch baseline: latency, memory, floor, parity."""
    from wmdeploy.benchmarks.bench.options import BenchOptions
    from wmdeploy.benchmarks.bench.run import bench as run_bench
    from wmdeploy.benchmarks.render.terminal import report_tables
    from wmdeploy.benchmarks.worker.timing import Effort
    from wmdeploy.engines.base import BACKENDS, Settings

    clips = tuple(clip or SAMPLE_CLIPS)
    outputs = check_outputs((json, html, markdown, csv), bundle, *clips)
    if html:
        require("matplotlib", extra="report", purpose="drawing a page")
    options = BenchOptions(
        bundle=bundle,
        clips=clips,
        backends=tuple(backend or BACKENDS),
        context=context,
        horizon=horizon,
        refill=refill,
        batches=numbers("--batch", batch),
        threads=numbers("--threads", threads) if threads else (),
        settings=Settings(device.value, tf32),
        effort=Effort(seconds=seconds, precision=within / 100),
        fps=fps,
        pace_seconds=pace_seconds,
        swap=swap,
        read=read_options(clip_fps, fit, series),
    )
    with err.status("bench") as status:
        report = run_bench(options, lambda who, what: status.update(f"{who}: {what}"))
    for table in report_tables(report):
        out.print(table)
    for warning in report.warnings:
        err.print(Text("warning: ", style="yellow").append(warning, style="default"))
    if json:
        write_document(report, json)
    write_forms(report, html, markdown, csv)
    for path in outputs:
        out.print(f"written: {path}")
    failed = any(row.verdict == "fail" for row in report.rows)
    if failed or (backend and any(row.verdict == "skipped" for row in report.rows)):
        raise typer.Exit(1)  # a backend that was asked for by name and did not run has failed too


@commands.command(epilog=example("wmdeploy milestone models/pong -o milestone"))
def milestone(
    model: Annotated[str, typer.Argument(help="Model directory, checkpoint, or preset.")],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Folder for milestone.json and milestone.md."),
    ] = None,
    clip: Clip = SAMPLE_CLIP,
    device: Annotated[
        DeviceName, typer.Option(help="auto: a GPU if there is one.")
    ] = DeviceName.auto,
    seed: Seed = 0,
    fps: Fps = None,
    fit: Fit = FitName.squeeze,
    series: Series = None,
) -> None:
    """Run the reference report's four tests, and say which of its milestones a model reaches."""
    from rich.markdown import Markdown as Rendered

    from wmdeploy.benchmarks.evaluation.milestone import (
        MilestoneOptions,
        run_milestone,
        to_markdown,
    )
    from wmdeploy.engines.base import BASELINE, Settings
    from wmdeploy.engines.devices import pytorch_device

    if output:
        _check_report_folder(output)
    on_gpu = pytorch_device(BASELINE, Settings(device.value)).type == "cuda"
    where: Literal["cpu", "cuda"] = "cuda" if on_gpu else "cpu"
    remarks: list[str] = []
    with err.status("milestone") as status:
        read = read_options(fps, fit, series)
        options = MilestoneOptions(model, where, clip, seed, read=read)
        found = run_milestone(options, status.update, remarks)
    tell(remarks)
    page = to_markdown(found)
    out.print(Rendered(page))
    if output:
        output.mkdir(parents=True, exist_ok=True)
        write_document(found, output / "milestone.json")
        write_text(page, output / "milestone.md")
        out.print(f"written: {output}/milestone.json, milestone.md")


def _check_report_folder(output: Path) -> None:
    """A model or a bundle with files of ours in it would be taken for a stranger's."""
    from wmdeploy.models.checkpoint import CONFIG_FILE

    for marker in (CONFIG_FILE, MANIFEST_FILE):
        if (output / marker).exists():
            raise WmdeployError(f"{output}: holds a {marker}; choose a folder of its own")
    for name in ("milestone.json", "milestone.md"):
        check_inside(output / name, output)
        check_output(output / name)


@commands.command(epilog=example("wmdeploy inspect bundles/pong"))
def inspect(
    path: Annotated[Path, typer.Argument(help="A bundle, a model directory, or a checkpoint.")],
) -> None:
    """Show what a bundle or a model holds, and check its hashes."""
    from wmdeploy.bundle import Bundle
    from wmdeploy.cli.tables import bundle_tables, model_table

    if (path / MANIFEST_FILE).is_file():
        opened = Bundle.open(path)
        opened.verify()
        for table in bundle_tables(opened, details=True):
            out.print(table)
    else:
        remarks: list[str] = []
        out.print(model_table(path, remarks))
        tell(remarks)


@commands.command(epilog=example("wmdeploy doctor"))
def doctor() -> None:
    """Show versions, devices and backends, and what would bring the missing ones."""
    from wmdeploy.cli.tables import doctor_table
    from wmdeploy.doctor import findings
    from wmdeploy.engines.trt.flavour import flavour_findings

    out.print(doctor_table([*findings(), *flavour_findings()]))
