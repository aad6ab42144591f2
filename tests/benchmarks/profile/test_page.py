"""The page of a profile, and in a browser its chart."""

import dataclasses
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.benchmarks.profile.made_profile import made_profile, node
from tests.benchmarks.render.hostile import HOSTILE
from tests.benchmarks.render.test_browser import CHROMIUM, chromium
from wmdeploy.benchmarks.profile.page import render


class Elements(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def handle_starttag(self, tag: str, attributes: object) -> None:
        self.names.append(tag)


def elements(page: str) -> list[str]:
    parser = Elements()
    parser.feed(page)
    return parser.names


def test_page_says_what_was_profiled_and_loads_nothing() -> None:
    page = render(made_profile())
    assert "ort-cpu, fp32, token layout, 2 threads; on a processor, 2 cores" in page
    assert "A frame takes 20.0 ms without the profiler." in page
    assert not re.findall(r"(?:src|href)=|url\(|@import", page)
    assert "default-src 'none'" in page


def test_names_of_a_stranger_are_text() -> None:
    plain = made_profile()
    decoder = plain.graphs["decoder"]
    hostile = dataclasses.replace(
        plain,
        bundle=HOSTILE,
        notes=[HOSTILE],
        graphs=plain.graphs
        | {"decoder": dataclasses.replace(decoder, nodes=[node(HOSTILE, HOSTILE, 1.0, 0.0)])},
    )
    page = render(hostile)
    assert set(elements(page)) == set(elements(render(plain))) | {"ul", "li"}
    assert elements(page).count("script") == elements(render(plain)).count("script")


PROBE = """<script>window.onload = () => {
  const spans = () => [...document.querySelectorAll("#flames .chart")][0].children;
  const named = (name) => [...spans()].find((span) => span.textContent === name);
  const wide = (name) => Math.round(named(name).getBoundingClientRect().width);
  const press = (key) => document.activeElement.dispatchEvent(
    new KeyboardEvent("keydown", { key, bubbles: true }));
  const figures = () => document.querySelector(".figures").textContent;
  const told = [];
  const whole = wide("frame");
  told.push(`share ${(wide("render") / whole).toFixed(2)}`);
  named("decoder").click();
  told.push(`zoomed ${wide("decoder") === whole}`, figures().includes("14"));
  press("ArrowDown");
  told.push(`down ${document.activeElement.textContent}`, figures().includes("vqvae"));
  press("ArrowRight");
  told.push(`right ${document.querySelector(".figures strong").textContent}`);
  press("Escape");
  told.push(`out ${named("predict") !== undefined}`);
  const tabs = [...spans()].filter((span) => span.tabIndex === 0).length;
  told.push(`tabs ${tabs}`, `wide ${document.documentElement.scrollWidth > innerWidth}`);
  document.body.textContent = told.join("; ");
};</script></body>"""


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH")
def test_chart_zooms_by_click_and_keys(tmp_path: Path) -> None:
    page = render(made_profile())
    without_policy = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page)
    (tmp_path / "probe.html").write_text(without_policy.replace("</body>", PROBE))
    (tmp_path / "page.html").write_text(page)
    shown = chromium(tmp_path, "probe.html", "--dump-dom").stdout
    # a frame of 4 + 14 + 4 ms, of which the decoder is 14
    expected = (
        "share 0.64; zoomed true; true; down vqvae; true; "
        "right frame › render › decoder › (no module); out true; tabs 1; wide false"
    )
    assert expected in shown, shown[-400:]
    for name in ("probe.html", "page.html"):
        logged = chromium(tmp_path, name, "--dump-dom", "--enable-logging=stderr").stderr
        assert "CONSOLE" not in logged, logged
