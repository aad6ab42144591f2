"""`wmdeploy play`: a world model in the browser."""

import functools
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wmdeploy.cli.common import app, example, out, print_notes
from wmdeploy.cli.options import (
    Backend,
    Decoder,
    Device,
    DeviceName,
    Family,
    Fit,
    FitName,
    Refill,
    Seed,
    Series,
    SiteFolder,
    Starts,
    from_hub,
    one_backend,
    read_options,
)
from wmdeploy.install import install_command
from wmdeploy.manifest import MANIFEST_FILE
from wmdeploy.programs.contract import FULL

if TYPE_CHECKING:
    from wmdeploy.bundle import Bundle


@app.command(epilog=example("wmdeploy play bundles/pong data/pong --game pong"))
def play(
    source: Annotated[
        str,
        typer.Argument(
            help="Bundle, or a model, which the PyTorch baseline runs.", callback=from_hub
        ),
    ],
    clips: Starts = None,
    game: Annotated[
        str | None,
        typer.Option(
            help="Atari game to play beside the dream. Default: the one that the bundle knows; "
            "none: no game."
        ),
    ] = None,
    pace: Annotated[float, typer.Option(min=1, max=60, help="Frames per second of a dream.")] = 15,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port on this machine; 0: any that is free.")
    ] = 8765,
    site: SiteFolder = None,
    browser: Annotated[bool, typer.Option(help="Open the page in a browser.")] = True,
    family: Family = None,
    backend: Backend = None,
    decoder: Decoder = FULL,
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

    from wmdeploy.bundle import Bundle
    from wmdeploy.engines.base import Settings
    from wmdeploy.engines.rollout import open_source
    from wmdeploy.errors import BackendError, require

    require("starlette", extra="serve", purpose="playing")
    require("uvicorn", extra="serve", purpose="playing")
    from wmdeploy.serve.app import AppOptions, create_app
    from wmdeploy.serve.engine import ServiceOptions
    from wmdeploy.serve.run import make_server, open_port
    from wmdeploy.serve.service import Service
    from wmdeploy.serve.site import read_site
    from wmdeploy.serve.world import find_world

    listening = open_port("127.0.0.1", port)
    remarks: list[str] = []
    settings = Settings(device.value, decoder=decoder)
    load = functools.partial(
        open_source,
        source,
        one_backend(backend),
        seed=seed,
        settings=settings,
        remarks=remarks,
        family=family,
    )
    engines = load()
    read = read_options(None, fit, series)
    bundle = Bundle.open(Path(source)) if (Path(source) / MANIFEST_FILE).is_file() else None
    if site is not None and bundle is None:
        raise BackendError(f"{source}: is no bundle, and a site is of one; export it first")
    game = _game(game, bundle, remarks)
    world = find_world(engines, clips or [], read, game, bundle=bundle, remarks=remarks)
    print_notes(remarks)
    of_site = None
    if site is not None and bundle is not None:
        of_site = read_site(site, bundle, engines.programs, world.starts)
    options = ServiceOptions(
        fps=pace, sessions=8, picture="png", rewind=10, recorded=120, idle=3600, refill=refill
    )
    service = Service(engines, world.starts, options, world.game, reload=load)
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
        about=world.about,
        hosts=("127.0.0.1", "localhost"),
        token=token,
        site=of_site,
        alone=60,
        ended=lambda: server.end(),
    )
    server = make_server(create_app(service, shown), service, started, players=8)
    server.run(sockets=[listening])


def _game(named: str | None, bundle: "Bundle | None", remarks: list[str]) -> str | None:
    """The game beside the dream: the one that was named, or that the bundle knows."""
    from importlib.util import find_spec

    if named is not None:
        return None if named == "none" else named
    if bundle is None or bundle.manifest.play is None:
        return None
    if find_spec("ale_py") is None or find_spec("gymnasium") is None:
        remarks.append("without the real game beside it; to have it: " + install_command("train"))
        return None
    return bundle.manifest.play.game
