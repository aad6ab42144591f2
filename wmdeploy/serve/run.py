"""An application on a port of this machine, until it is asked to end."""

import socket
from collections.abc import Callable

import uvicorn
from starlette.applications import Starlette

from wmdeploy.errors import WmdeployError
from wmdeploy.serve.protocol import LARGEST_COMMAND
from wmdeploy.serve.service import Service

# connections beside the players': pages, pictures, health checks; more are answered with 503
BESIDE = 64
GRACE = 5  # seconds to say farewell in


def open_port(host: str, port: int) -> socket.socket:
    """A port to listen on; 0 for any that is free.

    Raises:
        WmdeployError: it is taken, or the host is none of this machine's.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise WmdeployError(
            f"{host}, port {port}: cannot be listened on ({error.strerror}); choose another port, "
            "or 0 for any that is free"
        ) from error


class Server(uvicorn.Server):
    """uvicorn, which lets players know before it closes their connections."""

    def __init__(self, config: uvicorn.Config, service: Service, started: Callable[[], None]):
        super().__init__(config)
        self._service, self._started = service, started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._started()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await self._service.stop(GRACE)
        await super().shutdown(sockets)

    def end(self) -> None:
        """End soon; from any thread."""
        self.should_exit = True


def make_server(
    app: Starlette, service: Service, started: Callable[[], None], players: int
) -> Server:
    """A server of an application; `run(sockets=[open_port(...)])` serves until it ends.

    Args:
        started: called once it listens.
        players: connections that stay open, at most.

    Raises:
        BackendError: the engines do not run.
    """
    service.prepare()
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        ws="websockets-sansio",
        ws_max_size=LARGEST_COMMAND,
        ws_per_message_deflate=False,
        limit_concurrency=players + BESIDE,
        timeout_graceful_shutdown=GRACE,
    )
    return Server(config, service, started)
