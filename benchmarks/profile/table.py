"""A profile as tables: of the frame, and of each graph its heaviest modules and nodes."""

from collections.abc import Callable, Sequence
from statistics import median

from wmdeploy.benchmarks.profile.document import GraphCall, GraphProfile, Profile
from wmdeploy.benchmarks.profile.spans import Span, by_module, graph_span
from wmdeploy.benchmarks.render.columns import Cell, Column
from wmdeploy.benchmarks.render.format import milliseconds, some
from wmdeploy.benchmarks.render.tables import Table, filled_table

WITH_PROFILER = "with the profiler"
SHOWN = 8  # rows of a table in a terminal
FLOOR = (
    "Floor: the least that bytes or operations take on this machine, both measured in this run; "
    "values that stay in a cache can beat it."
)


def frame_table(profile: Profile) -> Table:
    """The graphs of a frame, and what of it is in none of them."""
    graphs = profile.graphs
    rows = [
        _Row(call.graph, call.program, _plain(graphs[call.graph], call))
        for call in profile.frame.calls
    ]
    total = profile.frame.ms
    rows.append(_Row("in no graph", "session", Span(name="", kind="rest", ms=profile.session_ms)))
    rows.append(_Row("together", "", Span(name="", kind="frame", ms=total)))
    others = [
        _Row(call.graph, call.program, _plain(graphs[call.graph], call)) for call in profile.others
    ]
    caption = "Medians without the profiler. "
    if others:
        caption += f"Not part of a {profile.frame.stage}: {_listed(profile.others)}. "
    columns = [
        _words("graph", lambda row: row.name),
        _words("program", lambda row: row.what),
        *_figures(total, set()),
    ]
    title = f"{profile.bundle}: a {profile.frame.stage} on {profile.backend}, {profile.precision}"
    return filled_table(title, rows + others, columns, caption + FLOOR)


def module_table(name: str, graph: GraphProfile, most: int | None = SHOWN) -> Table:
    """The modules of a graph that have nodes, heaviest first, and all that is in none.

    Args:
        most: how many rows are shown one by one; None: all.
    """
    spans = by_module(graph.nodes)
    rows = [_Row(span.name, _operations_of(span), span) for span in spans]
    return _table(f"{name}: modules", "module", graph, rows, most)


def node_table(name: str, graph: GraphProfile, most: int | None = SHOWN) -> Table:
    """The nodes of a graph, heaviest first, and all that is in none."""
    nodes = sorted(graph.nodes, key=lambda node: -node.ms)
    rows = [
        _Row(
            node.name,
            node.operation,
            Span(name=node.name, kind="node", ms=node.ms, operations=node.operations,
                 bytes=node.bytes, floor_ms=node.floor_ms),
            node.module,
        )
        for node in nodes
    ]  # fmt: skip
    return _table(f"{name}: nodes", "node", graph, rows, most)


def tables(profile: Profile) -> list[Table]:
    """What the terminal shows."""
    shown = [frame_table(profile)]
    for name, graph in profile.graphs.items():
        if graph.nodes:
            shown += [module_table(name, graph), node_table(name, graph)]
    return shown


class _Row:
    def __init__(self, name: str, what: str, span: Span, module: str = "") -> None:
        self.name, self.what, self.span, self.module = name, what, span, module


def _table(
    title: str, heading: str, graph: GraphProfile, rows: list[_Row], most: int | None
) -> Table:
    shown, left = rows[:most], rows[len(rows) if most is None else most :]
    if left:
        others = Span(name="", kind="rest", ms=sum(row.span.ms for row in left))
        shown.append(_Row(f"{len(left)} more", "", others))
    rest = {
        "between nodes": median(graph.between_ms),
        "varies from run to run": graph.varying_ms,
        WITH_PROFILER: median(graph.profiled_ms),
        "profiler itself": -graph.profiler_ms,
    }
    shown += [
        *(_Row(name, "", Span(name="", kind="rest", ms=ms)) for name, ms in rest.items()),
        _Row("without it", "", Span(name="", kind="graph", ms=graph.ms, operations=graph.operations,
                                    bytes=graph.bytes, floor_ms=graph.floor_ms)),
    ]  # fmt: skip
    columns = [
        _words(heading, lambda row: row.name),
        _words("operation", lambda row: row.what),
        _words("in the model", lambda row: row.module, wide=True),
        *_figures(median(graph.profiled_ms), {"profiler itself", "without it"}),
    ]
    caption = (
        f"Medians of {len(graph.wall_ms)} runs, shares of a run with the profiler. Varies: now one "
        "node is slower, now another."
    )
    return filled_table(f"{title}, {len(graph.nodes)} nodes", shown, columns, caption)


def _figures(total: float, without_share: set[str]) -> list[Column[_Row]]:
    """
    Args:
        total: ms that shares are of.
        without_share: names of rows that are no part of it.
    """

    def share(row: _Row) -> Cell:
        if row.name in without_share:
            return Cell("")
        return Cell(f"{row.span.ms / total:.1%}", row.span.ms / total)

    def of_floor(row: _Row) -> Cell:
        floor = row.span.floor_ms
        if floor is None or row.span.ms <= 0:
            return Cell("")
        return Cell(f"{floor / row.span.ms:.0%}", floor / row.span.ms)

    def scaled(value: int | None, unit: float) -> Cell:
        if value is None:
            return Cell("")
        shown = value / unit
        return Cell(f"{shown:,.0f}" if shown >= 100 else f"{shown:.3g}", float(value))

    return [
        Column(heading="ms", cell=lambda row: Cell(milliseconds(row.span.ms), row.span.ms)),
        Column(heading="share", cell=share),
        Column(heading="MFLOP", cell=lambda row: scaled(row.span.operations, 1e6)),
        Column(heading="MB", cell=lambda row: scaled(row.span.bytes, 1e6)),
        Column(
            heading="floor ms",
            cell=lambda row: Cell(
                "" if row.span.floor_ms is None else milliseconds(row.span.floor_ms),
                row.span.floor_ms,
            ),
        ),
        Column(heading="of floor", cell=of_floor),
    ]


def _words(heading: str, text: Callable[[_Row], str], wide: bool = False) -> Column[_Row]:
    return Column(heading=heading, cell=lambda row: Cell(text(row)), words=True, wide=wide)


def _plain(graph: GraphProfile, call: GraphCall) -> Span:
    """A graph without the profiler."""
    span = graph_span(graph, call)
    span.ms = call.times * graph.ms
    return span


def _operations_of(span: Span) -> str:
    """Which operations a module's time goes to, the heaviest first."""
    found: dict[str, float] = {}

    def collect(part: Span) -> None:
        if part.kind == "node":
            found[part.detail] = found.get(part.detail, 0.0) + part.ms
        for child in part.children:
            collect(child)

    collect(span)
    return some(sorted(found, key=lambda name: -found[name]))


def _listed(calls: Sequence[GraphCall]) -> str:
    return ", ".join(f"{call.graph} ({call.program})" for call in calls)
