"""`wmdeploy evaluate`: measure how well a model predicts."""

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from wmdeploy.cli.common import (
    DeviceName,
    Fit,
    FitName,
    Fps,
    Series,
    app,
    err,
    example,
    out,
    print_note,
    read_options,
)
from wmdeploy.cli.progress import show_progress
from wmdeploy.errors import require
from wmdeploy.files import check_output, write_document


@app.command(epilog=example("wmdeploy evaluate models/pong --data data/pong --plot pong.png"))
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
    with show_progress() as progress:
        found, picture = run_evaluation(options, progress, print_note)
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
