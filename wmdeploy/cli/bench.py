"""`wmdeploy bench`: time every backend, and prove its parity."""

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from wmdeploy.cli.common import (
    DeviceName,
    Fit,
    FitName,
    Series,
    app,
    err,
    example,
    numbers,
    out,
    read_options,
)
from wmdeploy.cli.outputs import Csv, Html, Markdown, check_outputs, write_forms
from wmdeploy.cli.progress import show_progress
from wmdeploy.clips.read import SAMPLE_CLIPS
from wmdeploy.errors import require
from wmdeploy.files import write_document


@app.command(epilog=example("wmdeploy bench bundles/pong --clip data/pong/clip-00000.mkv"))
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
    from wmdeploy.benchmarks.bench.options import BenchOptions, Effort
    from wmdeploy.benchmarks.bench.run import bench as run_bench
    from wmdeploy.benchmarks.render.terminal import report_tables
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
    with show_progress() as progress:
        report = run_bench(options, progress)
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
