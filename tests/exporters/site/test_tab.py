"""The page's session beside ours: in Node, and in Debian's Chromium, on npm's ONNX Runtime."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import Bundles
from tests.exporters.site.conftest import NODE, NPM, served, until, written
from tests.serve.test_page import CHROMIUM, playwright
from wmdeploy.bundle import Bundle
from wmdeploy.clips.read import SAMPLE_CLIP
from wmdeploy.clips.source import ReadOptions
from wmdeploy.engines.base import load_backend
from wmdeploy.exporters.export import ExportOptions, export_bundle
from wmdeploy.exporters.site.write import SiteOptions
from wmdeploy.programs.session import Session
from wmdeploy.psnr import psnr
from wmdeploy.serve.world import find_world

SCRIPT = Path(__file__).parent / "rollout.mjs"
FRAMES = 40
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (NODE and NPM), reason="there is no Node here; see `make browser`"),
]


@pytest.fixture(scope="module")
def site(cache: None, bundles: Bundles, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sites") / "site"
    written(SiteOptions(bundle=bundles(actions=True).path, output=folder))
    return folder


def in_node(site: Path, action: int) -> tuple[dict[str, Any], np.ndarray]:
    """What rollout.mjs found, and its frames."""
    command = [str(NODE), str(SCRIPT), str(site), str(FRAMES), str(action)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr
    size = json.loads((site / "info").read_text())["size"]
    values = np.frombuffer((site / "frames.bin").read_bytes(), np.uint8)
    (site / "frames.bin").unlink()
    return json.loads(ran.stdout), values.reshape(FRAMES, size, size, 3)


def worst_frame(bundle: Bundle, frames: np.ndarray, action: int) -> float:
    backend = load_backend("ort-cpu", bundle)
    world = find_world(backend, [], ReadOptions(), None, bundle=bundle, remarks=[])
    session = Session(backend)
    session.reset(world.starts[0].frames, world.starts[0].actions)
    ours = np.concatenate([session.step(action) for _ in range(FRAMES)])
    errors = np.square(ours.astype(float) - frames).reshape(FRAMES, -1).mean(1)
    return psnr(float(errors.max()))


def test_tab_imagines_what_the_bundle_does(site: Path, bundles: Bundles) -> None:
    found, frames = in_node(site, 1)
    assert found["again"]  # from a snapshot the same frame follows
    assert worst_frame(bundles(actions=True), frames, 1) >= 55
    _, others = in_node(site, 2)
    assert not np.array_equal(frames, others)


@pytest.mark.parametrize("family", ["tokens", "recurrent"])
def test_other_families_run_in_a_tab(family: str, cache: None, tmp_path: Path) -> None:
    """They have caches by slot, noise, and loops; what they draw in a tab is drawn there."""
    options = ExportOptions(
        source="tiny", family=family, output=tmp_path / "bundle", clip=SAMPLE_CLIP
    )
    bundle, _ = export_bundle(options)
    written(SiteOptions(bundle=bundle.path, output=tmp_path / "site"))
    found, frames = in_node(tmp_path / "site", 0)
    assert found["again"] and "reward" in found["outputs"]
    assert np.isfinite(found["first"]).all()
    assert len({frame.tobytes() for frame in frames}) > 1


@pytest.fixture
def address(site: Path) -> Iterator[str]:
    with served(site) as url:
        yield url


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here; see `make browser`")
def test_page_plays_without_a_server(address: str) -> None:
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        context = browser.new_context()
        page, faults = context.new_page(), list[str]()
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda m: faults.append(m.text) if m.type == "error" else None)
        page.goto(address)

        def number(name: str) -> int:
            return int(page.inner_text(f"#{name}").split()[-1] or 0)

        page.locator("#starts button").first.click(timeout=60_000)
        page.locator("#f-depth").wait_for(timeout=60_000)
        until(lambda: page.inner_text("#f-depth").isdigit() and number("f-depth") > 10)
        page.locator("#pad button").first.dispatch_event("pointerdown", {"pointerId": 1})
        until(lambda: "ms" in page.inner_text("#f-latency"))
        page.get_by_role("button", name="Record", exact=True).click()
        page.wait_for_timeout(1000)
        with page.expect_download() as download:
            page.get_by_role("button", name="Stop recording").click()
        assert Path(download.value.path()).stat().st_size > 1000
        page.get_by_role("button", name="Pause", exact=True).click()
        until(lambda: page.inner_text("#status") == "Paused")
        paused = number("f-depth")
        page.get_by_role("button", name="Step", exact=True).click()
        until(lambda: number("f-depth") == paused + 1)
        page.get_by_role("button", name="Keep this moment").click()
        page.evaluate(
            "() => { const slider = document.getElementById('rewind'); "
            "slider.value = Number(slider.max) - 5; slider.dispatchEvent(new Event('change')); }"
        )
        until(lambda: number("f-depth") == paused - 4)
        page.locator("#branches button").click()
        until(lambda: number("f-depth") == paused + 1)
        until(
            lambda: bool(
                page.evaluate(
                    "navigator.serviceWorker.controller !== null || "
                    "navigator.serviceWorker.ready.then(() => true)"
                )
            )
        )
        context.set_offline(True)
        page.reload()
        page.locator("#starts button").first.click(timeout=60_000)
        until(lambda: page.inner_text("#f-depth").isdigit() and number("f-depth") > 3)
        assert faults == []
        browser.close()
