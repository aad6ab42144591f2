"""The ASGI application: a page, what it asks for, and a WebSocket for each player."""

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import AsyncIterator, Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.websockets import WebSocket, WebSocketDisconnect

from wmdeploy.serve.guard import Guard
from wmdeploy.serve.player import Player
from wmdeploy.serve.protocol import (
    CLOSE,
    COMMANDS_PER_SECOND,
    VERSION,
    ProtocolError,
    read_command,
)
from wmdeploy.serve.recording import RECORDINGS, write_recording
from wmdeploy.serve.service import FullError, Service
from wmdeploy.serve.site import Site
from wmdeploy.serve.starts import picture

log = logging.getLogger("wmdeploy.serve")
LEFT = (1000, 1001)  # codes with which a page closes its connection, or is closed itself
FAREWELL = 2  # seconds for the last message
METRICS = {  # kind and meaning of what a service counts
    "sessions": ("gauge", "players now"),
    "sessions_most": ("gauge", "players at a time"),
    "late": ("gauge", "frames of players now that were a period behind"),
    "frames_total": ("counter", "frames imagined"),
    "batches_total": ("counter", "batches of frames"),
    "refused_total": ("counter", "players for whom there was no room"),
    "failed_total": ("counter", "frames that the engine failed to make"),
    "reloaded_total": ("counter", "times that the engine was loaded anew"),
    "taken_over_total": ("counter", "players of another server that came to this one"),
    "step_seconds_total": ("counter", "of the engine"),
    "picture_seconds_total": ("counter", "of encoding pictures"),
}
PAGE = Path(__file__).parent / "page"


@dataclass(frozen=True, kw_only=True)
class AppOptions:
    """What the application shows, and to whom.

    Attributes:
        title: of the model, for people.
        meanings: of actions, such as "NOOP" and "UPFIRE"; empty where they are not known.
        about: what else the page tells of the model, label and value.
        hosts, origins, token: see `Guard`.
        site: of the same model, for the page's own tab; None for none.
        alone: seconds after the last page was closed until `ended` is called; None: never.
        ended: ends the server.
    """

    title: str
    meanings: tuple[str, ...] = ()
    about: tuple[tuple[str, str], ...] = ()
    hosts: Collection[str] = ()
    origins: Collection[str] = ()
    token: str | None = None
    site: Site | None = None
    alone: float | None = None
    ended: Callable[[], None] | None = None


def create_app(service: Service, options: AppOptions) -> Starlette:
    """The application around a service, which starts and stops with it."""
    pages = Pages(service, options)

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        await service.start()
        watch = asyncio.create_task(pages.end_when_alone())
        yield
        watch.cancel()
        await service.stop()

    routes: list[BaseRoute] = [
        Route("/", pages.page),
        Route("/info", pages.info),
        Route("/starts/{number:int}.png", pages.start_picture),
        Route("/recordings/{secret}.{kind}", pages.recording),
        Route("/health", pages.health),
        Route("/metrics", pages.metrics),
        WebSocketRoute("/play", pages.play),
        Mount("/page", StaticFiles(directory=PAGE)),
    ]
    if options.site is not None:
        routes.append(Mount("/site", StaticFiles(directory=options.site.directory)))
    guard = Middleware(Guard, options.hosts, options.origins, options.token)
    return Starlette(routes=routes, middleware=[guard], lifespan=lifespan)


