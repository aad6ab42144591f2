"""`wmdeploy bisect`: find the node at which a backend leaves PyTorch."""

from pathlib import Path
from typing import Annotated

import typer

from wmdeploy.cli.common import app, example, out, print_warnings
from wmdeploy.cli.options import (
    NODE_BACKENDS,
    Clip,
    Family,
    Fit,
    FitName,
    Fps,
    Series,
    backend_help,
    from_hub,
    names,
    parts,
    read_options,
)
from wmdeploy.cli.outputs import Json
from wmdeploy.cli.progress import show_progress
from wmdeploy.clips.read import SAMPLE_CLIP
from wmdeploy.engines.base import BACKENDS
from wmdeploy.files import check_output, write_document

SCHEMA = 1  # of the JSON document


@app.command(epilog=example("wmdeploy bisect bundles/pong --graph decoder"))
def bisect(
    bundle: Annotated[
        Path,
        typer.Argument(
            help="Bundle that contains its model (exported without --slim).", callback=from_hub
        ),
    ],
    family: Family = None,
    backend: Annotated[
        list[str] | None,
        typer.Option(
            help=backend_help(
                "Backend to examine; repeat the option or separate names with commas. "
                "Default: ort-cpu.",
                NODE_BACKENDS,
            )
        ),
    ] = None,
    graph: Annotated[
        list[str] | None,
        typer.Option(
            help="Graph to examine, such as decoder (see wmdeploy inspect); repeat the option or "
            "separate names with commas. Default: all."
        ),
    ] = None,
    tolerance: Annotated[
        float | None,
        typer.Option(
            help="Largest relative error that passes. Default: 1e-3, or 3e-2 for fp16 bundles."
        ),
    ] = None,
    clip: Clip = SAMPLE_CLIP,
    fps: Fps = None,
    fit: Fit = FitName.squeeze,
    series: Series = None,
    json: Json = None,
) -> None:
    """Find the first node of each ONNX graph whose value differs from PyTorch's.

    Exits with 1 if there is such a node.
    """
    from wmdeploy.benchmarks.bisect.run import BisectOptions
    from wmdeploy.benchmarks.bisect.run import bisect as run_bisect
    from wmdeploy.benchmarks.bisect.table import in_words, nodes_table

    if json:
        check_output(json, bundle, clip)
    read = read_options(fps, fit, series)
    examined = []
    with show_progress() as progress:
        for name in names("--backend", backend or ["ort-cpu"], BACKENDS):
            options = BisectOptions(
                bundle=bundle,
                clip=clip,
                backend=name,
                graphs=parts(graph),
                tolerance=tolerance,
                read=read,
            )
            for findings in run_bisect(options, progress):
                examined.append(findings)
                out.print(nodes_table(findings))
                out.print(in_words(findings))
                if findings.codes is not None:
                    out.print(f"{findings.graph}: {findings.codes}")
    print_warnings(dict.fromkeys(line for findings in examined for line in findings.warnings))
    if json:
        write_document({"schema": SCHEMA, "bundle": str(bundle), "graphs": examined}, json)
        out.print(f"written: {json}")
    if any(findings.culprit is not None for findings in examined):
        raise typer.Exit(1)
