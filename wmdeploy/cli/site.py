"""`wmdeploy site`: a world model as a folder of static files."""

from pathlib import Path
from typing import Annotated

import typer

from wmdeploy.cli.common import app, example, out, print_notes
from wmdeploy.cli.options import Decoder, Fit, FitName, Series, Starts, from_hub, read_options
from wmdeploy.cli.progress import show_progress
from wmdeploy.programs.contract import FULL


@app.command(epilog=example("wmdeploy site bundles/pong -o site"))
def site(
    bundle: Annotated[Path, typer.Argument(help="Bundle that the page plays.", callback=from_hub)],
    clips: Starts = None,
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Folder to write, for any static web server.")
    ] = Path("site"),
    pace: Annotated[float, typer.Option(min=1, max=60, help="Frames per second of a dream.")] = 15,
    webgpu: Annotated[
        bool, typer.Option(help="Use the visitor's GPU where there is one; 3 MB more to load.")
    ] = False,
    runtime: Annotated[
        Path | None,
        typer.Option(
            help="Folder dist of npm's onnxruntime-web. Default: npm gets it, once.",
            show_default=False,
        ),
    ] = None,
    decoder: Decoder = FULL,
    fit: Fit = FitName.squeeze,
    series: Series = None,
) -> None:
    """Write a page that runs the model in the browser's own tab, with no server behind it.

    Each graph, and a rollout, are run beside the bundle's before anything is written.
    """
    from wmdeploy.bundle import Bundle
    from wmdeploy.engines.base import Settings, load_backend
    from wmdeploy.errors import require

    require("starlette", extra="serve", purpose="the page")
    from wmdeploy.exporters.site.write import SiteOptions, write_site

    remarks: list[str] = []
    options = SiteOptions(
        bundle=bundle,
        output=output,
        clips=tuple(clips or ()),
        fps=pace,
        webgpu=webgpu,
        runtime=runtime,
        read=read_options(None, fit, series),
    )
    with show_progress() as progress:
        backend = load_backend("ort-cpu", Bundle.open(bundle), Settings(decoder=decoder))
        written = write_site(options, backend, remarks, progress)
    print_notes(remarks)
    out.print(
        f"{output}: {written.bytes / 1e6:.1f} MB; beside ort-cpu the worst of {written.frames} "
        f"frames is {written.worst_db:.1f} dB"
    )
    out.print(f"to look at it: python -m http.server -d {output}", style="dim")
