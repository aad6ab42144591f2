"""What every profiler gives: the nodes of each run of a graph, in order, with their times."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Protocol

from wmdeploy.benchmarks.profile.document import Node
from wmdeploy.programs.engine import Backend, Engine


@dataclass(frozen=True, kw_only=True)
class TimedNode:
    """One node in one run.

    Attributes:
        name: of the node, layer or kernel.
        operation: its type, such as "Conv".
        module: of the model, with dots; see `wmdeploy.benchmarks.bisect.torch_values.Operation`.
        start_ms: from the run's start.
        operations, bytes: of the node alone; None where they are unknown.
    """

    name: str
    operation: str
    module: str
    start_ms: float
    ms: float
    operations: int | None = None
    bytes: int | None = None


Run = list[TimedNode]


class GraphProfiler(Protocol):
    """One graph whose nodes are timed. All runs of `engine` are inside a `block`."""

    engine: Engine

    def block(self) -> AbstractContextManager[object]:
        """Around some runs."""
        ...

    def end(self) -> list[Run]:
        """The nodes of all runs, in order; afterwards there are no further runs."""
        ...


class Profiler(Protocol):
    """The profiler of one backend; `notes` say what a reader of its figures should know."""

    backend: Backend
    notes: list[str]

    def open(self, graph: str, folder: Path) -> GraphProfiler:
        """
        Args:
            folder: for whatever it writes.
        """
        ...


def summarise(runs: Sequence[Run], typical: int) -> list[Node]:
    """The nodes of a graph with the median of their times; one that a run lacks took 0 ms there.

    Args:
        typical: the index of the run whose times a trace shows.
    """
    keyed = [dict(_keyed(run)) for run in runs]
    order = dict.fromkeys(key for run in (keyed[typical], *keyed) for key in run)
    nodes = []
    for key in order:
        some = next(run[key] for run in keyed if key in run)
        shown = keyed[typical].get(key)
        nodes.append(
            Node(
                name=some.name,
                operation=some.operation,
                module=some.module,
                ms=median(run[key].ms if key in run else 0.0 for run in keyed),
                operations=some.operations,
                bytes=some.bytes,
                start_ms=None if shown is None else shown.start_ms,
                run_ms=None if shown is None else shown.ms,
            )
        )
    return nodes


def _keyed(run: Run) -> Iterator[tuple[tuple[str, str, int], TimedNode]]:
    """With the module, the name, and how often both came before: kernels repeat."""
    before = Counter[tuple[str, str]]()
    for node in run:
        key = node.module, node.name
        yield (*key, before[key]), node
        before[key] += 1
