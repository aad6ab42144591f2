"""A profile as a tree: frame, program, graph, modules, node. A page draws it, tables count it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Literal

from wmdeploy.benchmarks.profile.document import GraphCall, GraphProfile, Node, Profile
from wmdeploy.benchmarks.render.format import milliseconds

Kind = Literal["frame", "program", "graph", "module", "node", "rest"]


@dataclass(kw_only=True)
class Span:
    """A part of the time, and the parts that it has itself.

    Attributes:
        detail: what it is in words, beside its name.
        operations, bytes, floor_ms: None where they are unknown.
    """

    name: str
    kind: Kind
    ms: float
    detail: str = ""
    operations: int | None = None
    bytes: int | None = None
    floor_ms: float | None = None
    children: list["Span"] = field(default_factory=list)


def frame_span(profile: Profile) -> Span:
    """A frame, window full; what of it is in no graph is a part of its own, if it is above 0.

    It is as long as its parts, and graphs take here what they take with the profiler.
    """
    programs = program_spans(profile, profile.frame.calls)
    if profile.session_ms > 0:
        programs.append(
            Span(name="in no graph", kind="rest", ms=profile.session_ms,
                 detail="the session: windows, noise, the way to the host")
        )  # fmt: skip
    return Span(
        name="frame",
        kind="frame",
        ms=sum(program.ms for program in programs),
        detail=f"{milliseconds(profile.frame.ms)} ms without the profiler",
        children=programs,
    )


def program_spans(profile: Profile, calls: Sequence[GraphCall]) -> list[Span]:
    """By program, the graphs that it calls."""
    spans = []
    for program in dict.fromkeys(call.program for call in calls):
        own = [call for call in calls if call.program == program]
        graphs = [graph_span(profile.graphs[call.graph], call) for call in own]
        spans.append(
            Span(name=program, kind="program", ms=sum(g.ms for g in graphs), children=graphs)
        )
    return spans


def graph_span(graph: GraphProfile, call: GraphCall) -> Span:
    """A graph, its modules, and what is between its nodes; all of it `times` times."""
    times = call.times
    children = module_spans(graph.nodes, times)
    if graph.nodes:
        rest = (
            ("between nodes", median(graph.between_ms), "calls, checks, and noting the times"),
            ("varies from run to run", graph.varying_ms, "now one node is slower, now another"),
        )
        children += [
            Span(name=name, kind="rest", ms=times * ms, detail=detail)
            for name, ms, detail in rest
            if ms > 0
        ]
    ms = sum(child.ms for child in children) if children else times * graph.ms
    again = f"{times} times, " if times > 1 else ""
    return Span(
        name=call.graph,
        kind="graph",
        ms=ms,
        detail=f"{again}{milliseconds(graph.ms)} ms each without the profiler",
        operations=_times(times, graph.operations),
        bytes=_times(times, graph.bytes),
        floor_ms=None if graph.floor_ms is None else times * graph.floor_ms,
        children=children,
    )


def module_spans(nodes: Iterable[Node], times: int = 1) -> list[Span]:
    """The modules of nodes as a tree along their names, heaviest first."""
    root = Span(name="", kind="module", ms=0.0)
    for node in nodes:
        place = root
        for part in node.module.split(".") if node.module else ["(no module)"]:
            found = next((c for c in place.children if (c.kind, c.name) == ("module", part)), None)
            if found is None:
                found = Span(name=part, kind="module", ms=0.0)
                place.children.append(found)
            place = found
        place.children.append(
            Span(
                name=node.name,
                kind="node",
                ms=times * node.ms,
                detail=node.operation,
                operations=_times(times, node.operations),
                bytes=_times(times, node.bytes),
                floor_ms=None if node.floor_ms is None else times * node.floor_ms,
            )
        )
    _add_up(root)
    return root.children


def by_module(nodes: Iterable[Node]) -> list[Span]:
    """One part for each module that has nodes of its own, heaviest first."""
    spans: dict[str, Span] = {}
    for node in nodes:
        name = node.module or "(no module)"
        span = spans.setdefault(name, Span(name=name, kind="module", ms=0.0))
        span.children += module_spans([node])
    for span in spans.values():
        _add_up(span)
    return sorted(spans.values(), key=lambda span: -span.ms)


def _add_up(span: Span) -> None:
    """Figures of a module from its parts; unknown where one of them is."""
    if span.kind != "module":
        return
    for child in span.children:
        _add_up(child)
    span.ms = sum(child.ms for child in span.children)
    span.operations = _sum(child.operations for child in span.children)
    span.bytes = _sum(child.bytes for child in span.children)
    floors = [child.floor_ms for child in span.children]
    known = [floor for floor in floors if floor is not None]
    span.floor_ms = sum(known) if len(known) == len(floors) else None
    span.children.sort(key=lambda child: -child.ms)


def _sum(values: Iterable[int | None]) -> int | None:
    total = 0
    for value in values:
        if value is None:
            return None
        total += value
    return total


def _times(times: int, value: int | None) -> int | None:
    return None if value is None else times * value
