"""`wmdeploy export`: export a model to ONNX."""

from collections.abc import Iterable, Iterator
from itertools import chain, repeat
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wmdeploy.cli.common import (
    Fit,
    FitName,
    Fps,
    LayoutName,
    PrecisionName,
    Seed,
    Series,
    app,
    err,
    example,
    out,
    read_options,
    tell,
)
from wmdeploy.clips.read import SAMPLE_CLIP

if TYPE_CHECKING:
    import numpy as np


@app.command(
    epilog=example("wmdeploy export models/pong -o bundles/pong --clip data/pong/clip-00000.mkv")
)
def export(
    model: Annotated[
        str,
        typer.Argument(help="Model directory, checkpoint, or preset (reference, small, tiny)."),
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
    fps: Fps = None,
    fit: Fit = FitName.squeeze,
    series: Series = None,
) -> None:
    """Export a model as a bundle of ONNX graphs, each verified against PyTorch."""
    from wmdeploy.cli.tables import bundle_tables
    from wmdeploy.exporters.export import ExportOptions, export_bundle

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
        read=read_options(fps, fit, series),
    )
    remarks: list[str] = []
    with err.status("export") as status:
        bundle, made = export_bundle(options, lambda stage: status.update(stage), remarks)
    tell(remarks)
    if not made:
        out.print(f"{output}: up to date, nothing to do")
        return
    for table in bundle_tables(bundle, details=False):
        out.print(table)


def _beside(
    future: Iterable["np.ndarray"], size: int, imagined: Iterable["np.ndarray"]
) -> Iterator["np.ndarray"]:
    """What really came, and black where it ends, left of what is imagined."""
    import numpy as np

    from wmdeploy.clips import side_by_side

    black = np.zeros((size, size, 3), np.uint8)
    for real, frame in zip(chain(future, repeat(black)), imagined, strict=False):
        yield side_by_side(real[None], frame[None])[0]
