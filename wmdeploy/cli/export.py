"""`wmdeploy export`: export a model to ONNX."""

from pathlib import Path
from typing import Annotated

import typer

from wmdeploy.cli.common import app, example, out, print_notes
from wmdeploy.cli.options import (
    Clip,
    Family,
    Fit,
    FitName,
    Fps,
    PrecisionName,
    Seed,
    Series,
    WeightsName,
    from_hub,
    read_options,
)
from wmdeploy.cli.progress import show_progress
from wmdeploy.clips.read import SAMPLE_CLIP


@app.command(
    epilog=example("wmdeploy export models/pong -o bundles/pong --clip data/pong/clip-00000.mkv")
)
def export(
    model: Annotated[
        str,
        typer.Argument(
            help="Model directory, checkpoint, or preset (reference, small, tiny).",
            callback=from_hub,
        ),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="Bundle to write.")],
    family: Family = None,
    layout: Annotated[
        str | None,
        typer.Option(
            help="One of the family's layouts. Of the reference family: token (default) folds the "
            "latent projections into one matrix, exactly; latent keeps the model as written."
        ),
    ] = None,
    precision: Annotated[
        PrecisionName, typer.Option(help="Precision of the graphs.")
    ] = PrecisionName.fp32,
    weights: Annotated[
        WeightsName,
        typer.Option(
            help="Weights of large linear layers: float, of the precision; or int8, blocks of 128 "
            "with a scale each. Convolutions and embeddings stay float."
        ),
    ] = WeightsName.float,
    float_layer: Annotated[
        list[str] | None,
        typer.Option(help="Layer whose weights stay float, as a failed export names it."),
    ] = None,
    max_batch: Annotated[int, typer.Option(help="Largest batch of the graphs.")] = 8,
    opset: Annotated[int, typer.Option(help="ONNX opset, 21 to 24.")] = 23,
    seed: Seed = 0,
    slim: Annotated[
        bool, typer.Option("--slim", help="Leave the PyTorch model out, for shipping.")
    ] = False,
    clip: Clip = SAMPLE_CLIP,
    fps: Fps = None,
    fit: Fit = FitName.squeeze,
    series: Series = None,
) -> None:
    """Export a model as a bundle of ONNX graphs, each verified against PyTorch on real frames."""
    from wmdeploy.cli.tables import bundle_tables
    from wmdeploy.exporters.export import ExportOptions, export_bundle

    options = ExportOptions(
        source=model,
        output=output,
        clip=clip,
        layout=layout,
        family=family,
        precision=precision.value,
        weights=weights.value,
        float_layers=tuple(float_layer or ()),
        max_batch=max_batch,
        opset=opset,
        seed=seed,
        slim=slim,
        read=read_options(fps, fit, series),
    )
    remarks: list[str] = []
    with show_progress() as progress:
        bundle, made = export_bundle(options, progress, remarks)
    print_notes(remarks)
    if not made:
        out.print(f"{output}: up to date, nothing to do")
        return
    for table in bundle_tables(bundle, details=False):
        out.print(table)
