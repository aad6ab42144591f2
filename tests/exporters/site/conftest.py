"""Sites of small bundles, with or without the real runtime."""

import functools
import http.server
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from wmdeploy.bundle import Bundle
from wmdeploy.engines.base import load_backend
from wmdeploy.exporters.site.runtime import FILES
from wmdeploy.exporters.site.write import Site, SiteOptions, write_site

NODE, NPM = shutil.which("node"), shutil.which("npm")


def written(options: SiteOptions) -> Site:
    """As the command does it."""
    return write_site(options, load_backend("ort-cpu", Bundle.open(options.bundle)), [])


@pytest.fixture
def runtime(tmp_path: Path) -> Path:
    """A folder that looks like the npm package's `dist`."""
    folder = tmp_path / "dist"
    folder.mkdir()
    for name in FILES:
        (folder / name).write_bytes(b"of " + name.encode())
    return folder


@pytest.fixture(scope="session")
def npm_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def cache(npm_cache: Path) -> Iterator[None]:
    """One for all files: npm's package is got once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(npm_cache))
        yield


@contextmanager
def served(site: Path) -> Iterator[str]:
    """Its address, on a plain server of files."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None: ...

    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Quiet, directory=str(site))
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()


def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
