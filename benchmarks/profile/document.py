"""A profile as one JSON document: where the time of a frame goes, graph by graph, node by node."""

from dataclasses import dataclass, field
from statistics import median

from wmdeploy.benchmarks.environment import Ceilings, Machine
from wmdeploy.benchmarks.report import Bound
from wmdeploy.manifest import Precision
from wmdeploy.programs.contract import ProgramName

SCHEMA = 1


@dataclass(frozen=True, kw_only=True)
class Node:
    """One node of a graph as the backend runs it: of ONNX, a layer of TensorRT, or a kernel.

    Attributes:
        name, operation: its own, and its type.
        module: of the model, with dots; the graph's class stands for what is in no module of it.
        ms: median over the runs.
        operations: multiply-adds count as two. None where they are unknown.
        bytes: of its weights, inputs and outputs, each once. None where they are unknown.
        floor_ms: the least that these take on this machine; None without ceilings.
        start_ms, run_ms: when it began and how long it took in the run whose time is the median.
    """

    name: str
    operation: str
    module: str
    ms: float
    operations: int | None = None
    bytes: int | None = None
    floor_ms: float | None = None
    start_ms: float | None = None
    run_ms: float | None = None


@dataclass(frozen=True, kw_only=True)
class GraphProfile:
    """One graph.

    Attributes:
        wall_ms: of each run without the profiler, raw.
        profiled_ms: of each run with it, raw; both took turns. Empty where no nodes were asked for.
        between_ms: of each of these runs, what was in no node: calls, checks, noting the times.
        nodes: in the order in which they run.
        operations, bytes: of the bundle's graph, see `wmdeploy.benchmarks.report.GraphFacts`; None
            for a graph that the bundle does not have, as of the baseline.
        bound: which ceiling takes more of the floor.
    """

    wall_ms: list[float]
    profiled_ms: list[float] = field(default_factory=list)
    between_ms: list[float] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    operations: int | None = None
    bytes: int | None = None
    floor_ms: float | None = None
    bound: Bound | None = None

    @property
    def ms(self) -> float:
        """Median without the profiler."""
        return median(self.wall_ms)

    @property
    def nodes_ms(self) -> float:
        return sum(node.ms for node in self.nodes)

    @property
    def varying_ms(self) -> float:
        """Of a profiled run, what the medians leave out: now one node is slower, now another."""
        return median(self.profiled_ms) - median(self.between_ms) - self.nodes_ms

    @property
    def profiler_ms(self) -> float:
        """How much longer a run takes with the profiler; below 0 where noise is larger."""
        return median(self.profiled_ms) - self.ms


@dataclass(frozen=True)
class GraphCall:
    """A graph that a program runs `times` times for one frame."""

    program: ProgramName
    graph: str
    times: int


@dataclass(frozen=True, kw_only=True)
class Frame:
    """A frame of a rollout whose window is full, as the stage `stage` of bench.

    `wall_ms` is of each run, without the profiler; `calls` are in their order.
    """

    stage: str
    wall_ms: list[float]
    calls: list[GraphCall]

    @property
    def ms(self) -> float:
        return median(self.wall_ms)


@dataclass(frozen=True, kw_only=True)
class Profile:
    """Where the time of a frame goes.

    Attributes:
        bundle: the name of its folder.
        device: "cpu" or "cuda"; `threads` is None on a GPU.
        ceilings: of the device; None where they could not be measured.
        others: what other programs run, such as those for a real frame.
        graphs: by name.
        notes: what a reader of the figures should know.
    """

    schema: int
    bundle: str
    manifest_sha256: str
    backend: str
    precision: Precision
    layout: str
    device: str
    threads: int | None
    runs: int
    clip: str
    machine: Machine
    ceilings: Ceilings | None
    frame: Frame
    others: list[GraphCall]
    graphs: dict[str, GraphProfile]
    notes: list[str] = field(default_factory=list)

    @property
    def session_ms(self) -> float:
        """Of a frame, what is in no graph: windows, noise, the way to the host."""
        return self.frame.ms - sum(c.times * self.graphs[c.graph].ms for c in self.frame.calls)
