"""The page in a browser: keys, touch, pause, rewind, branches, links, recordings.

In Debian's Chromium, which `make browser` installs; pictures are PNG, so that pixels are exact.
"""

import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.serve.conftest import PLAYING, WAIT, serving
from wmdeploy.clips.read import read_clip

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here; see `make browser`"),
]
MEANINGS = ("NOOP", "UP", "DOWN")  # which lead from a level to the next, and 1 or 2 further
FRAME = "Number(document.getElementById('rewind-frame').textContent.split(' ')[1])"
LEVEL = "document.getElementById('dream').getContext('2d').getImageData(0, 0, 1, 1).data[0]"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    options = replace(PLAYING, fps=10, recorded=20, rewind=20)
    with serving(options, token="secret", meanings=MEANINGS) as (_, address):
        yield f"http://{address}/?token=secret"


class Tab:
    def __init__(self, browser: Any, url: str, **context: Any) -> None:
        self.context = browser.new_context(accept_downloads=True, **context)
        self.context.grant_permissions(["clipboard-read", "clipboard-write"])
        self.page = self.context.new_page()
        self.faults: list[str] = []
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on(
            "console",
            lambda said: self.faults.append(said.text) if said.type == "error" else None,
        )
        self.page.goto(url)

    def begin(self, title: str = "from 11") -> None:
        self.page.get_by_role("button", name=title, exact=True).first.click()
        self.says("Playing")
        self.wait(f"{LEVEL} > 0")

    def says(self, text: str) -> None:
        playwright.expect(self.page.locator("#status")).to_contain_text(text)

    def wait(self, condition: str) -> None:
        """Until it holds; asked from outside, as the page's policy forbids to evaluate inside."""
        deadline = time.monotonic() + WAIT
        while not self.page.evaluate(condition):
            assert time.monotonic() < deadline, condition
            self.page.wait_for_timeout(20)

    @property
    def level(self) -> int:
        return int(self.page.evaluate(LEVEL))

    @property
    def frame(self) -> int:
        return int(self.page.evaluate(FRAME))

    def pass_frames(self, count: int = 4) -> None:
        """Until so many more frames were painted, however slow the machine is."""
        last = self.frame + count
        self.wait(f"{FRAME} >= {last}")

    def hold(self, key: str) -> None:
        """A key, for some frames."""
        self.page.keyboard.down(key)
        self.pass_frames()
        self.page.keyboard.up(key)
        self.pass_frames()

    def pause(self) -> None:
        self.page.locator("#pause").click()
        self.says("Paused")
        self.page.wait_for_timeout(500)  # what was on its way is painted

    def press(self, name: str) -> None:
        self.page.get_by_role("button", name=name, exact=True).click()


@pytest.fixture
def tab(browser: Any, url: str) -> Iterator[Tab]:
    tab = Tab(browser, url)
    yield tab
    tab.context.close()
    assert tab.faults == []


def test_held_keys_are_obeyed_until_they_are_let_go(tab: Tab) -> None:
    tab.begin()
    tab.pass_frames(1)
    tab.hold("ArrowDown")
    tab.pause()
    taken = actions(tab)
    assert {"0", "2"} == set(taken)
    assert re.fullmatch("0+2{2,}0*", taken), taken
    assert tab.level == 11 + sum(1 + int(action) for action in taken)


def actions(tab: Tab) -> str:
    """What was done at each frame, as the replay link tells it."""
    tab.press("Copy link to replay")
    found = re.search(r"actions=([^&]*)", tab.page.url)
    assert found is not None
    runs = [run.split(".") for run in found[1].split("-")]
    return "".join(str(int(action, 36)) * int(count, 36) for action, count in runs)


def test_blur_lets_all_keys_go(tab: Tab) -> None:
    tab.begin()
    tab.page.keyboard.down("KeyW")
    tab.wait("document.getElementById('pad-UP').classList.contains('held')")
    tab.page.evaluate("document.getElementById('dream').blur()")
    tab.wait("!document.querySelector('#pad .held')")
    tab.pass_frames()
    tab.pause()
    assert actions(tab).endswith("00")


def test_a_gamepad_holds_what_its_stick_and_buttons_say(tab: Tab) -> None:
    tab.begin()
    tab.page.evaluate(
        """() => {
            window.pad = { connected: true, axes: [0, 0], buttons: [] };
            Object.defineProperty(navigator, "getGamepads", { value: () => [null, window.pad] });
            window.dispatchEvent(new Event("gamepadconnected"));
        }"""
    )
    tab.page.evaluate("() => { window.pad.axes = [0, 0.9] }")
    tab.wait("document.getElementById('pad-DOWN').classList.contains('held')")
    tab.pass_frames()
    tab.page.evaluate(
        "() => { window.pad.axes = [0, 0]; window.pad.buttons[12] = {pressed: true} }"
    )
    tab.wait("document.getElementById('pad-UP').classList.contains('held')")
    tab.pass_frames()
    tab.page.evaluate("() => { window.pad.buttons = [] }")
    tab.wait("!document.querySelector('#pad .held')")
    tab.pass_frames()
    tab.pause()
    assert re.fullmatch("0*2{2,}0*1{2,}0+", actions(tab)), actions(tab)


