"""`wmdeploy bench`: time every backend, and check its parity."""

from pathlib import Path
from typing import Annotated

import typer

from wmdeploy.cli.common import app, err, example, out, print_warnings
from wmdeploy.cli.options import (
    Backends,
    Batch,
    BenchContext,
    Clips,
    Decoder,
    Device,
    DeviceName,
    Family,
    Fit,
    FitName,
    Fps,
    ParityHorizon,
    Refill,
    Seconds,
    Series,
    Tf32,
    Within,
    from_hub,
    names,
    numbers,
    read_options,
)
from wmdeploy.cli.outputs import Csv, Html, Json, Markdown, check_outputs, write_forms
from wmdeploy.cli.progress import show_progress
from wmdeploy.clips.read import SAMPLE_CLIPS
from wmdeploy.errors import require
from wmdeploy.files import write_document
from wmdeploy.programs.contract import FULL


@app.command(epilog=example("wmdeploy bench bundles/pong --clip data/pong/clip-00000.mkv"))
def bench(
    bundle: Annotated[
        Path,
        typer.Argument(help="Bundle to measure.", callback=from_hub),
    ],
    family: Family = None,
    backend: Backends = None,
    clip: Clips = None,
    context: BenchContext = None,
    horizon: ParityHorizon = None,
    refill: Refill = None,
    batch: Batch = None,
    threads: Annotated[
        list[str] | None,
        typer.Option(
            help="Number of threads of CPU backends, such as 1,2; each number is measured "
            "separately. Default: what each backend chooses."
        ),
    ] = None,
    decoder: Decoder = FULL,
    device: Device = DeviceName.auto,
    tf32: Tf32 = False,
    seconds: Seconds = 3.0,
    within: Within = 1.5,
    rate: Annotated[
        float | None,
        typer.Option(help="Also request frames at this fixed rate per second, as a game does."),
    ] = None,
    rate_seconds: Annotated[
        float, typer.Option(help="Seconds for which --rate requests frames.")
    ] = 5.0,
    swap: Annotated[
        bool,
        typer.Option(
            "--swap", help="Run one graph of each backend among PyTorch's, to locate parity errors."
        ),
    ] = False,
    fps: Fps = None,
    fit: Fit = FitName.squeeze,
    series: Series = None,
    json: Json = None,
    html: Html = None,
    markdown: Markdown = None,
    csv: Csv = None,
) -> None:
    """Compare every backend with the PyTorch baseline: latency, memory, roofline and parity.

    Exits with 1 if a backend fails, or if one named by --backend cannot run.
    """
    from wmdeploy.benchmarks.bench.options import BenchOptions, Effort
    from wmdeploy.benchmarks.bench.run import bench as run_bench
    from wmdeploy.benchmarks.render.format import profile_command
    from wmdeploy.benchmarks.render.terminal import report_tables
    from wmdeploy.engines.base import BACKENDS, DEFAULT_BACKENDS, Settings

    clips = tuple(clip or SAMPLE_CLIPS)
    outputs = check_outputs((json, html, markdown, csv), bundle, *clips)
    if html:
        require("matplotlib", extra="report", purpose="drawing a page")
    options = BenchOptions(
        bundle=bundle,
        clips=clips,
        backends=names("--backend", backend, BACKENDS) if backend else DEFAULT_BACKENDS,
        context=context,
        horizon=horizon,
        refill=refill,
        batches=numbers("--batch", batch) or (1,),
        threads=numbers("--threads", threads),
        settings=Settings(device.value, tf32, decoder=decoder),
        effort=Effort(seconds=seconds, precision=within / 100),
        fps=rate,
        rate_seconds=rate_seconds,
        swap=swap,
        read=read_options(fps, fit, series),
    )
    with show_progress() as progress:
        report = run_bench(options, progress)
    for table in report_tables(report):
        out.print(table)
    print_warnings(report.warnings)
    if json:
        write_document(report, json)
    write_forms(report, html, markdown, csv)
    if command := profile_command(report, str(bundle)):
        err.print(f"where the time goes: {command}", style="dim", soft_wrap=True)
    for path in outputs:
        out.print(f"written: {path}")
    failed = any(row.verdict == "fail" for row in report.rows)
    if not swap and any(row.verdict == "fail" and row.is_timed for row in report.rows):
        err.print("--swap shows which graph brings the error in", style="dim")
    if failed or (backend and any(row.verdict == "skipped" for row in report.rows)):
        raise typer.Exit(1)
