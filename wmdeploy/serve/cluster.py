"""The application on Ray Serve: replicas of it, on as many machines and GPUs as a cluster has.

A WebSocket stays with one replica. A replica that ends, or is killed, takes no player along: all
players are saved every second in a process of its own, and their pages come back to another
replica. Ray's documentation: https://docs.ray.io/en/latest/serve/
"""

import contextlib
import os
import socket
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import ray
from ray import serve
from ray.exceptions import RayError
from starlette.applications import Starlette

from wmdeploy.errors import BackendError, WmdeployError
from wmdeploy.serve.keeper import Figures, Handover, Memory, Saved
from wmdeploy.serve.logs import log_events
from wmdeploy.serve.run import BESIDE, GRACE
from wmdeploy.serve.serving import Serving
from wmdeploy.text import one_line

NAME = "wmdeploy"
ENGAGED = 0.8  # of a replica's players, on average, from which on there is another replica
PROXY_PATIENCE = "30"  # seconds; Ray ends a proxy that answers later: on a busy machine 5 are few
REACHED = 5.0  # seconds within which a cluster answers
OBJECTS = 256 * 2**20  # bytes of shared memory of a cluster of our own: players on their way


@dataclass(frozen=True, kw_only=True)
class ClusterOptions:
    """How replicas are spread.

    Attributes:
        address: of a cluster, as `ray.init` takes it; None: one of our own, on this machine alone.
        host, port: at which the cluster listens.
        replicas, most_replicas: at least, and at most; Ray adds and ends them as players come.
        cpus, gpus: of each.
    """

    address: str | None = None
    host: str = "127.0.0.1"
    port: int = 8765
    replicas: int = 1
    most_replicas: int = 1
    cpus: float = 1
    gpus: float = 0


@dataclass(frozen=True)
class Room:
    """What a replica was measured to have room for; see `DreamEngine`."""

    capacity: int
    row_seconds: float
    remarks: tuple[str, ...]


class RayKeeper:
    """A `Keeper` in an actor of the cluster."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    async def save(self, server: str, players: Mapping[str, Saved], figures: Figures) -> list[str]:
        others: list[str] = await self._actor.save.remote(server, players, figures)
        return others

    async def take(self, server: str, secret: str) -> Saved | None:
        saved: Saved | None = await self._actor.take.remote(server, secret)
        return saved

    async def forget(self, server: str, secret: str) -> None:
        await self._actor.forget.remote(server, secret)

    async def figures(self) -> dict[str, Figures]:
        figures: dict[str, Figures] = await self._actor.figures.remote()
        return figures


@contextlib.contextmanager
def running_cluster(options: ClusterOptions) -> Iterator[None]:
    """Be connected to a cluster, or have one of our own, which listens on loopback alone.

    Raises:
        WmdeployError: there is none at that address.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    for check in ("READY", "HEALTH"):
        os.environ.setdefault(f"RAY_SERVE_PROXY_{check}_CHECK_TIMEOUT_S", PROXY_PATIENCE)
    _check_reached(options.address)
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
    try:
        if options.address is None:
            ray.init(
                "local",
                include_dashboard=False,
                object_store_memory=OBJECTS,
                _node_ip_address="127.0.0.1",
                **quiet,
            )
        else:
            ray.init(options.address, namespace=NAME, **quiet)
    except Exception as error:
        where = options.address or "this machine"
        raise WmdeployError(f"Ray on {where}: {one_line(str(error))}") from error
    try:
        yield
    finally:
        ray.shutdown()


def _check_reached(address: str | None) -> None:
    """Ray itself tries for minutes, and writes of it meanwhile."""
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        return  # "auto", which Ray looks up on this machine
    try:
        socket.create_connection((host, int(port)), REACHED).close()
    except (OSError, OverflowError) as error:
        raise WmdeployError(
            f"Ray on {address}: cannot be reached ({error}); is one running there?"
        ) from error


def measure(serving: Serving, options: ClusterOptions) -> Room:
    """Open the service once where a replica would be.

    Raises:
        WmdeployError: the bundle cannot be served there, or the cluster has too few cores or GPUs.
    """
    there, least = ray.cluster_resources(), options.replicas
    for kind, each in (("CPU", options.cpus), ("GPU", options.gpus)):
        if there.get(kind, 0) < each * least:
            raise WmdeployError(
                f"the cluster has {there.get(kind, 0):g} of {kind}, and {least} replicas need "
                f"{each * least:g}; let there be fewer, or of less, or add machines to it"
            )
    task = ray.remote(num_cpus=options.cpus, num_gpus=options.gpus, max_retries=0)(_measured)
    try:
        room: Room = ray.get(task.remote(serving))
    except RayError as error:
        cause = getattr(error, "cause", error)
        if isinstance(cause, WmdeployError):
            raise type(cause)(str(cause)) from error
        raise BackendError(f"a replica cannot start: {one_line(str(cause))}") from error
    return room


def _measured(serving: Serving) -> Room:
    remarks: list[str] = []
    service, _ = serving.open(remarks=remarks)
    service.prepare()
    return Room(service.engine.capacity, service.engine.row_seconds, tuple(remarks))


def deploy(serving: Serving, room: Room, options: ClusterOptions) -> None:
    """Start the replicas, and wait until they serve.

    Raises:
        WmdeployError: they do not start.
    """
    actor = ray.remote(num_cpus=0, max_restarts=-1)(Memory).remote(serving.options.resume)
    more: dict[str, Any] = {"num_replicas": options.replicas}
    if options.most_replicas > options.replicas:
        more = {
            "autoscaling_config": {
                "min_replicas": options.replicas,
                "max_replicas": options.most_replicas,
                "target_ongoing_requests": max(1.0, ENGAGED * room.capacity),
            }
        }

    def application() -> Starlette:
        return _application(serving, actor)

    deployment = serve.deployment(
        name=NAME,
        max_ongoing_requests=room.capacity + BESIDE,
        graceful_shutdown_timeout_s=GRACE,
        ray_actor_options={"num_cpus": options.cpus, "num_gpus": options.gpus},
        **more,
    )(serve.ingress(application)())
    try:
        serve.start(
            proxy_location="EveryNode",
            http_options={"host": options.host, "port": options.port},
            logging_config={"log_level": "ERROR", "enable_access_log": False},
        )
        serve.run(deployment.bind(), name=NAME)
    except Exception as error:
        raise WmdeployError(f"the replicas do not start: {one_line(str(error))}") from error


def _application(serving: Serving, actor: Any) -> Starlette:
    """In a replica; Ray keeps what it logs with its own logs."""
    log_events()
    name = f"{socket.gethostname()}-{os.getpid()}"
    service, app = serving.open(Handover(RayKeeper(actor), name))
    service.prepare()
    return app


def wait(ended: threading.Event) -> None:
    """Serve until then."""
    ended.wait()
    serve.shutdown()
