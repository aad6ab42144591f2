"""`wmdeploy serve`: a world model for many players."""

import functools
import socket
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
    SiteFolder,
    Starts,
    from_hub,
    one_backend,
    read_options,
)
from wmdeploy.programs.contract import FULL

if TYPE_CHECKING:
    from wmdeploy.serve.cluster import ClusterOptions
    from wmdeploy.serve.serving import Serving


class Engine(StrEnum):
    """What serves the application."""

    uvicorn = "uvicorn"
    ray = "ray"


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
    site: SiteFolder = None,
    exact: Annotated[bool, typer.Option("--exact", help="Send exact pictures, larger ones.")] = (
        False
    ),
    engine: Annotated[
        Engine, typer.Option(help="What serves it: one process, or replicas on a cluster of Ray.")
    ] = Engine.uvicorn,
    replicas: Annotated[int, typer.Option(min=1, help="Ray: replicas, at least.")] = 1,
    most_replicas: Annotated[
        int | None,
        typer.Option(min=1, help="Ray: replicas, at most; there are more as players come."),
    ] = None,
    cores: Annotated[int, typer.Option(min=1, help="Ray: processor cores of each replica.")] = 1,
    cluster: Annotated[
        str | None,
        typer.Option(
            help="Ray: address of a cluster, as ray.init takes it. Default: one of its own, on "
            "this machine.",
            show_default=False,
        ),
    ] = None,
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
    from wmdeploy.bundle import Bundle
    from wmdeploy.engines.base import BACKENDS, Settings, load_backend
    from wmdeploy.errors import WmdeployError, require
    from wmdeploy.files import read_document

    require("starlette", extra="serve", purpose="serving")
    require("uvicorn", extra="serve", purpose="serving")
    from wmdeploy.serve.app import AppOptions
    from wmdeploy.serve.engine import ServiceOptions
    from wmdeploy.serve.guard import LOOPBACK
    from wmdeploy.serve.run import open_port
    from wmdeploy.serve.serving import Serving

    secret = None
    if token_file is not None:
        secret = read_document(token_file).decode().strip()
        if len(secret) < 16:
            raise WmdeployError(
                f"{token_file}: got {len(secret)} characters, expected 16 or more; make one with: "
                "openssl rand -hex 16"
            )
    if engine is Engine.uvicorn and (cluster or most_replicas or replicas > 1 or cores > 1):
        raise WmdeployError("--replicas, --most-replicas, --cores and --cluster: need --engine ray")
    if most_replicas is not None and most_replicas < replicas:
        raise WmdeployError(
            f"--most-replicas: got {most_replicas}, expected {replicas} or more, as --replicas says"
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
    address = f"http://{shown_host}:{listening.getsockname()[1]}/"
    opened = Bundle.open(bundle.absolute())
    chosen = one_backend(backend) or "ort-cpu"
    threads = cores if engine is Engine.ray else None
    settings = Settings(device.value, threads=threads, decoder=decoder)
    serving = Serving(
        bundle=opened,
        load=functools.partial(load_backend, chosen, opened, settings),
        clips=tuple(clip.absolute() for clip in clips or ()),
        read=read_options(None, fit, series),
        site=None if site is None else site.absolute(),
        options=ServiceOptions(
            fps=pace,
            sessions=sessions,
            chunk=chunk,
            picture="png" if exact else "jpeg",
            rewind=rewind,
            idle=idle,
            refill=refill,
        ),
        shown=AppOptions(
            title=bundle.name,
            hosts=tuple(name or ()) + (() if beyond else LOOPBACK),
            origins=tuple(origin or ()),
            token=secret if token else None,
        ),
    )
    if engine is Engine.uvicorn:
        _serve_here(serving, listening, address)
        return
    require("ray.serve", extra="ray", purpose="serving on several machines")
    from wmdeploy.serve.cluster import ClusterOptions

    device_of = BACKENDS[chosen].device
    on_gpu = device_of == "cuda" or device_of == "any" and device is DeviceName.cuda
    options = ClusterOptions(
        address=cluster,
        host=host,
        port=listening.getsockname()[1],
        replicas=replicas,
        most_replicas=most_replicas or replicas,
        cpus=cores,
        gpus=1 if on_gpu else 0,
    )
    listening.close()
    _serve_on_ray(serving, options, address)


def _serve_here(serving: "Serving", listening: socket.socket, address: str) -> None:
    from wmdeploy.serve.logs import log_events
    from wmdeploy.serve.run import make_server

    log_events()
    remarks: list[str] = []
    service, app = serving.open(remarks=remarks)
    print_notes(remarks)

    def started() -> None:
        out.print(address)
        _say_room(service.engine.capacity, service.engine.row_seconds, serving)

    most = serving.options.sessions or 1024
    make_server(app, service, started, players=most).run(sockets=[listening])


def _serve_on_ray(serving: "Serving", options: "ClusterOptions", address: str) -> None:
    import signal
    import threading

    from wmdeploy.serve.cluster import deploy, measure, running_cluster, wait

    with running_cluster(options):
        room = measure(serving, options)
        print_notes(list(room.remarks))
        deploy(serving, room, options)
        ended = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: ended.set())
        out.print(address)
        _say_room(room.capacity, room.row_seconds, serving, "each replica has ")
        wait(ended)


def _say_room(players: int, row_seconds: float, serving: "Serving", whose: str = "") -> None:
    out.print(
        f"{whose}room for {players} players at {serving.options.fps:g} frames per second; a frame "
        f"takes {1000 * row_seconds:.2f} ms"
    )
