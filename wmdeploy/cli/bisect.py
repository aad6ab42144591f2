"""`wmdeploy bisect`: find the node in which a backend leaves PyTorch."""

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from wmdeploy.cli.common import (
    Clip,
    Fit,
    FitName,
    Fps,
    Series,
    app,
    err,
    example,
    out,
    read_options,
)
from wmdeploy.cli.progress import show_progress
from wmdeploy.clips.read import SAMPLE_CLIP
from wmdeploy.files import check_output, write_document

SCHEMA = 1  # of the JSON document


@app.command(epilog=example("wmdeploy bisect bundles/pong --graph decoder"))
def bisect(
    bundle: Annotated[Path, typer.Argument(help="A bundle with its model, not a slim one.")],
    backend: Annotated[
        str, typer.Option(help="ort-cpu, ort-cuda or ort-tensorrt: they show values inside.")
    ] = "ort-cpu",
    graph: Annotated[
        list[str] | None,
        typer.Option(help="encoder, prefill, step or decoder; repeat to choose; default all."),
    ] = None,
    tolerance: Annotated[
        float | None,
        typer.Option(help="Largest relative error; default 1e-3, for fp16 bundles 3e-2."),
    ] = None,
    clip: Clip = SAMPLE_CLIP,
    fps: Fps = None,
    fit: Fit = FitName.squeeze,
    series: Series = None,
    json: Annotated[Path | None, typer.Option(help="Write all nodes' errors here.")] = None,
) -> None:
    """Find the first node of an ONNX graph whose value is not PyTorch's; exits with 1 if any."""
    from wmdeploy.benchmarks.bisect.run import BisectOptions
    from wmdeploy.benchmarks.bisect.run import bisect as run_bisect
    from wmdeploy.benchmarks.bisect.table import in_words, nodes_table

    if json:
        check_output(json, bundle, clip)
    read = read_options(fps, fit, series)
    options = BisectOptions(bundle, clip, backend, tuple(graph or ()), tolerance, read)
    found = []
    with show_progress() as progress:
        for findings in run_bisect(options, progress):
            found.append(findings)
            out.print(nodes_table(findings))
            out.print(in_words(findings))
            if findings.codes is not None:
                out.print(f"{findings.graph}: {findings.codes}")
    for warning in dict.fromkeys(warning for findings in found for warning in findings.warnings):
        err.print(Text("warning: ", style="yellow").append(warning, style="default"))
    if json:
        write_document({"schema": SCHEMA, "bundle": str(bundle), "graphs": found}, json)
    if any(findings.culprit is not None for findings in found):
        raise typer.Exit(1)
