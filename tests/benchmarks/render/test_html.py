"""Reports as a page."""

import base64
import dataclasses
import hashlib
import re
from html.parser import HTMLParser

import pytest

from tests.benchmarks.made_reports import (
    made_report,
    png,
    report_of,
    row_of,
    with_bundle,
    with_environment,
)
from tests.benchmarks.render.hostile import hostile
from wmdeploy.benchmarks.environment import Ceilings
from wmdeploy.benchmarks.render.format import gains, profile_command
from wmdeploy.benchmarks.render.html import LARGEST, MOST_SHOWN, png_of, render
from wmdeploy.benchmarks.report import GraphFacts, Memory, Report
from wmdeploy.benchmarks.stages import StageName
from wmdeploy.engines.base import BACKENDS, Settings
from wmdeploy.errors import WmdeployError

SECTIONS = ("backends", "warnings", "latency", "distributions", "parity", "substitutions",
            "worst-frames", "memory", "roofline", "layout", "batches", "fixed-rate",
            "environment")  # fmt: skip


VOID = {"meta", "img", "br", "hr", "link", "input"}


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


def test_stages_of_any_graphs_are_drawn(report: Report) -> None:
    names = [f"graph {i}" for i in range(14)]  # more than there are markers
    cost = report.bundle.graphs["step"]
    rows = [
        row_of(stage=name, p50_ms=1.0 + i, samples_ms=[1.0 + i, 2.0 + i])
        for i, name in enumerate(names)
    ]
    made = with_bundle(report_of(rows), graphs=dict.fromkeys(names, cost))
    page = Page(render(made))
    told = "".join(page.texts)
    assert all(f"{name}, ms" in told for name in names)  # titles of plots
    assert any(id.startswith("roofline-0") for id in page.ids)
    assert len(page.ids) == len(set(page.ids))


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
    assert "Named outputs" in told
    assert "too large or no PNG: svg" in told


@pytest.mark.parametrize("text", ["", "no base64!", base64.b64encode(b"GIF89a").decode(), "iVBORw"])
def test_only_png_is_a_picture(text: str) -> None:
    assert png_of(text) is None
    assert png_of(png()) is not None


def test_pictures_that_are_too_large_are_left_out(report: Report) -> None:
    data = base64.b64decode(png())
    huge = base64.b64encode(data + bytes(LARGEST)).decode()
    html = render(dataclasses.replace(report, worst_frames={"large": huge, "small": png()}))
    assert len(html.encode()) <= LARGEST
    assert len(Page(html).named("img")) == 1 and "too large or no PNG: large" in html


def test_a_report_that_is_too_large_is_refused(report: Report) -> None:
    with pytest.raises(WmdeployError, match=r"the page would have 2\.\d MB, at most 2"):
        render(dataclasses.replace(report, warnings=["x" * LARGEST]))


def test_a_report_of_nothing_is_a_page() -> None:
    bare = with_bundle(report_of(), graphs={})
    assert sections(Page(render(bare))) == ["backends", "environment"]


def nonsense(value: float) -> Report:
    """One backend, all of whose times, memory and costs are the same value."""
    stages: tuple[tuple[StageName, int], ...] = (("frame", 1), ("frame", 4), ("step", 1))
    times = dict.fromkeys(
        ("p50_ms", "p90_ms", "p99_ms", "frames_per_s", "speedup", "speedup_low", "speedup_high",
         "floor_ms", "of_floor", "device_p50_ms", "memory_mb"), value,
    )  # fmt: skip
    memory = Memory(resident=value, engines={"weights": value})
    rows = [
        row_of("eager", stage, batch=batch, samples_ms=[value] * 3, memory=memory, **times)
        for stage, batch in stages
    ]
    cost = GraphFacts(flops=int(value), weight_bytes=int(value), moved_bytes=int(value))
    report = with_bundle(report_of(rows), graphs={"step": cost})
    return with_environment(report, ceilings={"cpu": Ceilings(value, value, 1)})


