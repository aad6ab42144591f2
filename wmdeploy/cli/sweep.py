"""`wmdeploy sweep`: measure every layout, precision and backend."""

from pathlib import Path
from typing import Annotated, Literal, cast

import typer

from wmdeploy.cli.common import app, example, out, print_notes
from wmdeploy.cli.options import (
    Backends,
    Batch,
    BenchContext,
    Clips,
    Device,
    DeviceName,
    Family,
    Fit,
    FitName,
    Fps,
    ParityHorizon,
    Refill,
    Seconds,
    Seed,
    Series,
    Tf32,
    Within,
    from_hub,
    names,
    numbers,
    parts,
    read_options,
)
from wmdeploy.cli.outputs import Json, check_outputs
from wmdeploy.cli.progress import show_progress
from wmdeploy.clips.read import SAMPLE_CLIP
from wmdeploy.files import check_output_directory, write_document

PRECISIONS = ("fp32", "fp16")
WEIGHTS = ("float", "int8")


@app.command(epilog=example('wmdeploy sweep models/pong -o sweep --budget "frame<33ms"'))
def sweep(
    model: Annotated[
        str,
        typer.Argument(
            help="Model directory, checkpoint, or preset (reference, small, tiny).",
            callback=from_hub,
        ),
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Folder for the bundles and reports.")
    ],
    family: Family = None,
    layout: Annotated[
        list[str] | None,
        typer.Option(help="Layout, such as token or latent. Default: all of the family."),
    ] = None,
    precision: Annotated[
        list[str] | None, typer.Option(help="Precision: fp32 or fp16. Default: both.")
    ] = None,
    weights: Annotated[
        list[str] | None,
        typer.Option(help="Weights of large linear layers: float or int8. Default: both."),
    ] = None,
    decoder: Annotated[
        list[str] | None,
        typer.Option(help="Decoder: full, or a student's name. Default: all that the model has."),
    ] = None,
    backend: Backends = None,
    batch: Batch = None,
    clip: Clips = None,
    context: BenchContext = None,
    horizon: ParityHorizon = None,
    refill: Refill = None,
    device: Device = DeviceName.auto,
    tf32: Tf32 = False,
    seconds: Seconds = 3.0,
    within: Within = 1.5,
    budget: Annotated[
        str | None,
        typer.Option(
            help='Limits to keep, such as "frame<33ms, memory<2GB, psnr>40". Exits with 1 if no '
            "configuration keeps them. psnr: worst frame, beside PyTorch with the full decoder."
        ),
    ] = None,
    seed: Seed = 0,
    fps: Fps = None,
    fit: Fit = FitName.squeeze,
    series: Series = None,
    json: Json = None,
) -> None:
    """Export and measure every layout, precision, kind of weights, decoder, backend and batch size.

    Shows the best ones. Run the command again to continue: bundles and reports that fit are kept.
    """
    from wmdeploy.benchmarks.bench.options import BenchOptions, Effort
    from wmdeploy.benchmarks.sweep.budget import parse_budget
    from wmdeploy.benchmarks.sweep.run import SweepOptions, nearest, recommended
    from wmdeploy.benchmarks.sweep.run import sweep as run_sweep
    from wmdeploy.benchmarks.sweep.table import cell_line, sweep_table
    from wmdeploy.engines.base import BACKENDS, DEFAULT_BACKENDS, Settings

    limits = parse_budget(budget) if budget else ()
    clips = tuple(clip or (SAMPLE_CLIP,))
    check_output_directory(output, *clips, Path(model))
    outputs = check_outputs((json,), *clips, Path(model))
    bench = BenchOptions(
        bundle=output,
        clips=clips,
        backends=names("--backend", backend, BACKENDS) if backend else DEFAULT_BACKENDS,
        context=context,
        horizon=horizon,
        refill=refill,
        batches=numbers("--batch", batch) or (1,),
        settings=Settings(device.value, tf32),
        effort=Effort(seconds=seconds, precision=within / 100),
        read=read_options(fps, fit, series),
    )
    options = SweepOptions(
        model=model,
        output=output,
        bench=bench,
        layouts=parts(layout),
        precisions=cast(
            tuple[Literal["fp32", "fp16"], ...], names("--precision", precision, PRECISIONS)
        ),
        weights=cast(tuple[Literal["float", "int8"], ...], names("--weights", weights, WEIGHTS)),
        decoders=parts(decoder),
        seed=seed,
        family=family,
    )
    remarks: list[str] = []
    with show_progress() as progress:
        result = run_sweep(options, progress, remarks)
    print_notes(dict.fromkeys(remarks))
    out.print(sweep_table(result, limits))
    if json:
        write_document(result, json)
    for path in outputs:
        out.print(f"written: {path}")
    if not limits:
        return
    if best := recommended(result.cells, limits):
        out.print(f"most frames per second within the budget: {cell_line(best)}")
        return
    closest, missed = nearest(result.cells, limits)
    out.print(f"no configuration keeps the budget; the nearest is {cell_line(closest)}; it misses:")
    out.print("  " + "; ".join(missed or [closest.reason or closest.verdict]))
    raise typer.Exit(1)
