"""A profile as one HTML page: a flame chart of a frame, and tables of all modules and nodes.

As the page of a benchmark it needs no network and no file beside it, and whatever a bundle names is
escaped: the chart's figures are data in the page, which its script only reads.
"""

import dataclasses
from pathlib import Path
from typing import Any

import msgspec

from wmdeploy.benchmarks.profile.document import Profile
from wmdeploy.benchmarks.profile.spans import Span, frame_span, program_spans
from wmdeploy.benchmarks.profile.table import (
    frame_table,
    module_table,
    node_table,
)
from wmdeploy.benchmarks.render.format import milliseconds
from wmdeploy.benchmarks.render.html import LARGEST, rendered
from wmdeploy.errors import WmdeployError
from wmdeploy.files import write_text
from wmdeploy.text import printable

SHOWN_NODES = 100  # rows of a table of the page; the chart has all
_HERE = Path(__file__).parent


def write_page(profile: Profile, path: Path) -> None:
    """Write the page.

    Raises:
        WmdeployError: jinja2 is missing, the profile is too large for a page, or the file cannot be
            written.
    """
    write_text(render(profile), path)


def render(profile: Profile) -> str:
    """The page's HTML.

    Raises:
        WmdeployError: jinja2 is missing, or the page would be too large.
    """
    from markupsafe import Markup

    charts = [frame_span(profile), *program_spans(profile, profile.others)]
    with_nodes = {name: graph for name, graph in profile.graphs.items() if graph.nodes}
    text = msgspec.json.encode([_data(span) for span in charts]).decode()
    given = {
        "name": profile.bundle,
        "about": _about(profile),
        "frame_ms": milliseconds(profile.frame.ms),
        "notes": profile.notes,
        # what could end the element or begin another one, as JSON escapes it
        "data": Markup(text.replace("<", "\\u003c").replace("&", "\\u0026")),
        "frame": frame_table(profile),
        "graphs": {
            name: (module_table(name, graph, None), node_table(name, graph, SHOWN_NODES))
            for name, graph in with_nodes.items()
        },
        "colours": {},
    }
    page = rendered("profile.html.j2", given, scripts=(_HERE / "flame.js",))
    if (size := len(page.encode())) > LARGEST:
        raise WmdeployError(
            f"the page would have {size / 1e6:.1f} MB, at most {LARGEST / 1e6:.0f}; profile fewer "
            "graphs at once"
        )
    return page


def _about(profile: Profile) -> str:
    machine = profile.machine
    threads = "" if profile.threads is None else f"{profile.threads} threads"
    gpu = "" if machine.gpu is None or profile.device == "cpu" else machine.gpu.name
    what = [profile.backend, profile.precision, f"{profile.layout} layout", threads]
    where = [gpu, machine.cpu, f"{machine.cores} cores", machine.date.replace("T", " ")]
    return f"{', '.join(filter(None, what))}; on {', '.join(filter(None, where))}"


def _data(span: Span) -> dict[str, Any]:
    """What the script reads; figures that are not known are left out."""
    known = dataclasses.asdict(dataclasses.replace(span, children=[]))
    data = {key: value for key, value in known.items() if value not in (None, "", [])}
    data |= {key: printable(data[key]) for key in ("name", "detail") if key in data}
    data["ms"] = round(span.ms, 6)
    return data | ({"children": [_data(c) for c in span.children]} if span.children else {})
