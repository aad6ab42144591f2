"""A site for WebGPU in Chromium, whose SwiftShader is an adapter of software, slow but right."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Bundles
from tests.exporters.site.conftest import NPM, served, until, written
from tests.serve.test_page import CHROMIUM, playwright
from wmdeploy.clips.read import SAMPLE_CLIP
from wmdeploy.exporters.export import ExportOptions, export_bundle
from wmdeploy.exporters.site.write import SiteOptions

SCRIPT = Path(__file__).parent / "beside.mjs"
SOFTWARE = ["--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader"]
PATIENCE = 300  # seconds
# of floats, of pixels, of codes: those on the edge between two are not in these clips
LARGEST = {"float32": 1e-4, "uint8": 1, "int64": 0}
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(NPM is None, reason="there is no npm here; see `make browser`"),
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here; see `make browser`"),
]


@pytest.fixture(scope="module")
def site(cache: None, bundles: Bundles, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sites") / "site"
    written(SiteOptions(bundle=bundles(actions=True).path, output=folder, webgpu=True))
    return folder


@pytest.fixture(scope="module")
def started() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        yield started.chromium


@pytest.fixture(scope="module")
def browser(started: Any) -> Iterator[Any]:
    browser = started.launch(executable_path=CHROMIUM, args=["--no-sandbox", *SOFTWARE])
    yield browser
    browser.close()


def differences(browser: Any, site: Path, frames: int) -> dict[str, dict[str, dict[str, Any]]]:
    """Of each graph's outputs, on WebGPU beside wasm."""
    (site / SCRIPT.name).write_text(SCRIPT.read_text())
    (site / "blank.html").write_text("<!doctype html>")
    with served(site) as address:
        page = browser.new_page()
        page.set_default_timeout(1000 * PATIENCE)
        page.goto(f"{address}blank.html")
        made = page.evaluate(
            "async (frames) => (await import('./beside.mjs')).compare(frames)", frames
        )
        page.close()
    assert made["fallback"]  # it did run on the adapter of software
    assert set(made["found"]) == set(made["graphs"])
    found: dict[str, dict[str, dict[str, Any]]] = made["found"]
    return found


def check(found: dict[str, dict[str, dict[str, Any]]]) -> None:
    for name, outputs in found.items():
        for output, value in outputs.items():
            assert value["error"] <= LARGEST[value["type"]], (name, output, value)


def test_graphs_answer_on_webgpu_what_they_do_on_wasm(browser: Any, site: Path) -> None:
    check(differences(browser, site, 16))


@pytest.mark.parametrize("family", ["tokens", "recurrent"])
def test_other_families_run_on_webgpu(
    browser: Any, family: str, cache: None, tmp_path: Path
) -> None:
    options = ExportOptions(
        source="tiny", family=family, output=tmp_path / "bundle", clip=SAMPLE_CLIP
    )
    bundle, _ = export_bundle(options)
    written(SiteOptions(bundle=bundle.path, output=tmp_path / "site", webgpu=True))
    check(differences(browser, tmp_path / "site", 16))


class Page:
    """Of a site that is played."""

    def __init__(self, browser: Any, address: str) -> None:
        self.context = browser.new_context()
        self.page, self.faults = self.context.new_page(), list[str]()
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.goto(address)
        self.page.locator("#starts button").first.click(timeout=1000 * PATIENCE)

    def play(self, frames: int) -> None:
        """So many more."""
        last = self.depth + frames
        until(lambda: self.depth >= last, PATIENCE)

    @property
    def depth(self) -> int:
        return int(self.page.inner_text("#f-depth") or 0)

    @property
    def backend(self) -> str:
        return str(self.page.locator("#about dd").last.text_content())


@pytest.fixture
def address(site: Path) -> Iterator[str]:
    with served(site) as url:
        yield url


def test_page_plays_on_webgpu_and_says_so(browser: Any, address: str) -> None:
    tab = Page(browser, f"{address}?gpu=any")
    tab.play(3)
    assert tab.backend == "onnxruntime-web, WebGPU"
    assert tab.page.locator("#notice").is_hidden() and tab.faults == []
    tab.context.close()


@pytest.mark.parametrize(
    ("query", "reason"),
    [("", "this browser's WebGPU is software"), ("?gpu=none", "as the address asks")],
)
def test_adapter_that_is_not_wanted_is_not_used(
    browser: Any, address: str, query: str, reason: str
) -> None:
    tab = Page(browser, address + query)
    tab.play(10)
    assert tab.backend == f"onnxruntime-web, wasm ({reason})"
    assert tab.page.locator("#notice").is_hidden() and tab.faults == []
    tab.context.close()


def test_browser_without_webgpu_plays_by_wasm(started: Any, address: str) -> None:
    browser = started.launch(
        executable_path=CHROMIUM, args=["--no-sandbox", "--disable-features=WebGPU"]
    )
    tab = Page(browser, f"{address}?gpu=any")
    tab.play(10)
    assert tab.backend == "onnxruntime-web, wasm (this browser offers no WebGPU)"
    browser.close()


# in the worker, before its own code: the device can be reached, or there is no room for one
KEEPING = """
const request = GPUAdapter.prototype.requestDevice;
GPUAdapter.prototype.requestDevice = async function (...given) {
  return self.device = await request.apply(this, given);
};
"""
REFUSING = """
GPUAdapter.prototype.requestDevice = async () => { throw new Error("out of memory"); };
"""


@pytest.fixture
def patched(request: pytest.FixtureRequest, site: Path, tmp_path: Path) -> Iterator[str]:
    """The site's address, with code in front of its worker's."""
    folder = tmp_path / "site"
    shutil.copytree(site, folder)
    worker = folder / "page" / "worker.js"
    worker.write_text(request.param + worker.read_text())
    with served(folder) as url:
        yield url


def goes_on_with_wasm(tab: Page) -> None:
    notice = tab.page.locator("#notice")
    notice.wait_for(timeout=1000 * PATIENCE)
    said = notice.inner_text()
    assert said.startswith("WebGPU failed") and said.endswith("This tab goes on with wasm")
    assert tab.backend == "onnxruntime-web, wasm (WebGPU failed)"


@pytest.mark.parametrize("patched", [REFUSING], indirect=True, ids=["refusing"])
def test_gpu_without_room_is_left(browser: Any, patched: str) -> None:
    tab = Page(browser, f"{patched}?gpu=any")
    tab.play(10)
    goes_on_with_wasm(tab)
    tab.context.close()


@pytest.mark.parametrize("patched", [KEEPING], indirect=True, ids=["keeping"])
def test_gpu_that_is_lost_is_left_where_the_dream_was(browser: Any, patched: str) -> None:
    tab = Page(browser, f"{patched}?gpu=any")
    tab.play(2)
    assert tab.backend == "onnxruntime-web, WebGPU"
    reached = tab.depth
    tab.page.workers[0].evaluate("device.destroy()")
    goes_on_with_wasm(tab)
    tab.play(10)
    assert tab.depth > reached and tab.faults == []
    tab.page.get_by_role("button", name="Pause", exact=True).click()
    tab.page.evaluate(
        "() => { const slider = document.getElementById('rewind'); "
        "slider.value = 1; slider.dispatchEvent(new Event('change')); }"
    )
    until(lambda: tab.depth == 1, PATIENCE)  # a moment of before
    tab.page.get_by_role("button", name="Step", exact=True).click()
    until(lambda: tab.depth == 2, PATIENCE)
    tab.context.close()
