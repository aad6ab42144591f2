"""One page, whose model runs on the server, in its tab, or in both beside each other."""

import dataclasses
import functools
import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Bundles
from tests.exporters.site.conftest import written
from tests.exporters.site.test_tab import NODE, NPM, until
from tests.serve.test_page import CHROMIUM, playwright
from wmdeploy.bundle import Bundle
from wmdeploy.engines.base import load_backend
from wmdeploy.errors import BundleError
from wmdeploy.exporters.site.write import SiteOptions
from wmdeploy.serve.app import AppOptions
from wmdeploy.serve.engine import ServiceOptions
from wmdeploy.serve.run import make_server, open_port
from wmdeploy.serve.serving import Serving
from wmdeploy.serve.site import INFO, bundle_digest, read_site


def test_a_folder_that_is_no_site_of_the_bundle_is_refused(
    bundles: Bundles, tmp_path: Path
) -> None:
    bundle = bundles(actions=True)
    programs = bundle.manifest.programs
    with pytest.raises(BundleError, match="is no folder that wmdeploy site wrote"):
        read_site(tmp_path, bundle, programs, [])
    for text in ("", "[]", '{"bundle": "x"}', '{"bundle": "x", "starts": [1]}'):
        (tmp_path / INFO).write_text(text)
        with pytest.raises(BundleError, match="is no folder that wmdeploy site wrote"):
            read_site(tmp_path, bundle, programs, [])
    (tmp_path / INFO).write_text('{"bundle": "x", "rendered_by": [], "starts": []}')
    with pytest.raises(BundleError, match="is a site of another bundle; write it anew"):
        read_site(tmp_path, bundle, programs, [])
    info = {"bundle": bundle_digest(bundle), "starts": [{"title": "elsewhere"}], "rendered_by": []}
    (tmp_path / INFO).write_text(json.dumps(info))
    with pytest.raises(BundleError, match="renders with another decoder"):
        read_site(tmp_path, bundle, programs, [])
    info["rendered_by"] = ["decoder"]
    (tmp_path / INFO).write_text(json.dumps(info))
    with pytest.raises(BundleError, match="has other starts than the server"):
        read_site(tmp_path, bundle, programs, [])


@pytest.fixture(scope="module")
def url(bundles: Bundles, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if CHROMIUM is None or NODE is None or NPM is None:
        pytest.skip("there is no Chromium or Node here; see `make browser`")
    bundle = bundles(actions=True)
    folder = tmp_path_factory.mktemp("switch")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        written(SiteOptions(bundle=bundle.path, output=folder / "site"))
    serving = Serving(
        bundle=Bundle.open(bundle.path),
        load=functools.partial(load_backend, "ort-cpu", bundle),
        site=folder / "site",
        options=ServiceOptions(fps=8, sessions=4, rewind=10),
        shown=AppOptions(title="switch", token="a secret of some length"),
    )
    service, app = serving.open()
    listening, started = open_port("127.0.0.1", 0), threading.Event()
    server = make_server(app, service, started.set, players=4)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    assert started.wait(60)
    yield f"http://127.0.0.1:{listening.getsockname()[1]}/?token=a+secret+of+some+length"
    server.end()
    thread.join(20)


@dataclasses.dataclass
class Shown:
    page: Any

    def number(self, name: str) -> int:
        found = re.findall(r"\d+", self.page.inner_text(f"#{name}"))
        return int(found[-1]) if found else -1

    def passes(self, frames: int) -> None:
        last = self.number("rewind-frame") + frames
        until(lambda: self.number("rewind-frame") >= last)


@pytest.fixture
def shown(url: str) -> Iterator[Shown]:
    faults = list[str]()
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda m: faults.append(m.text) if m.type == "error" else None)
        page.goto(url)
        page.locator("#starts button").first.wait_for(timeout=60_000)
        yield Shown(page)
        browser.close()
    assert faults == []


@pytest.mark.slow
def test_both_are_compared_frame_by_frame(shown: Shown) -> None:
    page = shown.page
    page.select_option("#runs", "both")
    page.locator("#starts button").first.click()
    page.locator("#pad button").first.dispatch_event("pointerdown", {"pointerId": 1})
    until(lambda: shown.number("rewind-frame") > 20)
    assert page.inner_text("#real-title") == "In this tab, same keys"
    found = re.search(r"worst PSNR ([0-9.]+) dB|worst equal", page.inner_text("#psnr"))
    assert found, page.inner_text("#psnr")
    assert found[1] is None or float(found[1]) >= 50  # untrained weights, stored as float16
    page.get_by_role("button", name="Pause", exact=True).click()
    page.evaluate(
        "() => { const slider = document.getElementById('rewind'); "
        "slider.value = Number(slider.max) - 9; slider.dispatchEvent(new Event('change')); }"
    )
    page.get_by_role("button", name="Go on", exact=True).click()
    shown.passes(4)
    assert "compared" not in page.inner_text("#status")  # it went back along


@pytest.mark.slow
def test_a_dream_goes_on_where_it_is_moved_to(shown: Shown) -> None:
    page = shown.page
    page.locator("#starts button").first.click()
    shown.passes(5)
    page.get_by_role("button", name="Pause", exact=True).click()
    until(lambda: page.inner_text("#status") == "Paused")
    page.wait_for_timeout(300)
    before = shown.number("rewind-frame")
    for place in ("tab", "server"):
        page.select_option("#runs", place)
        until(lambda: "Replayed" in page.inner_text("#status"))
        assert shown.number("rewind-frame") == before
        page.get_by_role("button", name="Go on", exact=True).click()
        shown.passes(3)
        page.get_by_role("button", name="Pause", exact=True).click()
        until(lambda: page.inner_text("#status") == "Paused")
        page.wait_for_timeout(300)
        before = shown.number("rewind-frame")
