"""Pages, pictures and figures; and who may ask for them."""

import io
import socket
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from tests.serve.conftest import PLAYING, Page, get, serving
from wmdeploy.clips.read import read_clip
from wmdeploy.serve.app import PAGE
from wmdeploy.serve.guard import Guard


def test_the_page_and_all_that_it_names_are_there(address: str) -> None:
    response = get(address, "/")
    assert "<title>wmdeploy play</title>" in response.text
    policy = response.headers["content-security-policy"]
    assert "default-src 'self'" in policy and "http" not in policy
    assert response.headers["x-content-type-options"] == "nosniff"
    for file in PAGE.iterdir():
        assert get(address, f"/page/{file.name}").status_code == 200, file
    assert get(address, "/page/../app.py").status_code == 404
    assert get(address, "/page/..%2Fapp.py").status_code == 404


def test_info_tells_what_can_be_played(address: str) -> None:
    info = get(address, "/info").json()
    assert (info["size"], info["actions"], info["backend"]) == (8, 3, "numpy")
    assert [start["title"] for start in info["starts"]][:2] == [
        "from 11",
        "from 12",
    ]
    assert get(address, "/starts/0.png").headers["content-type"] == "image/png"
    assert get(address, "/starts/99.png").status_code == 404


def test_figures_are_of_prometheus(address: str) -> None:
    page = Page(address)
    page.frame(lambda f: f.frame == 3)
    text = get(address, "/metrics").text
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert float(values["wmdeploy_frames_total"]) >= 3
    assert int(values["wmdeploy_sessions"]) >= 1
    assert all(f"# TYPE {name} " in text for name in values)
    page.socket.close()


@pytest.mark.parametrize("kind", ["gif", "mp4", "mkv", "npz"])
def test_a_recording_is_what_was_dreamt(address: str, kind: str, tmp_path: Path) -> None:
    page = Page(address)
    page.keys(2)
    frames = [page.frame(lambda f: f.frame > 0) for _ in range(12)]
    page.send("pause")
    page.event("state")
    time.sleep(0.2)
    response = get(address, f"/recordings/{page.session}.{kind}")
    assert response.status_code == 200, response.text
    assert f"dream.{kind}" in response.headers["content-disposition"]
    path = tmp_path / f"dream.{kind}"
    path.write_bytes(response.content)
    clip = read_clip(path)
    if kind != "mp4":  # which loses a little
        seen = [frame.level for frame in frames]
        assert clip.frames[: len(seen), 0, 0, 0].tolist() == seen
    if kind == "npz":
        with np.load(io.BytesIO(response.content)) as arrays:
            assert arrays["actions"][: len(frames) - 1].tolist() == [f.action for f in frames[1:]]
    assert get(address, f"/recordings/{page.session}x.{kind}").status_code == 404
    assert get(address, f"/recordings/{page.session}.exe").status_code == 404
    page.socket.close()


SECRET: dict[str, Any] = {"token": "right", "hosts": ("127.0.0.1",)}


@pytest.mark.parametrize(
    ("query", "headers"),
    [
        ("", {}),
        ("?token=wrong", {}),
        ("?token=right", {"host": "evil.example"}),
        ("?token=right", {"origin": "https://evil.example"}),
        ("?token=right", {"origin": "null"}),
    ],
    ids=["no-token", "wrong-token", "host", "origin", "null-origin"],
)
def test_strangers_are_refused(query: str, headers: dict[str, str]) -> None:
    with serving(PLAYING, **SECRET) as (_, address):
        assert get(address, f"/info{query}", headers=headers).status_code == 403
        with pytest.raises(InvalidStatus) as raised:
            open_socket(address, query, **headers)
        assert raised.value.response.status_code == 403
        assert get(address, "/info?token=right").status_code == 200
        own = {"origin": f"http://{address}"}
        assert get(address, "/info?token=right", headers=own).status_code == 200


def open_socket(address: str, query: str, host: str = "", origin: Any = None) -> None:
    """Connect as a page of an origin would, or by another name of this machine."""
    ip, port = address.split(":")
    address = f"{host or ip}:{port}"
    with socket.create_connection((ip, int(port))) as sock:
        with connect(f"ws://{address}/play{query or '?'}&v=1&start=0", sock=sock, origin=origin):
            pass


def test_the_page_itself_needs_no_token() -> None:
    with serving(PLAYING, **SECRET) as (_, address):
        assert get(address, "/").status_code == 200
        assert get(address, "/page/main.js").status_code == 200
        assert get(address, "/health").status_code == 200
        assert get(address, "/metrics").status_code == 403


@pytest.mark.parametrize("path", ["/page", "/pages", "/healthy", "/info", "//", "/page/../info"])
def test_other_paths_are_not_open(path: str) -> None:
    guard = Guard(_nobody, hosts=(), origins=(), token="right")
    scope = {"type": "http", "path": path, "headers": [], "query_string": b""}
    opened = guard._fault(scope) is None
    assert not opened or path == "/page/../info"  # which the routes do not know


async def _nobody(*arguments: object) -> None:
    raise AssertionError


def test_it_ends_when_the_last_page_is_closed() -> None:
    ended: list[bool] = []
    with serving(PLAYING, alone=0.3, ended=lambda: ended.append(True)) as (_, address):
        time.sleep(0.6)
        assert not ended  # nobody came yet
        page = Page(address)
        time.sleep(0.6)
        assert not ended
        page.socket.close()
        deadline = time.monotonic() + 10
        while not ended and time.monotonic() < deadline:
            time.sleep(0.05)
        assert ended


def test_another_version_is_told_to_reload(address: str) -> None:
    from websockets.exceptions import ConnectionClosed

    with connect(f"ws://{address}/play?v=0&start=0") as page:
        with pytest.raises(ConnectionClosed) as raised:
            page.recv(10)
    assert raised.value.rcvd is not None and raised.value.rcvd.code == 4400
    assert "reload" in raised.value.rcvd.reason