@pytest.mark.parametrize("value", [0.0, -1.0])
def test_figures_that_make_no_sense_draw_no_plot(value: float) -> None:
    page = Page(render(nonsense(value)))
    drawn = [id for id in page.ids if id.startswith(("times-", "roofline-", "layout-"))]
    assert not drawn and {"roofline", "layout", "distributions"}.isdisjoint(sections(page))


@pytest.mark.parametrize("value", [5e-324, 1e308, -1e308])
def test_figures_of_any_size_make_a_page(value: float) -> None:
    assert "backends" in sections(Page(render(nonsense(value))))


def test_page_of_a_stranger_holds_no_control_characters(report: Report) -> None:
    text = render(hostile(report))
    assert r"\x07?" in text and not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", text)


@pytest.mark.parametrize("name", ["rows", "curves", "fixed_rate"])
def test_page_of_too_much_is_refused_before_it_is_drawn(report: Report, name: str) -> None:
    many = [None] * (MOST_SHOWN + 1)  # none of them is looked at
    with pytest.raises(WmdeployError, match=f"a page of 401 {name} would be too large"):
        render(dataclasses.replace(report, **{name: many}))  # type: ignore[arg-type]


def test_too_many_pictures_are_refused_before_they_are_measured(report: Report) -> None:
    pictures = {str(i): "" for i in range(MOST_SHOWN + 1)}
    with pytest.raises(WmdeployError, match="a page of 401 worst_frames would be too large"):
        render(dataclasses.replace(report, worst_frames=pictures))


def test_table_of_one_column_makes_a_page(report: Report) -> None:
    html = render(dataclasses.replace(report, substitutions={"ort-cpu": {}}))
    assert "substitutions" in Page(html).ids


def test_page_names_the_command_that_shows_where_the_time_goes(report: Report, html: str) -> None:
    fastest = min(
        (row for row in report.frames() if row.verdict == "pass" and row.backend in BACKENDS),
        key=lambda row: row.p50_ms or 0.0,
    )
    command = f"wmdeploy profile {report.bundle.name} --backend {fastest.backend}"
    assert command in html and profile_command(report, "my bundle") == (
        f"wmdeploy profile 'my bundle' --backend {fastest.backend}"
    )
    rows = [dataclasses.replace(row, backend="openvino") for row in report.rows]
    assert profile_command(dataclasses.replace(report, rows=rows), "b") is None  # has no profiler


def test_page_names_what_a_student_and_integers_would_gain(report: Report) -> None:
    times = {"frame": 40.0, "decoder": 36.0}
    rows = [
        dataclasses.replace(row, p50_ms=times.get(row.stage, row.p50_ms))
        for row in report.rows
        if row.backend == "ort-cpu"
    ]
    model = {**report.bundle.model, "student": None}
    bundle = dataclasses.replace(
        report.bundle, bundle_bytes=100_000_000, layer_bytes=60_000_000, model=model
    )
    report = dataclasses.replace(report, rows=rows, bundle=bundle)
    student, integers = gains(report)
    assert "The decoder takes 90% of a frame of ort-cpu" in student
    assert "which `wmdeploy distill` makes" in student
    assert "5.3 times as fast" in student  # 1 / (0.1 + 0.9 / 10)
    assert "60.0 of the bundle's 100 MB" in integers and "a quarter" in integers
    assert f"{student} {integers}" in "".join(Page(render(report)).texts)
    bundle = dataclasses.replace(bundle, model={"student": {"name": "lite"}}, layer_bytes=0)
    (student,) = gains(dataclasses.replace(report, bundle=bundle))
    assert "is in the bundle, and has about a tenth" in student


def test_page_names_no_gain_of_what_is_used_or_unknown(report: Report) -> None:
    assert gains(report) == []  # of an older version, or of another family
    settings = Settings(decoder="lite")
    recipe = dataclasses.replace(report.bundle.recipe, weights="int8")
    bundle = dataclasses.replace(
        report.bundle, recipe=recipe, layer_bytes=9, model={"student": None}
    )
    environment = dataclasses.replace(report.environment, settings=settings)
    assert gains(dataclasses.replace(report, bundle=bundle, environment=environment)) == []
