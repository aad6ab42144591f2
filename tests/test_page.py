import base64
import csv
import dataclasses
import hashlib
import io
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from tests.made_reports import made_report, png
from wmdeploy import cli
from wmdeploy.benchmarks.render.html import LARGEST, png_of, render, write_page
from wmdeploy.benchmarks.render.markdown import to_markdown
from wmdeploy.benchmarks.render.spreadsheet import to_csv
from wmdeploy.benchmarks.report import Memory, Parity, Report, Row, read_json
from wmdeploy.errors import WmdeployError
from wmdeploy.files import write_document

RESULTS = Path(__file__).parent.parent / "docs" / "results"
SECTIONS = ("backends", "warnings", "latency", "distributions", "parity", "swaps", "strips",
            "memory", "roofline", "layout", "batches", "pacing", "environment")  # fmt: skip
VOID = {"meta", "img", "br", "hr", "link", "input"}
HOSTILE = """<img src=x onerror=alert(1)>'"&|`$\\frac{<script>*_=@team\n# x\x07\udcff"""
CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome", "chromium-headless-shell")
     if (found := shutil.which(name))),
    None,
)  # fmt: skip


class Page(HTMLParser):
    """A page's elements, and whether each that begins ends in its place."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def ids(self) -> list[str]:
        return [value for _, attrs in self.elements if (value := attrs.get("id"))]


@pytest.fixture(scope="module")
def report() -> Report:
    return made_report()


@pytest.fixture(scope="module")
def html(report: Report) -> str:
    return render(report)


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


def sections(page: Page) -> list[str | None]:
    return [attributes.get("id") for attributes in page.named("section")]


def test_every_section_is_there(page: Page) -> None:
    assert sections(page) == list(SECTIONS)
    assert len(page.named("svg")) == 7 + 2 + 1 + 1 + 1 + 2  # times, clips, ..., batches
    assert len(page.named("img")) == 2 and len(page.named("table")) == 7


def test_nothing_comes_from_elsewhere(html: str, page: Page) -> None:
    for tag, attributes in page.elements:
        assert tag not in ("link", "iframe", "object", "embed", "base", "form"), tag
        for name in ("src", "href", "xlink:href", "action", "poster", "srcset"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:image/png;base64,", "#")), value
        assert not any(name.startswith("on") for name in attributes), attributes
    for target in re.findall(r"url\(([^)]*)\)", html):
        assert target.startswith("#"), target
    assert "@import" not in html and len(page.named("script")) == 1


def test_ids_are_unique_and_what_points_at_them_finds_them(html: str, page: Page) -> None:
    assert len(page.ids) == len(set(page.ids))
    assert set(re.findall(r'(?:href="|url\()#([^")]+)', html)) <= set(page.ids)


def test_the_policy_allows_the_script_that_is_there(html: str, page: Page) -> None:
    (script,) = re.findall(r"<script>(.*?)</script>", html, flags=re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = [m["content"] for m in page.named("meta") if "http-equiv" in m]
    assert policy is not None and f"'sha256-{digest}'" in policy and "default-src 'none'" in policy


def test_plots_take_the_colours_of_the_page(html: str) -> None:
    for svg in re.findall(r"<svg.*?</svg>", html, flags=re.DOTALL):
        assert "currentColor" in svg and "font-family" not in svg and "<style" not in svg
        assert not re.search(r"#0[1a]0[2b][0-9a-f]{2}", svg)  # stand-ins are all replaced
    assert "prefers-color-scheme: dark" in html


def test_it_is_small_even_with_all_backends() -> None:
    names = ("eager", *(f"backend-{n}" for n in range(9)))
    large = made_report(backends=names, batches=(1, 2, 4, 8, 64))
    assert len(render(large).encode()) < LARGEST / 2


def hostile(report: Report) -> Report:
    """Every text of a report as an attacker would write it."""

    def row(row: Row) -> Row:
        mine = row.backend == "compile"
        memory = Memory(9.0, engines={HOSTILE: 3.0})
        return dataclasses.replace(row, backend=HOSTILE, reason=HOSTILE, device=HOSTILE,
                                   memory=memory, precision=HOSTILE) if mine else row  # fmt: skip

    def deep(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: deep(inner) for name, inner in value.items()} | {HOSTILE: HOSTILE}
        return HOSTILE if isinstance(value, str) else value

    return dataclasses.replace(
        report,
        rows=[row(r) for r in report.rows],
        warnings=[HOSTILE],
        curves=[dataclasses.replace(c, backend=HOSTILE, clip=HOSTILE) for c in report.curves],
        swaps={HOSTILE: {HOSTILE: 3.0}},
        pacing=[dataclasses.replace(p, backend=HOSTILE) for p in report.pacing],
        strips={HOSTILE: png(), "svg": base64.b64encode(b"<svg onload=alert(1)>").decode()},
        bundle=deep(report.bundle) | {"graph_bytes": {HOSTILE: HOSTILE}, "other_layout": HOSTILE},
        environment=deep(report.environment),
    )


def test_texts_of_a_report_are_only_texts(report: Report) -> None:
    page = Page(render(hostile(report)))
    tags = {tag for tag, _ in page.elements}
    assert len(page.named("img")) == 1 and len(page.named("script")) == 1
    assert not any(name.startswith("on") for _, attrs in page.elements for name in attrs)
    assert tags <= {"html", "head", "meta", "title", "style", "body", "header", "h1", "p", "main",
                    "section", "div", "h2", "h3", "i", "span", "dl", "dt", "dd", "ul", "li", "sup",
                    "table", "thead", "tbody", "tr", "th", "td", "button", "figure", "figcaption",
                    "img", "svg", "g", "defs", "path", "use", "clippath", "rect", "text", "details",
                    "summary", "script"}, tags  # fmt: skip
    told = "".join(page.texts)
    assert "<img src=x onerror=alert(1)>" in told and "$\\frac{" in told  # shown as it is
    assert "too large or no PNG: svg" in told


@pytest.mark.parametrize("text", ["", "no base64!", base64.b64encode(b"GIF89a").decode(), "iVBORw"])
def test_only_png_is_a_picture(text: str) -> None:
    assert png_of(text) is None
    assert png_of(png()) is not None


def test_pictures_that_are_too_large_are_left_out(report: Report) -> None:
    data = base64.b64decode(png())
    huge = base64.b64encode(data + bytes(LARGEST)).decode()
    html = render(dataclasses.replace(report, strips={"large": huge, "small": png()}))
    assert len(html.encode()) <= LARGEST
    assert len(Page(html).named("img")) == 1 and "too large or no PNG: large" in html


def test_a_report_that_is_too_large_is_refused(report: Report) -> None:
    with pytest.raises(WmdeployError, match=r"the page would have 2\.\d MB, at most 2"):
        render(dataclasses.replace(report, warnings=["x" * LARGEST]))


@pytest.mark.parametrize("name", ["small-cpu.json", "reference-cpu.json"])
def test_old_reports_have_fewer_sections(name: str, tmp_path: Path) -> None:
    report = read_json(RESULTS / name)
    write_page(report, tmp_path / "page.html")
    found = sections(Page((tmp_path / "page.html").read_text()))
    if report.schema < 3:
        assert found == ["backends", "latency", "distributions", "parity", "environment"]


def test_a_report_of_nothing_is_a_page() -> None:
    assert sections(Page(render(Report(3, {}, {}, [])))) == ["backends", "environment"]


def test_figures_that_make_no_sense_draw_no_plot() -> None:
    rows = [
        Row("eager", None, None, stage, 1, p50_ms=0.0, samples_ms=[0.0, -1.0], verdict="pass",
            memory=Memory(-5.0), parity=Parity(psnr_db={}, worst_frame_psnr_db={"x": 1e300}))
        for stage in ("frame", "step")
    ]  # fmt: skip
    environment = {"ceilings": {"cpu": {"bandwidth_gb_s": 0, "gflop_s": "x"}, "gpu": 3}}
    bundle = {"graph_flops": {"step": 0}, "graph_bytes": 7, "other_layout": {"layout": 1}}
    Page(render(Report(3, environment, bundle, rows)))


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


def test_csv_has_a_line_for_each_row(report: Report) -> None:
    lines = list(csv.DictReader(io.StringIO(to_csv(report))))
    assert len(lines) == len(report.rows)
    for line, row in zip(lines, report.rows, strict=True):
        assert (line["backend"], line["stage"]) == (row.backend, row.stage)
        assert line["runs"] == str(len(row.samples_ms)) and "samples_ms" not in line
        assert line["p50_ms"] == repr(row.p50_ms)
    worst = [line["parity.worst_frame_psnr_db.64"] for line in lines if line["stage"] == "frame"]
    assert worst[0] == "" and float(worst[1]) > 70
    assert lines[1]["memory.engines.weights"] == "52.0"
    assert "parity" not in lines[0] and "parity.psnr_db" not in lines[0]


def test_a_cell_is_no_formula(report: Report) -> None:
    rows = [dataclasses.replace(row, backend="=1+1", speedup=-1.0) for row in report.rows[:1]]
    (line,) = csv.DictReader(io.StringIO(to_csv(dataclasses.replace(report, rows=rows))))
    assert line["backend"] == "'=1+1" and line["speedup"] == "-1.0"


def test_markdown_has_the_figures_and_the_environment(report: Report) -> None:
    text = to_markdown(report)
    frame = next(line for line in text.splitlines() if line.startswith("| frame | ort-cpu"))
    row = next(r for r in report.rows if (r.backend, r.stage) == ("ort-cpu", "frame"))
    assert f"{row.speedup:.2f}x ({row.speedup_low:.2f} to {row.speedup_high:.2f})" in frame
    assert frame.endswith("| pass |") and frame.count("|") == 8
    assert "<details><summary>environment</summary>" in text and "| cpu | AMD EPYC |" in text
    assert "- warning: ort-cpu: threads are more than free cores" in text


def test_markdown_of_hostile_names_is_still_a_table(report: Report) -> None:
    text = to_markdown(hostile(report))
    assert "<img" not in text and "<script" not in text and "@team" not in text
    for line in text.splitlines():
        if line.startswith("| frame"):
            assert len(re.findall(r"(?<!\\)\|", line)) == 8
    assert "skipped" in to_markdown(Report(3, {}, {}, [Row("x", None, None, "frame", 1)]))


def test_no_form_of_a_report_holds_control_characters(report: Report) -> None:
    stranger = hostile(report)
    for text in (render(stranger), to_markdown(stranger), to_csv(stranger)):
        assert r"\x07?" in text and not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", text)


def report_command(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as caught:
        cli.main(["report", *map(str, arguments)])
    assert isinstance(caught.value.code, int | None)
    return caught.value.code or 0


def test_command_makes_what_is_asked_for(
    report: Report, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_document(report, tmp_path / "r.json")
    assert report_command(tmp_path / "r.json", "--html", tmp_path / "a.html", "--markdown",
                          tmp_path / "a.md", "--csv", tmp_path / "a.csv") == 0  # fmt: skip
    assert (tmp_path / "a.html").read_text() == render(report)
    assert (tmp_path / "a.md").read_text() == to_markdown(report)
    assert (tmp_path / "a.csv").read_text() == to_csv(report)
    before = (tmp_path / "r.json").read_bytes()
    assert report_command(tmp_path / "r.json", "--html", tmp_path / "r.json") == 1
    assert "is the input" in capsys.readouterr().err
    assert (tmp_path / "r.json").read_bytes() == before
    assert report_command(tmp_path / "r.json") == 1
    assert "give --html, --markdown or --csv" in capsys.readouterr().err
