"""A matplotlib figure as SVG that lies in a page, and takes the page's colours and fonts.

matplotlib draws with stand-in colours, which become the page's CSS variables: one picture is right
on a light page and on a dark one. It knows nothing of reports.
"""

import io
import math
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from markupsafe import Markup

if TYPE_CHECKING:
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

WIDTH = 4.7  # inches: narrow enough that text is still read where a telephone scales it down
SERIES = 10  # colours --s0 to --s9 of the page; the first is the baseline's
TEXT, LINE, CARD = "#010203", "#010204", "#010205"
_VARIABLES = {TEXT: "currentColor", LINE: "var(--line)", CARD: "var(--card)"} | {
    f"#0a0b{index:02x}": f"var(--s{index})" for index in range(SERIES)
}
_SVG = "http://www.w3.org/2000/svg"
_XLINK = "http://www.w3.org/1999/xlink"
_LONGEST = 22  # characters of a name within a plot


def series_colour(index: int) -> str:
    """The stand-in for the page's colour --s`index`."""
    return f"#0a0b{index % SERIES:02x}"


def label(name: str) -> str:
    """A name as a plot can hold it: short, and without characters that XML has no place for."""
    text = re.sub(r"[^\x20-\x7e\u00a0-\ud7ff\ue000-\ufffd]", "?", name)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


@contextmanager
def drawing() -> Iterator[None]:
    """matplotlib's settings for what `to_svg` takes; make and convert figures inside it."""
    import matplotlib

    settings: dict[Any, Any] = {
        "svg.fonttype": "none", "svg.hashsalt": "wmdeploy", "text.parse_math": False,
        "path.simplify": False, "font.size": 9, "axes.titlesize": 9.5, "axes.labelsize": 9,
        "xtick.labelsize": 8.5, "ytick.labelsize": 9, "axes.titlelocation": "left",
        "text.color": TEXT, "axes.labelcolor": TEXT, "axes.titlecolor": TEXT, "xtick.color": TEXT,
        "ytick.color": TEXT, "axes.edgecolor": LINE, "grid.color": LINE, "grid.linewidth": 0.6,
        "axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.8,
        "axes.axisbelow": True, "lines.linewidth": 1.3, "xtick.major.size": 2.5,
        "ytick.major.size": 2.5, "xtick.minor.size": 1.5, "ytick.minor.size": 1.5,
        "figure.constrained_layout.use": True, "axes.unicode_minus": False,
    }  # fmt: skip
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # glyphs that the browser's font has
        yield


def new_figure(height: float) -> "Figure":
    """A figure of the page's width; `height` in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(WIDTH, height))


def plain_numbers(axis: "Axis") -> None:
    """Ticks as 0.5, 20, 3000: 1, 2 and 5 of each power of ten on a short logarithmic axis."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    if axis.get_scale() == "log":
        low, high = axis.get_view_interval()
        decades = math.log10(high / low) if 0 < low < high else 1.0
        subs = (1.0,) if decades > 2.5 else (1.0, 3.0) if decades > 1.5 else (1.0, 2.0, 5.0)
        axis.set_major_locator(LogLocator(subs=subs, numticks=9))
        axis.set_minor_formatter(NullFormatter())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))


def to_svg(figure: "Figure", name: str, description: str) -> Markup:
    """An `<svg>` element.

    Args:
        name: unique within the page; begins the ids of the figure's parts.
        description: what it shows, for those who do not see it.
    """
    file = io.BytesIO()
    metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(file, format="svg", transparent=True, metadata=metadata)
    ElementTree.register_namespace("", _SVG)
    ElementTree.register_namespace("xlink", _XLINK)
    root = ElementTree.fromstring(file.getvalue())
    for child in [e for e in root if e.tag == f"{{{_SVG}}}metadata"]:
        root.remove(child)
    for parent in list(root.iter()):
        for child in [e for e in parent if e.tag == f"{{{_SVG}}}style"]:
            parent.remove(child)  # it would hold for the whole page
    for element in root.iter():
        for key, value in list(element.attrib.items()):
            element.set(key, _attribute(key, value, name))
    for size in ("width", "height"):  # the page decides
        root.attrib.pop(size, None)
    root.set("role", "img")
    root.set("aria-label", description)
    return Markup(ElementTree.tostring(root, encoding="unicode"))  # noqa: S704 - serialised XML


def _attribute(key: str, value: str, name: str) -> str:
    if key == "id":
        return f"{name}-{value}"
    if key == f"{{{_XLINK}}}href":
        return value.replace("#", f"#{name}-", 1)
    if key == "clip-path":
        return value.replace("url(#", f"url(#{name}-")
    if key in ("d", "x", "y", "transform", "points"):
        return re.sub(r"-?\d+\.\d+", _rounded, value)
    if key == "style":
        value = re.sub(r"font-family: [^;]*(; )?", "", value)
        return re.sub(r"#[0-9a-f]{6}", lambda found: _VARIABLES.get(found[0], found[0]), value)
    return value


def _rounded(number: re.Match[str]) -> str:
    return f"{float(number[0]):.2f}".rstrip("0").rstrip(".")
