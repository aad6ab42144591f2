"""`wmdeploy build-engine`: build TensorRT plans into a bundle."""

from pathlib import Path
from typing import Annotated

import typer

from wmdeploy.cli.common import app, example, out
from wmdeploy.cli.options import FlavourName, from_hub, parts
from wmdeploy.cli.progress import show_progress


@app.command(epilog=example("wmdeploy build-engine bundles/pong --arch sm_86 --arch sm_89"))
def build_engine(
    bundle: Annotated[
        Path,
        typer.Argument(help="Bundle exported with --precision fp16.", callback=from_hub),
    ],
    flavour: Annotated[
        FlavourName,
        typer.Option(help="TensorRT to build with; auto takes tensorrt if it is installed."),
    ] = FlavourName.auto,
    arch: Annotated[
        list[str] | None,
        typer.Option(
            help="GPU architecture to build for, such as sm_86; repeat the option or separate "
            "names with commas. Default: this machine's GPU."
        ),
    ] = None,
    max_batch: Annotated[
        int | None, typer.Option(help="Largest batch of the plans. Default: the bundle's.")
    ] = None,
    workspace: Annotated[
        float | None, typer.Option(help="Memory in GiB that the builder may use.")
    ] = None,
    opt_level: Annotated[
        int, typer.Option(help="Optimization level: 0 builds fastest, 5 runs fastest.")
    ] = 3,
    graph: Annotated[
        list[str] | None,
        typer.Option(
            help="Graph to build, such as decoder (see wmdeploy inspect); repeat the option or "
            "separate names with commas. Default: all."
        ),
    ] = None,
) -> None:
    """Build FP16 TensorRT plans from a bundle's graphs, and store them in the bundle."""
    from wmdeploy.cli.tables import plans_table
    from wmdeploy.engines.trt.flavour import CURRENT
    from wmdeploy.engines.trt.plans import BuildOptions, build_plans

    options = BuildOptions(
        bundle=bundle,
        flavour=flavour.value,
        architectures=parts(arch) or (CURRENT,),
        max_batch=max_batch,
        workspace_gib=workspace,
        opt_level=opt_level,
        graphs=parts(graph),
    )
    with show_progress() as progress:
        results = build_plans(options, progress)
    built = [record for record, new in results if new]
    if not built:
        out.print(f"{bundle}: all plans are up to date, nothing to do")
        return
    out.print(plans_table(built))
    if kept := len(results) - len(built):
        out.print(f"{kept} other {'plan was' if kept == 1 else 'plans were'} up to date")
