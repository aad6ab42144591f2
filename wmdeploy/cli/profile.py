"""`wmdeploy profile`: show where the time of a frame goes."""

from pathlib import Path
from typing import Annotated

import typer

from wmdeploy.cli.common import app, example, out, print_notes
from wmdeploy.cli.options import (
    PROFILED_BACKENDS,
    Clip,
    Decoder,
    Device,
    DeviceName,
    Family,
    Fit,
    FitName,
    Fps,
    Series,
    Tf32,
    backend_help,
    from_hub,
    one_backend,
    parts,
    read_options,
)
from wmdeploy.cli.outputs import Html, Json, check_outputs
from wmdeploy.cli.progress import show_progress
from wmdeploy.clips.read import SAMPLE_CLIP
from wmdeploy.errors import require
from wmdeploy.files import write_document
from wmdeploy.programs.contract import FULL


@app.command(epilog=example("wmdeploy profile bundles/pong --html where.html"))
def profile(
    bundle: Annotated[Path, typer.Argument(help="Bundle to profile.", callback=from_hub)],
    family: Family = None,
    backend: Annotated[
        list[str] | None,
        typer.Option(help=backend_help("Backend to profile. Default: ort-cpu.", PROFILED_BACKENDS)),
    ] = None,
    graph: Annotated[
        list[str] | None,
        typer.Option(
            help="Graph to examine, such as decoder (see wmdeploy inspect); repeat the option or "
            "separate names with commas. Default: all."
        ),
    ] = None,
    runs: Annotated[
        int, typer.Option(help="Number of runs of each graph, with the profiler and without.")
    ] = 30,
    clip: Clip = SAMPLE_CLIP,
    device: Device = DeviceName.auto,
    decoder: Decoder = FULL,
    tf32: Tf32 = False,
    fps: Fps = None,
    fit: Fit = FitName.squeeze,
    series: Series = None,
    json: Json = None,
    trace: Annotated[
        Path | None,
        typer.Option(help="Write a trace for Perfetto (ui.perfetto.dev) to this JSON file."),
    ] = None,
    html: Html = None,
) -> None:
    """Show where the time of a frame goes: graph by graph, module by module, node by node."""
    from wmdeploy.benchmarks.profile.page import write_page
    from wmdeploy.benchmarks.profile.run import ProfileOptions
    from wmdeploy.benchmarks.profile.run import profile as run_profile
    from wmdeploy.benchmarks.profile.table import tables
    from wmdeploy.benchmarks.profile.trace import trace as trace_of
    from wmdeploy.benchmarks.render.terminal import rich_table
    from wmdeploy.engines.base import Settings

    outputs = check_outputs((json, trace, html), bundle, clip)
    if html:
        require("jinja2", extra="report", purpose="making a page")
    options = ProfileOptions(
        bundle=bundle,
        clip=clip,
        backend=one_backend(backend) or "ort-cpu",
        graphs=parts(graph),
        runs=runs,
        settings=Settings(device.value, tf32, decoder=decoder),
        read=read_options(fps, fit, series),
    )
    with show_progress() as progress:
        result = run_profile(options, progress)
    for table in tables(result):
        out.print(rich_table(table.narrow()))
    print_notes(result.notes)
    if json:
        write_document(result, json)
    if trace:
        write_document(trace_of(result), trace)
    if html:
        write_page(result, html)
    for path in outputs:
        out.print(f"written: {path}")