class Pages:
    """The routes."""

    def __init__(self, service: Service, options: AppOptions) -> None:
        self.service, self.options = service, options
        self._connected = 0
        self._alone_since: float | None = None

    async def page(self, request: Request) -> Response:
        return FileResponse(PAGE / "index.html")

    async def info(self, request: Request) -> Response:
        """What the page shows before anybody plays."""
        service, engine = self.service, self.service.engine
        game = engine.game is not None
        titles = [start.title for start in engine.starts] + ["the real game, now"] * game
        return JSONResponse(
            {
                "version": VERSION,
                "title": self.options.title,
                "about": self.options.about,
                "size": engine.backend.image_size,
                "fps": service.options.fps,
                "actions": max(1, engine.programs.num_actions),
                "meanings": self.options.meanings,
                "starts": [
                    {"title": title, "live": number == len(engine.starts)}
                    for number, title in enumerate(titles)
                ],
                "rewind": service.options.rewind,
                "recorded": service.options.recorded,
                "recordings": list(RECORDINGS),
                "backend": engine.backend.name,
                "site": None if self.options.site is None else self.options.site.info,
            }
        )

    async def start_picture(self, request: Request) -> Response:
        number = request.path_params["number"]
        if number >= len(self.service.engine.starts):
            return PlainTextResponse("no such start\n", 404)
        frame = self.service.engine.starts[number].frames[-1]
        headers = {"cache-control": "private, max-age=3600"}
        return Response(picture(frame, "png"), media_type="image/png", headers=headers)

    async def recording(self, request: Request) -> Response:
        """What a player dreamt lately, as a file; whoever has its secret may take it."""
        player = self.service.players.get(request.path_params["secret"])
        kind = request.path_params["kind"]
        if player is None or kind not in RECORDINGS:
            return PlainTextResponse("no such recording\n", 404)
        taken = list(player.dream.taken)
        if not taken:
            return PlainTextResponse("nothing has been recorded yet\n", 404)
        fps = 1 / player.seat.period
        data = await asyncio.to_thread(write_recording, taken, kind, fps)
        headers = {"content-disposition": f'attachment; filename="dream.{kind}"'}
        return Response(data, media_type=RECORDINGS[kind], headers=headers)

    async def health(self, request: Request) -> Response:
        ready = self.service.ready
        return PlainTextResponse("ready\n" if ready else "not ready\n", 200 if ready else 503)

    async def metrics(self, request: Request) -> Response:
        """In the text format of Prometheus; of all servers where there are several."""
        service = self.service
        servers = await service.handover.figures(service.figures())
        lines = []
        for name, (kind, text) in METRICS.items():
            lines += [f"# HELP wmdeploy_{name} {text}", f"# TYPE wmdeploy_{name} {kind}"]
            for server, figures in servers.items():
                label = f'{{server="{server}"}}' if server else ""
                lines.append(f"wmdeploy_{name}{label} {figures[name]}")
        return PlainTextResponse("\n".join(lines) + "\n", media_type="text/plain; version=0.0.4")

    async def play(self, socket: WebSocket) -> None:
        """One player, as long as the page is there."""
        await socket.accept()
        player = await self._player(socket)
        if player is None:
            return
        self._connected += 1
        listening = asyncio.create_task(self._listen(socket, player))
        sending = asyncio.create_task(_send(socket, player))
        ended = asyncio.create_task(player.ended.wait())
        left = False
        try:
            await asyncio.wait({listening, ended}, return_when=asyncio.FIRST_COMPLETED)
            if player.closing is not None:  # the farewell, which nobody may be reading
                await asyncio.wait({sending}, timeout=FAREWELL)
            left = listening.done() and listening.result()
        finally:
            self._connected -= 1
            self._alone_since = time.monotonic()
            for task in (listening, sending, ended):
                task.cancel()
            self.service.lose(player, left)

    async def end_when_alone(self) -> None:
        """Call `ended` once nobody has been there for a while; not before the first one came."""
        while self.options.alone is not None:
            await asyncio.sleep(0.2)
            since = self._alone_since
            if self._connected or since is None:
                continue
            if time.monotonic() - since > self.options.alone and self.options.ended is not None:
                self.options.ended()
                return

    async def _player(self, socket: WebSocket) -> Player | None:
        """A new player, or one that comes back; None where the connection is closed instead."""
        query = socket.query_params
        if query.get("v") != str(VERSION):
            reason = f"the page has version {query.get('v')}, the server {VERSION}: reload the page"
            await socket.close(CLOSE["version"], reason[:120])
            return None
        start = query.get("start", "0")
        try:
            player = await self.service.comeback(query.get("session", ""))
            if player is None:
                number = int(start) if start.isdecimal() else -1
                player = await self.service.join(number, running="paused" not in query)
        except FullError as error:
            await socket.close(CLOSE["full"], str(error))
            return None
        except ProtocolError as error:
            await socket.close(error.code, str(error)[:120])
            return None
        player.exact = "exact" in query
        return player

    async def _listen(self, socket: WebSocket, player: Player) -> bool:
        """Obey commands until the connection ends; whether the page said farewell."""
        allowed, since = float(COMMANDS_PER_SECOND), time.monotonic()
        with contextlib.suppress(WebSocketDisconnect, RuntimeError):
            while player.closing is None:
                message = await socket.receive()
                if message["type"] != "websocket.receive":
                    return message.get("code") in LEFT
                now = time.monotonic()
                allowed = min(COMMANDS_PER_SECOND, allowed + (now - since) * COMMANDS_PER_SECOND)
                since, allowed = now, allowed - 1
                if allowed < 0:
                    self.service.dismiss(player, "policy", "too many messages a second")
                    return False
                try:
                    await self.service.obey(player, read_command(message.get("bytes") or b""))
                except ProtocolError as error:
                    log.warning("refused", extra={"reason": str(error)})
                    code = "too big" if error.code == CLOSE["too big"] else "bad command"
                    self.service.dismiss(player, code, str(error))
        return False


async def _send(socket: WebSocket, player: Player) -> None:
    """What the page comes back with, what is in the outbox, and the end."""
    with contextlib.suppress(WebSocketDisconnect, RuntimeError):
        await socket.send_text(json.dumps({"kind": "hello", "session": player.secret}))
        while (message := await player.outbox.get()) is not None:
            if isinstance(message, bytes):
                await socket.send_bytes(message)
            else:
                await socket.send_text(json.dumps(message))
        assert player.closing is not None
        code, reason = player.closing
        await socket.close(code, reason.encode()[:120].decode(errors="ignore"))
