"""`wmdeploy sweep`: bench every layout, precision and backend."""

from pathlib import Path
from typing import Annotated, Literal, cast

import typer

from wmdeploy.cli.common import (
    DeviceName,
    Fit,
    FitName,
    Fps,
    Seed,
    Series,
    app,
    example,
    numbers,
    out,
    read_options,
    tell,
)
from wmdeploy.cli.progress import show_progress
from wmdeploy.clips.read import SAMPLE_CLIP
from wmdeploy.errors import WmdeployError
from wmdeploy.files import check_output_directory, write_document


@app.command(epilog=example('wmdeploy sweep models/pong -o sweep --budget "frame<33ms"'))
def sweep(
    model: Annotated[str, typer.Argument(help="Model directory, reference .pt, or preset.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for all that is made.")],
    layouts: Annotated[str, typer.Option(help="token, latent, or both.")] = "token,latent",
    precisions: Annotated[str, typer.Option(help="fp32, fp16, or both.")] = "fp32,fp16",
    backends: Annotated[
        str | None, typer.Option(help="Such as ort-cpu,compile; default all of this machine's.")
    ] = None,
    batches: Annotated[str, typer.Option(help="Sessions that run together, such as 1,4.")] = "1",
    clip: Annotated[
        list[Path] | None, typer.Option(help="Of real frames; repeat for several.")
    ] = None,
    horizon: Annotated[
        int | None, typer.Option(help="Frames imagined for parity; default 4 S.")
    ] = None,
    seconds: Annotated[float, typer.Option(help="Time for each stage and backend.")] = 3.0,
    device: Annotated[
        DeviceName, typer.Option(help="Of PyTorch backends; auto: a GPU if there is one.")
    ] = DeviceName.auto,
    budget: Annotated[
        str | None, typer.Option(help='Such as "frame<33ms, memory<2GB, psnr>40".')
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Write all rows here.")] = None,
    seed: Seed = 0,
    fps: Fps = None,
    fit: Fit = FitName.squeeze,
    series: Series = None,
) -> None:
    """Export and bench every layout, precision, backend and batch size; say which are the best."""
    from wmdeploy.benchmarks.bench.options import BenchOptions, Effort
    from wmdeploy.benchmarks.sweep.budget import parse_budget
    from wmdeploy.benchmarks.sweep.run import SweepOptions, nearest, recommended
    from wmdeploy.benchmarks.sweep.run import sweep as run_sweep
    from wmdeploy.benchmarks.sweep.table import cell_line, sweep_table
    from wmdeploy.engines.base import BACKENDS, Settings

    limits = parse_budget(budget) if budget else ()
    clips = tuple(clip or (SAMPLE_CLIP,))
    check_output_directory(output, *clips, Path(model))
    bench = BenchOptions(
        bundle=output,
        clips=clips,
        backends=_chosen("--backends", backends, tuple(BACKENDS)),
        horizon=horizon,
        batches=numbers("--batches", batches),
        settings=Settings(device.value),
        effort=Effort(seconds=seconds),
        read=read_options(fps, fit, series),
    )
    options = SweepOptions(
        model,
        output,
        bench,
        cast(
            tuple[Literal["token", "latent"], ...],
            _chosen("--layouts", layouts, ("token", "latent")),
        ),
        cast(
            tuple[Literal["fp32", "fp16"], ...],
            _chosen("--precisions", precisions, ("fp32", "fp16")),
        ),
        seed,
    )
    remarks: list[str] = []
    with show_progress() as progress:
        found = run_sweep(options, progress, remarks)
    tell(list(dict.fromkeys(remarks)))
    out.print(sweep_table(found, limits))
    if json:
        write_document(found, json)
        out.print(f"written: {json}")
    if not limits:
        return
    if best := recommended(found.cells, limits):
        out.print(f"within the budget, the most frames per second: {cell_line(best)}")
        return
    closest, why = nearest(found.cells, limits)
    out.print(f"nothing keeps the budget; nearest is {cell_line(closest)}, which misses:")
    out.print("  " + "; ".join(why or [closest.reason or closest.verdict]))
    raise typer.Exit(1)


def _chosen(option: str, text: str | None, known: tuple[str, ...]) -> tuple[str, ...]:
    """Names in a list such as "token,latent"; all where none is given."""
    names = tuple(dict.fromkeys(part.strip() for part in text.split(","))) if text else known
    for name in names:
        if name not in known:
            raise WmdeployError(f"{option}: got {name!r}, expected {', '.join(known)}")
    return names
