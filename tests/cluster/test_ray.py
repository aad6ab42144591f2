"""`wmdeploy serve --engine ray`: two replicas on this machine; run by `make test-ray`."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

pytest.importorskip("ray", reason="make test-ray has an environment with it")

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from wmdeploy.serve.protocol import HEADER, VERSION, Command, write_command

EXAMPLE = Path(__file__).parents[2] / "examples" / "pong"
START, WAIT = 120, 30  # seconds
FPS = 10
NUMBER, FRAME = 4, 5  # places in the header of a frame
CLIENTS = 8


class Client:
    """A page that paints what it gets, and counts."""

    def __init__(self, address: str, session: str = "") -> None:
        url = f"ws://{address}/play?v={VERSION}&start=0&session={session}"
        self._connection = connect(url, open_timeout=WAIT)
        self.socket = self._connection.__enter__()
        hello = json.loads(self.socket.recv(WAIT))
        assert hello["kind"] == "hello", hello
        self.session: str = hello["session"]
        self.frame = 0
        self.socket.send(write_command(Command("keys", (1, 1))))

    def paint(self, seconds: float) -> int:
        """Take frames for so long; how many."""
        painted, until = 0, time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            with suppress(TimeoutError):
                message = self.socket.recv(left)
                if isinstance(message, bytes):
                    header = HEADER.unpack_from(message)
                    self.socket.send(write_command(Command("seen", (header[NUMBER],))))
                    self.frame, painted = header[FRAME], painted + 1
        return painted


def run(*arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "wmdeploy.cli", "serve", *arguments, "--engine", "ray"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "COLUMNS": "200"},
    )


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    server = run(
        str(EXAMPLE), "--port", "0", "--replicas", "2", "--sessions", "12", "--pace", str(FPS)
    )
    assert server.stdout is not None and server.stderr is not None
    shown = server.stdout.readline()
    if not shown.startswith("http://"):
        server.kill()
        pytest.fail(shown + server.stderr.read())
    room = server.stdout.readline()
    assert "each replica has room for 12 players" in room
    yield shown.removeprefix("http://").strip().rstrip("/")
    server.send_signal(signal.SIGTERM)
    assert server.wait(60) == 0


def get(address: str, path: str) -> str:
    with urllib.request.urlopen(f"http://{address}{path}", timeout=WAIT) as answer:
        text: str = answer.read().decode()
        return text


def sessions(address: str) -> dict[str, int]:
    """Players of each replica."""
    lines = re.findall(r'wmdeploy_sessions\{server="(.*)"\} (\d+)', get(address, "/metrics"))
    return {server: int(count) for server, count in lines}


def test_the_page_is_there(address: str) -> None:
    assert get(address, "/health") == "ready\n"
    assert json.loads(get(address, "/info"))["title"] == "pong"
    assert "<canvas" in get(address, "/")


def test_who_is_somebody_else_is_refused(address: str) -> None:
    for headers in ({"Host": "evil.example"}, {"Origin": "http://evil.example"}):
        request = urllib.request.Request(f"http://{address}/info", headers=headers)
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request, timeout=WAIT)
        assert refused.value.code == 403


def test_a_replica_that_is_killed_takes_no_player_along(address: str) -> None:
    clients = [Client(address) for _ in range(CLIENTS)]
    for client in clients:
        assert client.paint(0.7) > 2
    counted = sessions(address)
    assert len(counted) == 2 and sum(counted.values()) == CLIENTS, counted
    assert all(counted.values()), "all players are at one replica"
    time.sleep(1.5)  # all are saved
    before = {client.session: client.frame for client in clients}
    lost, kept = sorted(counted, key=lambda name: counted[name])
    os.kill(int(lost.rpartition("-")[2]), signal.SIGKILL)
    broken, whole = [], []
    for client in clients:
        try:
            assert client.paint(1) > 2  # nobody of the other replica notices
            whole.append(client)
        except ConnectionClosed as error:
            assert error.rcvd is None or error.rcvd.code not in (1000, 1001)
            broken.append(client)
    assert Counter(broken=len(broken), whole=len(whole)) == Counter(
        broken=counted[lost], whole=counted[kept]
    )
    for client in broken:
        again = Client(address, client.session)
        assert again.session == client.session, "it began anew"
        assert again.paint(1) > 2
        # what was dreamt since it was saved, a second before, is lost at most
        assert again.frame > before[client.session]
        again.socket.close()
    for client in whole:
        assert client.frame > before[client.session]
        client.socket.close()


def test_a_replica_comes_back(address: str) -> None:
    deadline = time.monotonic() + START
    while len(sessions(address)) < 2 or get(address, "/health") != "ready\n":
        assert time.monotonic() < deadline, sessions(address)
        time.sleep(0.5)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--cluster", "127.0.0.1:1"], "Ray on 127.0.0.1:1: "),
        (["--replicas", "999"], "and 999 replicas need 999"),
    ],
)
def test_what_cannot_be_served_is_one_line(arguments: list[str], said: str) -> None:
    server = run(str(EXAMPLE), "--port", "0", *arguments)
    _, errors = server.communicate(timeout=START)
    assert server.returncode == 1
    assert said in errors and "Traceback" not in errors and len(errors.splitlines()) <= 2, errors
