"""`wmdeploy evaluate`: measure how well a model predicts."""

from pathlib import Path
from typing import Annotated

import typer

from wmdeploy.cli.common import app, example, out, print_note, print_skipped
from wmdeploy.cli.options import (
    Backend,
    Decoder,
    Device,
    DeviceName,
    Family,
    Fit,
    FitName,
    Fps,
    Series,
    from_hub,
    one_backend,
    read_options,
)
from wmdeploy.cli.outputs import Json, check_outputs
from wmdeploy.cli.progress import show_progress
from wmdeploy.errors import require
from wmdeploy.files import write_document
from wmdeploy.programs.contract import FULL


@app.command(epilog=example("wmdeploy evaluate models/pong --data data/pong --plot pong.png"))
def evaluate(
    source: Annotated[
        str,
        typer.Argument(help="Model directory, checkpoint, preset or bundle.", callback=from_hub),
    ],
    data: Annotated[
        list[Path],
        typer.Option(help="Folder of clips; repeat for several.", callback=from_hub),
    ],
    family: Family = None,
    backend: Backend = None,
    context: Annotated[
        int, typer.Option(min=2, help="Number of real frames given to a rollout.")
    ] = 8,
    max_clips: Annotated[
        int | None, typer.Option(min=1, help="Largest number of clips to read from each folder.")
    ] = None,
    decoder: Decoder = FULL,
    device: Device = DeviceName.auto,
    json: Json = None,
    plot: Annotated[
        Path | None, typer.Option(help="Write a plot of PSNR over the horizon to this .png file.")
    ] = None,
    strip: Annotated[
        Path | None, typer.Option(help="Write real and imagined frames to this .png file.")
    ] = None,
    fps: Fps = None,
    fit: Fit = FitName.squeeze,
    series: Series = None,
) -> None:
    """Measure prediction quality on clips that the model was not trained on.

    The scores of copying the last frame stand beside the model's.
    """
    require("torchmetrics", extra="train", purpose="evaluating")
    if plot:
        require("matplotlib", extra="train", purpose="drawing a plot")
    from wmdeploy.benchmarks.evaluation.evaluate import EvaluateOptions
    from wmdeploy.benchmarks.evaluation.evaluate import evaluate as run_evaluation
    from wmdeploy.engines.base import Settings
    from wmdeploy.quality.plots import write_picture, write_plot
    from wmdeploy.quality.tables import quality_tables

    outputs = check_outputs((json, plot, strip), Path(source), *data)
    options = EvaluateOptions(
        source=source,
        data=tuple(data),
        backend=one_backend(backend),
        context=context,
        clips=max_clips,
        settings=Settings(device.value, decoder=decoder),
        pictures=strip is not None,
        read=read_options(fps, fit, series),
        family=family,
    )
    with show_progress() as progress:
        report, picture = run_evaluation(options, progress, print_note)
    print_skipped(report.skipped)
    for table in quality_tables(report):
        out.print(table)
    if json:
        write_document(report, json)
    if plot:
        write_plot(report, plot)
    if strip and picture is not None:
        write_picture(strip, picture)
    for path in outputs:
        out.print(f"written: {path}")
