"""The page in a browser."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome", "chromium-headless-shell")
     if (found := shutil.which(name))),
    None,
)  # fmt: skip


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH")
def test_in_a_browser_it_sorts_shows_pictures_and_has_no_errors(html: str, tmp_path: Path) -> None:
    """What a probe at the end of the page finds; the page's policy would not let it run."""
    probe = """<script>
    const column = (n) => [...document.querySelectorAll("#latency tbody tr")]
      .map((row) => row.cells[n].textContent);
    const heads = [...document.querySelectorAll("#latency th")];
    const p50 = heads.findIndex((head) => head.textContent === "p50 ms");
    heads[p50].firstElementChild.click();
    const up = column(p50).map(Number);
    heads[p50].firstElementChild.click();
    const down = column(p50).map(Number);
    const sorted = up.every((x, i) => !i || up[i - 1] <= x)
      && down.every((x, i) => !i || down[i - 1] >= x) && up[0] < up.at(-1);
    const pictures = [...document.images].every((image) => image.naturalWidth > 0);
    const wide = document.documentElement.scrollWidth > innerWidth;
    document.body.textContent = `sorted ${sorted} pictures ${pictures} wide ${wide} `
      + `width ${innerWidth}`;
    </script></body>"""
    without_policy = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", html)
    wait = "<script>window.onload = () => {"
    probed = probe.replace("<script>", wait).replace("</script>", "};</script>")
    (tmp_path / "probe.html").write_text(without_policy.replace("</body>", probed))
    (tmp_path / "page.html").write_text(html)
    told = chromium(tmp_path, "probe.html", "--dump-dom")
    assert "sorted true pictures true wide false" in told.stdout, told.stdout[-300:]
    for name in ("probe.html", "page.html"):
        logged = chromium(tmp_path, name, "--dump-dom", "--enable-logging=stderr").stderr
        assert "CONSOLE" not in logged, logged


def chromium(place: Path, name: str, *options: str) -> subprocess.CompletedProcess[str]:
    assert CHROMIUM is not None
    return subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--window-size=500,900",
         f"--user-data-dir={place / 'profile'}", *options, (place / name).as_uri()],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
