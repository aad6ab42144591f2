"""A server on loopback, of the world that counts, and what a page is to it."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import httpx
import pytest
from websockets.sync.client import connect

from tests.envs.counting import counted, counting
from wmdeploy.programs.engine import Backend
from wmdeploy.serve.app import AppOptions, create_app
from wmdeploy.serve.engine import ServiceOptions
from wmdeploy.serve.game import Game
from wmdeploy.serve.keeper import Handover
from wmdeploy.serve.protocol import HEADER, REAL, VERSION, Command, CommandName, write_command
from wmdeploy.serve.run import make_server, open_port
from wmdeploy.serve.service import Service
from wmdeploy.serve.starts import start_of

WAIT = 20  # seconds for an answer; a fault of the server, or a very busy machine


class Frame(NamedTuple):
    action: int
    rows: int
    number: int
    frame: int
    obeyed: int
    depth: int
    reward: float
    dream: bytes
    real: bytes

    @property
    def level(self) -> int:
        return picture_level(self.dream)


def picture_level(png: bytes) -> int:
    """The red of a picture's first pixel."""
    import io

    from PIL import Image

    pixel = Image.open(io.BytesIO(png)).convert("RGB").getpixel((0, 0))
    assert isinstance(pixel, tuple)
    return int(pixel[0])


class Page:
    """A player's page, as far as the server sees it."""

    def __init__(self, address: str, start: int = 0, session: str = "", **headers: str) -> None:
        query = f"v={VERSION}&start={start}&session={session}"
        self._connection = connect(
            f"ws://{address}/play?{query}", additional_headers=headers, open_timeout=WAIT
        )
        self.socket = self._connection.__enter__()
        self.events: list[dict[str, Any]] = []
        self.paints = True
        hello = json.loads(self.socket.recv(WAIT))
        assert hello["kind"] == "hello", hello
        self.session: str = hello["session"]
        self._keys = 0

    def send(self, name: CommandName, *numbers: int) -> None:
        self.socket.send(write_command(Command(name, numbers)))

    def keys(self, action: int) -> int:
        self._keys += 1
        self.send("keys", action, self._keys)
        return self._keys

    def receive(self, wait: float = WAIT) -> Frame | dict[str, Any]:
        message = self.socket.recv(wait)
        if isinstance(message, str):
            event = json.loads(message)
            self.events.append(event)
            return event
        flags, (_, _, action, rows, number, frame, obeyed, depth, *times, reward, size) = (
            message[1],
            HEADER.unpack_from(message),
        )
        assert len(times) == 3
        if self.paints:
            self.send("seen", number)
        dream, real = message[HEADER.size : HEADER.size + size], message[HEADER.size + size :]
        assert bool(real) == bool(flags & REAL)
        return Frame(action, rows, number, frame, obeyed, depth, reward, dream, real)

    def frame(self, wanted: Callable[[Frame], bool] = lambda frame: True) -> Frame:
        """The next frame message that is wanted."""
        while True:
            got = self.receive()
            if isinstance(got, Frame) and wanted(got):
                return got

    def obeying(self, number: int) -> Frame:
        """The next that obeys these keys."""
        return self.frame(lambda frame: frame.obeyed >= number)

    def event(self, kind: str) -> dict[str, Any]:
        while True:
            got = self.receive()
            if isinstance(got, dict) and got["kind"] == kind:
                return got

    def closed(self) -> tuple[int, str]:
        """How the server ends the connection."""
        from websockets.exceptions import ConnectionClosed

        try:
            while True:
                self.receive()
        except ConnectionClosed as error:
            assert error.rcvd is not None
            return error.rcvd.code, error.rcvd.reason


@contextmanager
def serving(
    options: ServiceOptions,
    backend: Backend | None = None,
    game: Callable[[], Game] | None = None,
    handover: Handover | None = None,
    **shown: Any,
) -> Iterator[tuple[Service, str]]:
    """A service and its address, "127.0.0.1:PORT", while the block runs."""
    backend = backend or counting(end=None)
    starts = [
        start_of(counted(first, 2), backend.programs, f"from {first + 1}")
        for first in (10, 11, 12, 100)
    ]
    service = Service(backend, starts, options, game, handover=handover)
    listening, started = open_port("127.0.0.1", 0), threading.Event()
    app = create_app(service, AppOptions(title="counting", **shown))
    server = make_server(app, service, started.set, players=16)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    assert started.wait(WAIT), "the server did not start"
    try:
        yield service, f"127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.end()
        thread.join(WAIT)
        assert not thread.is_alive()


PLAYING = ServiceOptions(
    fps=30, sessions=8, picture="png", rewind=4, recorded=4, resume=5, idle=60, unread=60
)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with serving(PLAYING) as (_, address):
        yield address


@pytest.fixture
def open_page(address: str) -> Iterator[Callable[..., Page]]:
    """Makes pages, which are closed at the end."""
    with ExitStack() as stack:

        def opened(start: int = 0, session: str = "") -> Page:
            page = Page(address, start, session)
            stack.callback(page.socket.close)
            return page

        yield opened


def get(address: str, path: str, **more: Any) -> httpx.Response:
    return httpx.get(f"http://{address}{path}", timeout=WAIT, **more)
