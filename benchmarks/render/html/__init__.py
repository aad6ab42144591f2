"""A report as one HTML page that needs nothing else: no network, no file beside it.

Everything in a report may come from a stranger: it is escaped, pictures are checked to be PNG, and
the page's own policy lets the browser run no script but the one for sorting, and load nothing.
"""

import base64
import binascii
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wmdeploy.benchmarks.render.format import (
    about,
    figure,
    gains,
    interval,
    profile_command,
    speed_up,
    worst_db,
)
from wmdeploy.benchmarks.report import Report
from wmdeploy.errors import WmdeployError, require
from wmdeploy.files import write_text
from wmdeploy.text import printable

LARGEST = 2_000_000  # bytes of a page
MOST_SHOWN = 400  # of each kind; half as many rows fill the page
PNG = b"\x89PNG\r\n\x1a\n"
_HERE = Path(__file__).parent


@dataclass(frozen=True, kw_only=True)
class Card:
    """A backend at a glance, at batch 1; texts are empty where a figure does not apply."""

    backend: str
    colour: int
    verdict: str
    reason: str
    frame_ms: str
    frames_per_s: str
    speedup: str
    interval: str
    memory_mb: str
    worst_db: str


def write_page(report: Report, path: Path) -> None:
    """Write the page.

    Raises:
        WmdeployError: jinja2 or matplotlib is missing, the report is too large for a page, or the
            file cannot be written.
    """
    write_text(render(report), path)


def render(report: Report) -> str:
    """The page's HTML. Pictures that would make it larger than `LARGEST` are left out, and named.

    Raises:
        WmdeployError: jinja2 or matplotlib is missing, or it is too large without them.
    """
    for name in ("rows", "curves", "fixed_rate", "worst_frames"):
        if (count := len(getattr(report, name))) > MOST_SHOWN:
            raise WmdeployError(
                f"a page of {count} {name} would be too large, expected at most {MOST_SHOWN}; make "
                "it of a report with fewer backends, batches or clips"
            )
    require("matplotlib", extra="report", purpose="making a page")
    given = _content(report)
    worst_frames = {
        name: data for name, text in report.worst_frames.items() if (data := png_of(text))
    }
    left_out = [name for name in report.worst_frames if name not in worst_frames]
    page = ""
    while True:
        pictures = {name: base64.b64encode(data).decode() for name, data in worst_frames.items()}
        page = rendered("page.html.j2", given | {"worst_frames": pictures, "left_out": left_out})
        size = len(page.encode())
        if size <= LARGEST:
            return page
        if not worst_frames:
            raise WmdeployError(
                f"the page would have {size / 1e6:.1f} MB, at most {LARGEST / 1e6:.0f}; make it "
                "of a report with fewer backends, batches or clips"
            )
        left_out.append(max(worst_frames, key=lambda name: len(worst_frames[name])))
        del worst_frames[left_out[-1]]


def rendered(template: str, given: Mapping[str, Any], scripts: Sequence[Path] = ()) -> str:
    """The HTML of a template, whatever strangers wrote escaped; its policy names its scripts.

    Args:
        template: its name, in this folder or beside one of `scripts`.
        given: what it shows.
        scripts: that run in the page besides the one for sorting.

    Raises:
        MissingError: jinja2 is missing.
    """
    jinja2 = require("jinja2", extra="report", purpose="making a page")
    from markupsafe import Markup

    parts = [path.read_text(encoding="utf-8") for path in (_HERE / "sort.js", *scripts)]
    script = "\n".join(parts)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([_HERE, *(path.parent for path in scripts)]),
        autoescape=True,
        finalize=lambda value: printable(value) if type(value) is str else value,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page: str = environment.get_template(template).render(
        **given, script=Markup(script), script_digest=digest
    )
    return page


def png_of(text: str) -> bytes | None:
    """The bytes of a PNG in base64; None if it is none."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return data if data.startswith(PNG) else None


def _content(report: Report) -> dict[str, Any]:
    """What the template shows; sections without data are empty."""
    from wmdeploy.benchmarks.render import tables
    from wmdeploy.benchmarks.render.html import parity_plots, resource_plots, time_plots
    from wmdeploy.benchmarks.render.html.svg import drawing

    colours = colours_of(report)
    with drawing():
        plots = {
            "distributions": time_plots.distributions(report, colours),
            "batch_plots": time_plots.batch_scaling(report, colours),
            "curves": parity_plots.parity_curves(report, colours),
            "memory": resource_plots.memory(report),
            "roofline": resource_plots.roofline(report, colours),
            "layout": [plot] if (plot := resource_plots.layout_savings(report)) else [],
        }
    return plots | {
        "name": report.bundle.name,
        "about": about(report),
        "date": report.environment.date.replace("T", " "),
        "baseline": report.baseline,
        "colours": colours,
        "cards": _cards(report, colours),
        "latency": tables.latency(report),
        "batches": tables.batches(report),
        "parity": tables.parity(report),
        "clips": tables.clips(report),
        "outputs": tables.outputs(report),
        "substitutions": tables.substitutions(report),
        "fixed_rate": tables.fixed_rate(report),
        "facts": tables.facts(report),
        "warnings": report.warnings,
        "profile_command": profile_command(report, report.bundle.name),
        "gains": gains(report),
        "shown_clips": parity_plots.MOST_CLIPS,
    }


def colours_of(report: Report) -> dict[str, int]:
    """A colour of the page for each backend, the same in all plots; 0 is the baseline's."""
    names = dict.fromkeys([report.baseline, *(row.backend for row in report.rows)])
    return {name: 1 + (index - 1) % 9 if index else 0 for index, name in enumerate(names)}


def _cards(report: Report, colours: dict[str, int]) -> list[Card]:
    cards = []
    baseline = report.baseline
    for row in report.frames():
        cards.append(
            Card(
                backend=row.backend,
                colour=colours[row.backend],
                verdict="baseline" if row.backend == baseline else row.verdict,
                reason=row.reason or "",
                frame_ms=figure(row.p50_ms),
                frames_per_s=figure(row.frames_per_s),
                speedup="" if row.backend == baseline else speed_up(row),
                interval=interval(row),
                memory_mb=figure(row.memory_mb),
                worst_db=worst_db(row),
            )
        )
    return cards
