"""From a model to frames: export, build-engine, rollout."""

from pathlib import Path
from typing import Annotated, Any

import typer

from wmdeploy.cli.common import (
    DeviceName,
    FlavourName,
    LayoutName,
    PrecisionName,
    Seed,
    err,
    example,
    out,
    progress_bar,
    tell,
)
from wmdeploy.clips.read import SAMPLE_CLIP
from wmdeploy.files import check_output

commands = typer.Typer()


@commands.command(
    epilog=example("wmdeploy export models/pong -o bundles/pong --clip data/pong/clip-00000.mkv")
)
def export(
    model: Annotated[
        str,
        typer.Argument(help="Model directory, reference .pt, or preset (reference, small, tiny)."),
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
) -> None:
    """Export a model as a bundle of ONNX graphs, each verified against PyTorch."""
    from exporters.export import ExportOptions, export_bundle
    from wmdeploy.tables import bundle_tables

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
    )
    remarks: list[str] = []
    with err.status("export") as status:
        bundle, made = export_bundle(options, lambda stage: status.update(stage), remarks)
    tell(remarks)
    if not made:
        out.print(f"{output}: up to date, nothing to do", highlight=False)
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
    from engines.trt.flavour import CURRENT
    from engines.trt.plans import BuildOptions, build_plans
    from wmdeploy.tables import plans_table

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
        out.print(f"{bundle}: all plans are up to date, nothing to do", highlight=False)
        return
    out.print(plans_table(built))
    if kept := len(results) - len(built):
        out.print(f"{kept} more were up to date", highlight=False)


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
) -> None:
    """Imagine the frames that follow a clip. Videos show the real future on the left, if known."""
    import numpy as np

    from engines.base import Settings
    from engines.rollout import image_size, open_source
    from engines.rollout import rollout as imagine
    from wmdeploy.clips import count_frames, read_clip, side_by_side, write_npz, write_video
    from wmdeploy.clips.write import check_suffix

    check_suffix(output)
    check_output(output, clip, Path(source))
    have = count_frames(clip)
    remarks: list[str] = []
    with err.status("load"):
        engines = open_source(source, backend, seed, Settings(device.value), remarks)
    tell(remarks)
    real = read_clip(clip, size=image_size(engines), count=min(have, context + horizon))
    with progress_bar() as bar:
        task = bar.add_task("imagine", total=horizon)
        frames = imagine(
            engines, real, context, horizon, refill, lambda n: bar.update(task, completed=n)
        )
    if output.suffix.lower() == ".npz":
        write_npz(output, frames)
    else:
        future = np.zeros_like(frames)  # black where the clip does not know it
        known = real.frames[context : context + horizon]
        future[: len(known)] = known
        write_video(output, side_by_side(future, frames) if len(known) else frames, real.fps)
    told = f"{horizon} frames imagined by {engines.name} on {engines.device}: {output}"
    out.print(told, highlight=False)
