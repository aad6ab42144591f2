"""`wmdeploy build-engine`: build TensorRT plans into a bundle."""

from pathlib import Path
from typing import Annotated

import typer

from wmdeploy.cli.common import FlavourName, app, example, out
from wmdeploy.cli.progress import show_progress


@app.command(epilog=example("wmdeploy build-engine bundles/pong --arch sm_86 --arch sm_89"))
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
    with show_progress() as progress:
        results = build_plans(options, progress)
    built = [record for record, new in results if new]
    if not built:
        out.print(f"{bundle}: all plans are up to date, nothing to do")
        return
    out.print(plans_table(built))
    if kept := len(results) - len(built):
        out.print(f"{kept} more were up to date")
