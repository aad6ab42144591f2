"""A profile as a trace that Perfetto (ui.perfetto.dev) and Chrome's chrome://tracing show.

It is one run of each graph, that whose time is the median: tracks are graphs, and the nodes lie in
the modules that they belong to. The format is Google's "Trace Event Format", complete events (X) in
microseconds.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from wmdeploy.benchmarks.profile.document import Node, Profile

Event = dict[str, Any]
PROCESS = 1


def trace(profile: Profile) -> dict[str, Any]:
    """The document; `write_document` of `wmdeploy.files` writes it."""
    events = [_named("process_name", 0, f"{profile.bundle} on {profile.backend}")]
    for track, (name, graph) in enumerate(profile.graphs.items(), start=1):
        nodes = [node for node in graph.nodes if node.start_ms is not None]
        events.append(_named("thread_name", track, name))
        nodes.sort(key=lambda node: node.start_ms or 0.0)
        events += _slices(nodes, track, depth=0)
    return {"displayTimeUnit": "ms", "traceEvents": events}


def _slices(nodes: Sequence[Node], track: int, depth: int) -> Iterator[Event]:
    """Of neighbours that lie in one module, the module's, then their own."""
    at = 0
    while at < len(nodes):
        parts = nodes[at].module.split(".")
        if depth >= len(parts) or not nodes[at].module:
            yield _slice(nodes[at], track)
            at += 1
            continue
        end = at
        while end < len(nodes) and nodes[end].module.split(".")[: depth + 1] == parts[: depth + 1]:
            end += 1
        group = nodes[at:end]
        begin, last = _start(group[0]), max(_start(node) + _duration(node) for node in group)
        yield _complete(parts[depth], "module", track, begin, last - begin)
        yield from _slices(group, track, depth + 1)
        at = end


def _slice(node: Node, track: int) -> Event:
    event = _complete(node.name, "node", track, _start(node), _duration(node))
    known = {"operations": node.operations, "bytes": node.bytes, "floor_ms": node.floor_ms}
    event["args"] = {"operation": node.operation, "module": node.module, "median_ms": node.ms}
    event["args"] |= {name: value for name, value in known.items() if value is not None}
    return event


def _start(node: Node) -> float:
    return 1e3 * (node.start_ms or 0.0)


def _duration(node: Node) -> float:
    return 1e3 * (node.run_ms or 0.0)


def _complete(name: str, kind: str, track: int, start: float, duration: float) -> Event:
    return {
        "name": name,
        "cat": kind,
        "ph": "X",
        "pid": PROCESS,
        "tid": track,
        "ts": round(start, 3),
        "dur": round(duration, 3),
    }


def _named(what: str, track: int, name: str) -> Event:
    """What a process or a track is called."""
    return {"name": what, "ph": "M", "pid": PROCESS, "tid": track, "args": {"name": name}}
