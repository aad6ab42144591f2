"""`wmdeploy play`: a world model in the browser."""

import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from wmdeploy.cli.common import app, example, out, print_notes
from wmdeploy.cli.options import (
    Backend,
    Device,
    DeviceName,
    Family,
    Fit,
    FitName,
    Refill,
    Seed,
    Series,
    from_hub,
    one_backend,
    read_options,
)

LONGEST_CONTEXT = 16  # real frames that a dream begins with, where the model takes so many


@app.command(epilog=example("wmdeploy play bundles/pong data/pong --game pong"))
def play(
    source: Annotated[
        str,
        typer.Argument(
            help="Bundle, or a model, which the PyTorch baseline runs.", callback=from_hub
        ),
    ],
    clips: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Clips of real frames, or folders of them, to begin from.",
            show_default="built-in clips of Freeway",
            callback=from_hub,
        ),
    ] = None,
    game: Annotated[
        str | None,
        typer.Option(help="Atari game that the model was trained on, to play beside it."),
    ] = None,
    fps: Annotated[float, typer.Option(min=1, max=60, help="Frames per second.")] = 15,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port on this machine; 0: any that is free.")
    ] = 8765,
    browser: Annotated[bool, typer.Option(help="Open the page in a browser.")] = True,
    family: Family = None,
    backend: Backend = None,
    device: Device = DeviceName.auto,
    refill: Refill = None,
    fit: Fit = FitName.squeeze,
    series: Series = None,
    seed: Seed = 0,
) -> None:
    """Play a world model in the browser, with the real game beside it.

    The page is for this machine alone. It ends a minute after the last page was closed, or by
    Ctrl-C.
    """
    import secrets

    from wmdeploy.engines.base import Settings
    from wmdeploy.engines.rollout import open_source
    from wmdeploy.errors import require

    require("starlette", extra="serve", purpose="playing")
    require("uvicorn", extra="serve", purpose="playing")
    from wmdeploy.serve.app import AppOptions, create_app
    from wmdeploy.serve.engine import ServiceOptions
    from wmdeploy.serve.run import make_server, open_port
    from wmdeploy.serve.service import Service
    from wmdeploy.serve.world import find_world

    listening = open_port("127.0.0.1", port)
    remarks: list[str] = []
    settings = Settings(device.value, threads=None)
    engines = open_source(
        source, one_backend(backend), seed=seed, settings=settings, remarks=remarks, family=family
    )
    read = read_options(None, fit, series)
    world = find_world(engines, clips or [], read, game, most=LONGEST_CONTEXT, remarks=remarks)
    print_notes(remarks)
    options = ServiceOptions(
        fps=fps, sessions=8, picture="png", rewind=10, recorded=120, idle=3600, refill=refill
    )
    service = Service(engines, world.starts, options, world.game)
    address = f"http://127.0.0.1:{listening.getsockname()[1]}"
    token = secrets.token_urlsafe(16)

    def started() -> None:
        out.print(f"{address}/?token={token}")
        out.print("Ctrl-C ends it", style="dim")
        if browser:
            webbrowser.open(f"{address}/?token={token}")

    shown = AppOptions(
        title=Path(source).name or source,
        meanings=world.meanings,
        hosts=("127.0.0.1", "localhost"),
        token=token,
        alone=60,
        ended=lambda: server.end(),
    )
    server = make_server(create_app(service, shown), service, started, players=8)
    server.run(sockets=[listening])
