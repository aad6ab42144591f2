"""From a model to frames: export, build-engine, rollout."""

from collections.abc import Iterable, Iterator
from itertools import chain, repeat
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wmdeploy.cli.common import (
    DeviceName,
    Fit,
    FitName,
    FlavourName,
    Fps,
    LayoutName,
    PrecisionName,
    Seed,
    Series,
    err,
    example,
    out,
    progress_bar,
    read_options,
    tell,
)
from wmdeploy.clips.read import SAMPLE_CLIP
from wmdeploy.files import check_output

if TYPE_CHECKING:
    import numpy as np

commands = typer.Typer()


@commands.command(
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


@commands.command(epilog=example("wmdeploy build-engine bundles/pong --arch sm_86 --arch sm_89"))
def build_engine(
    bundle: Annotated[Path, typer.Argument(help="A bundle exported with --precision fp16.")],
    flavour: Annotated[FlavourName, typer.Option(help="auto: tensorrt if installed.")] = (
        FlavourName.auto
    ),
    arch: Annotated[
        list[str] | None,
        typer.Option(help="sm_86, sm_89 ...; repeat for several. Default: current, this GPU."),
    ] = None,
    max_batch: Annotated[
        int | None, typer.Option(help="Largest batch; default the bundle's.")
    ] = None,
    workspace: Annotated[float | None, typer.Option(help="GiB the builder may use.")] = None,
    opt_level: Annotated[int, typer.Option(help="0 builds fastest, 5 runs fastest.")] = 3,
    graph: Annotated[
        list[str] | None, typer.Option(help="encoder, prefill, step, decoder; default all.")
    ] = None,
) -> None:
    """Build FP16 TensorRT plans from a bundle's graphs, into the bundle."""
    from wmdeploy.cli.tables import plans_table
    from wmdeploy.engines.trt.flavour import CURRENT
    from wmdeploy.engines.trt.plans import BuildOptions, build_plans

    options = BuildOptions(
        bundle=bundle,
        flavour=flavour.value,
        architectures=tuple(arch or (CURRENT,)),
        max_batch=max_batch,
        workspace_gib=workspace,
        opt_level=opt_level,
        graphs=tuple(graph or ()),
    )
    with progress_bar() as bar:
        tasks: dict[str, Any] = {}

        def report(name: str, phase: str, done: float) -> None:
            if name not in tasks:
                tasks[name] = bar.add_task(name, total=100)
            told = f"{name}: {phase.lower()}"
            bar.update(tasks[name], completed=round(100 * done), description=told)

        results = build_plans(options, report)
    built = [record for record, new in results if new]
    if not built:
        out.print(f"{bundle}: all plans are up to date, nothing to do")
        return
    out.print(plans_table(built))
    if kept := len(results) - len(built):
        out.print(f"{kept} more were up to date")


@commands.command(
    epilog=example("wmdeploy rollout bundles/pong data/pong/clip-00000.mkv -o dream.gif")
)
def rollout(
    source: Annotated[str, typer.Argument(help="A bundle, or a model (run by the baseline).")],
    clip: Annotated[Path, typer.Argument(help="Video, picture folder, .npz or clip.")],
    output: Annotated[Path, typer.Option("-o", "--output", help=".mp4, .gif, .mkv or .npz")],
    context: Annotated[int, typer.Option(min=1, help="Frames given.")] = 8,
    horizon: Annotated[int, typer.Option(min=1, help="Frames imagined.")] = 24,
    backend: Annotated[str | None, typer.Option(help="For a bundle; default ort-cpu.")] = None,
    device: Annotated[
        DeviceName, typer.Option(help="Of PyTorch backends; auto: a GPU if there is one.")
    ] = DeviceName.auto,
    refill: Annotated[int | None, typer.Option(help="Tokens kept when the window is full.")] = None,
    seed: Seed = 0,
    fps: Fps = None,
    fit: Fit = FitName.squeeze,
    series: Series = None,
) -> None:
    """Imagine the frames that follow a clip. Videos show the real future on the left, if known."""
    from wmdeploy.clips import (
        check_suffix,
        count_frames,
        iter_frames,
        read_clip,
        write_npz_frames,
        write_video,
    )
    from wmdeploy.clips.read import open_source as open_clip
    from wmdeploy.engines.base import Settings
    from wmdeploy.engines.rollout import image_size, open_source
    from wmdeploy.engines.rollout import rollout as imagine

    check_suffix(output)
    check_output(output, clip, Path(source))
    read = read_options(fps, fit, series)
    have = count_frames(clip, read)
    remarks: list[str] = []
    with err.status("load"):
        engines = open_source(source, backend, seed, Settings(device.value), remarks)
    size = image_size(engines)
    past = read_clip(clip, size=size, count=min(have, context), options=read)
    tell([*remarks, *past.remarks])
    frames = imagine(engines, past, context, horizon, refill, open_clip(clip, read).actions())
    with progress_bar() as bar:
        frames = bar.track(frames, total=horizon, description="imagine")
        if output.suffix.lower() == ".npz":
            write_npz_frames(output, frames, horizon)
        else:
            if known := min(have - context, horizon):
                future = iter_frames(clip, size=size, start=context, count=known, options=read)
                frames = _beside(future, size, frames)
            write_video(output, frames, past.fps)
    out.print(f"{horizon} frames imagined by {engines.name} on {engines.device}: {output}")


def _beside(
    future: Iterable["np.ndarray"], size: int, imagined: Iterable["np.ndarray"]
) -> Iterator["np.ndarray"]:
    """What really came, and black where it ends, left of what is imagined."""
    import numpy as np

    from wmdeploy.clips import side_by_side

    black = np.zeros((size, size, 3), np.uint8)
    for real, frame in zip(chain(future, repeat(black)), imagined, strict=False):
        yield side_by_side(real[None], frame[None])[0]