def test_buttons_of_the_pad_are_held_by_a_pointer(tab: Tab) -> None:
    tab.begin()
    assert tab.page.locator("#pad button").all_inner_texts() == ["UP", "DOWN"]
    tab.page.locator("#pad-UP").scroll_into_view_if_needed()
    box = tab.page.locator("#pad-UP").bounding_box()
    assert box is not None
    tab.page.mouse.move(box["x"] + 5, box["y"] + 5)
    tab.page.mouse.down()
    tab.pass_frames()
    tab.page.mouse.move(0, 0)  # the pointer stays the button's
    tab.pass_frames()
    tab.page.mouse.up()
    tab.pause()
    assert re.fullmatch("0+1{3,}0*", actions(tab))


def test_two_tabs_play_apart(tab: Tab, browser: Any, url: str) -> None:
    tab.begin()
    other = Tab(browser, url)
    other.begin("from 13")
    tab.page.bring_to_front()
    tab.page.locator("#dream").focus()
    tab.hold("ArrowUp")
    tab.pause()
    other.pause()
    assert "1" in actions(tab) and set(actions(other)) == {"0"}
    other.context.close()
    assert other.faults == []


def test_pause_step_rewind_and_branch(tab: Tab) -> None:
    tab.begin()
    tab.pass_frames()
    tab.pause()
    frame, level = tab.frame, tab.level
    assert level == 11 + frame
    tab.press("Step")
    tab.wait(f"{LEVEL} === {level + 1}")
    tab.press("Keep this moment")
    tab.page.locator("#branches button").wait_for()
    tab.page.locator("#rewind").fill("2")
    tab.wait(f"{LEVEL} === 13")
    assert tab.frame == 2
    tab.page.locator("#branches button").click()
    tab.wait(f"{LEVEL} === {level + 1}")
    tab.press("Go on")
    tab.wait(f"{LEVEL} > {level + 2}")


def test_a_link_replays_start_and_actions(tab: Tab, browser: Any, url: str) -> None:
    tab.begin("from 12")
    tab.hold("ArrowDown")
    tab.pause()
    taken, level = actions(tab), tab.level
    link = tab.page.evaluate("navigator.clipboard.readText()")
    assert "2" in taken and "#start=1&actions=" in link
    other = Tab(browser, link)
    other.says("Replayed")
    assert (other.level, other.frame) == (level, len(taken))
    other.context.close()
    assert other.faults == []


def test_a_recording_downloads_and_plays(tab: Tab, tmp_path: Path) -> None:
    tab.begin()
    tab.pass_frames()
    tab.pause()
    for kind in ("gif", "mp4", "mkv", "npz"):
        with tab.page.expect_download() as waited:
            tab.page.get_by_role("link", name=f".{kind}").click()
        path = tmp_path / waited.value.suggested_filename
        waited.value.save_as(path)
        assert len(read_clip(path)) == len(actions(tab))


def test_a_new_start_is_chosen(tab: Tab) -> None:
    tab.begin()
    tab.press("New start")
    tab.begin("from 13")


def test_without_the_token_the_page_says_so(browser: Any, url: str) -> None:
    tab = Tab(browser, url.partition("?")[0])
    tab.says("the token is missing")
    tab.context.close()


def test_a_lost_line_comes_back(tab: Tab) -> None:
    tab.begin()
    tab.pass_frames()
    tab.context.set_offline(True)
    tab.page.evaluate("1")
    tab.page.wait_for_timeout(300)
    tab.context.set_offline(False)
    tab.pass_frames()
    tab.faults = [fault for fault in tab.faults if "ERR_INTERNET_DISCONNECTED" not in fault]


@pytest.mark.parametrize("width", [1200, 400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_wider_than_the_window(
    browser: Any, url: str, width: int, scheme: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    viewport = {"width": width, "height": 900}
    tab = Tab(browser, url, viewport=viewport, color_scheme=scheme)
    folder = tmp_path_factory.getbasetemp()
    wide = "document.documentElement.scrollWidth <= window.innerWidth"
    assert tab.page.evaluate(wide)
    tab.page.locator("#starts img").first.wait_for()
    tab.page.screenshot(path=folder / f"picker-{width}-{scheme}.png", full_page=True)
    tab.begin()
    tab.page.wait_for_timeout(500)
    tab.page.screenshot(path=folder / f"playing-{width}-{scheme}.png", full_page=True)
    assert tab.page.evaluate(wide)
    small = [
        button.inner_text()
        for button in tab.page.locator("button:visible").all()
        if (box := button.bounding_box()) is None or box["height"] < 43
    ]
    assert small == []
    tab.context.close()
