"""`wmdeploy serve`: a world model for many players."""

import functools
from pathlib import Path
from typing import Annotated

import typer

from wmdeploy.cli.common import app, example, out, print_notes
from wmdeploy.cli.options import (
    Backend,
    Decoder,
    Device,
    DeviceName,
    Fit,
    FitName,
    Refill,
    Series,
    Starts,
    from_hub,
    one_backend,
    read_options,
)
from wmdeploy.programs.contract import FULL


@app.command(epilog=example("wmdeploy serve bundles/pong data/pong --sessions 16"))
def serve(
    bundle: Annotated[Path, typer.Argument(help="Bundle to serve.", callback=from_hub)],
    clips: Starts = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0: any that is free.")] = 8765,
    name: Annotated[
        list[str] | None,
        typer.Option(
            help="Name under which pages ask for this server, such as play.example.org; repeat "
            "for more. Needed beyond this machine."
        ),
    ] = None,
    origin: Annotated[
        list[str] | None,
        typer.Option(
            help="Another origin whose pages may connect, such as https://example.org; repeat for "
            "more."
        ),
    ] = None,
    token_file: Annotated[
        Path | None, typer.Option(help="File with the token that a page's address must have.")
    ] = None,
    token: Annotated[
        bool, typer.Option("--token/--no-token", help="Let nobody in without a token.")
    ] = True,
    sessions: Annotated[
        int | None,
        typer.Option(
            min=1, max=1024, help="Players at a time. Default: as many as were measured to fit."
        ),
    ] = None,
    pace: Annotated[float, typer.Option(min=1, max=60, help="Frames per second of a dream.")] = 15,
    chunk: Annotated[
        int, typer.Option(min=1, max=1024, help="Players stepped together, at most.")
    ] = 8,
    idle: Annotated[
        float, typer.Option(min=1, help="Seconds without a key after which a player leaves.")
    ] = 300,
    rewind: Annotated[float, typer.Option(min=0, help="Seconds that a player can go back.")] = 0,
    exact: Annotated[bool, typer.Option("--exact", help="Send exact pictures, larger ones.")] = (
        False
    ),
    backend: Backend = None,
    decoder: Decoder = FULL,
    device: Device = DeviceName.auto,
    refill: Refill = None,
    fit: Fit = FitName.squeeze,
    series: Series = None,
) -> None:
    """Serve a bundle to many players, each in a dream of its own.

    On this machine alone unless --host says otherwise, and then with a token. It logs a line of
    JSON for each event; /health and /metrics tell how it is.
    """
    import logging

    from wmdeploy.bundle import Bundle
    from wmdeploy.engines.base import Settings, load_backend
    from wmdeploy.errors import WmdeployError, require
    from wmdeploy.files import read_document

    require("starlette", extra="serve", purpose="serving")
    require("uvicorn", extra="serve", purpose="serving")
    from wmdeploy.serve.app import AppOptions, create_app
    from wmdeploy.serve.engine import ServiceOptions
    from wmdeploy.serve.guard import LOOPBACK
    from wmdeploy.serve.logs import JsonLines
    from wmdeploy.serve.run import make_server, open_port
    from wmdeploy.serve.service import Service
    from wmdeploy.serve.world import find_world

    secret = None
    if token_file is not None:
        secret = read_document(token_file).decode().strip()
        if len(secret) < 16:
            raise WmdeployError(
                f"{token_file}: got {len(secret)} characters, expected 16 or more; make one with: "
                "openssl rand -hex 16"
            )
    shown_host = f"[{host}]" if ":" in host else host
    beyond = shown_host not in LOOPBACK
    if beyond and token and secret is None:
        raise WmdeployError(
            f"host {host}: anybody who reaches it could play; give --token-file FILE, or say "
            "--no-token"
        )
    if beyond and not name:
        raise WmdeployError(
            f"host {host}: give the name under which pages ask for it, as --name play.example.org"
        )
    listening = open_port(host, port)
    opened = Bundle.open(bundle)
    chosen, settings = one_backend(backend) or "ort-cpu", Settings(device.value, decoder=decoder)
    load = functools.partial(load_backend, chosen, opened, settings)
    engines = load()
    remarks: list[str] = []
    read = read_options(None, fit, series)
    world = find_world(engines, clips or [], read, None, bundle=opened, remarks=remarks)
    print_notes(remarks)
    options = ServiceOptions(
        fps=pace,
        sessions=sessions,
        chunk=min(chunk, engines.max_batch or chunk),
        picture="png" if exact else "jpeg",
        rewind=rewind,
        idle=idle,
        refill=refill,
    )
    service = Service(engines, world.starts, options, reload=load)
    shown = AppOptions(
        title=bundle.name,
        meanings=world.meanings,
        about=world.about,
        hosts=tuple(name or ()) + (() if beyond else LOOPBACK),
        origins=tuple(origin or ()),
        token=secret if token else None,
    )
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines())
    logging.getLogger("wmdeploy.serve").addHandler(handler)
    logging.getLogger("wmdeploy.serve").setLevel(logging.INFO)

    def started() -> None:
        engine = service.engine
        out.print(f"http://{shown_host}:{listening.getsockname()[1]}/")
        out.print(
            f"room for {engine.capacity} players at {pace:g} frames per second; a frame takes "
            f"{1000 * engine.row_seconds:.2f} ms"
        )

    make_server(create_app(service, shown), service, started, players=sessions or 1024).run(
        sockets=[listening]
    )
