"""Times of nodes from ONNX Runtime's own profiler: backends `ort-cpu`, `ort-cuda`, `ort-cuda-nhwc`.

It writes events in microseconds, those of a run before the run itself. On a GPU the time of a node
is that of its kernels, which are separate events behind the node's; its own is that of launching.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import msgspec
import onnx

from wmdeploy.benchmarks.profile.nodes import Run, TimedNode
from wmdeploy.benchmarks.profile.onnx_nodes import SourceNode, owners, source_nodes
from wmdeploy.bundle import Bundle
from wmdeploy.engines.base import BACKENDS, Settings
from wmdeploy.engines.ort.cpu import OPTIMIZED_GRAPH, OrtEngine
from wmdeploy.errors import BackendError
from wmdeploy.programs.engine import Backend, Engine

BEHIND_NAME = "_kernel_time"


class Arguments(msgspec.Struct, frozen=True):
    """Of an event of a node; of a kernel, `parent_name` is the event of its node."""

    op_name: str = ""
    parameter_size: str = "0"
    activation_size: str = "0"
    output_size: str = "0"
    parent_name: str = ""

    @property
    def bytes(self) -> int:
        return sum(map(int, (self.parameter_size, self.activation_size, self.output_size)))


class Event(msgspec.Struct, frozen=True):
    """Of ONNX Runtime's file; `ts` and `dur` are in microseconds."""

    cat: str
    name: str
    ts: int
    dur: int
    args: Arguments = Arguments()


class OnnxRuntimeProfiler:
    """See `wmdeploy.benchmarks.profile.nodes.Profiler`.

    Args:
        name_of: gives a graph's names of modules, see `source_nodes`.
    """

    def __init__(
        self,
        backend: Backend,
        bundle: Bundle,
        settings: Settings,
        name_of: Callable[[str], Callable[[str], str] | None],
    ) -> None:
        self.backend = backend
        self.notes: list[str] = []
        self._on_gpu = BACKENDS[backend.name].device == "cuda"
        if self._on_gpu:
            self.notes.append("nodes were timed without CUDA graphs, kernel by kernel")
        self._bundle, self._settings, self._name_of = bundle, settings, name_of

    def open(self, graph: str, folder: Path) -> "OnnxRuntimeGraph":
        if not self._on_gpu:
            engine = OrtEngine(graph, self._bundle, self._settings.threads, folder)
            return self._graph(graph, folder, engine, engine.end_profiling)
        from wmdeploy.engines.ort.gpu import profiled_cuda_engine

        name, settings = self.backend.name, self._settings
        static, session = profiled_cuda_engine(name, self._bundle, graph, settings, folder)
        return self._graph(graph, folder, static, lambda: Path(session.end_profiling()))

    def _graph(
        self, graph: str, folder: Path, engine: Engine, end: Callable[[], Path]
    ) -> "OnnxRuntimeGraph":
        source = onnx.load(self._bundle.checked_graph(graph), load_external_data=False)
        executed = onnx.load(folder / OPTIMIZED_GRAPH, load_external_data=False)
        nodes = source_nodes(source, self._name_of(graph))
        belongs = owners(executed.graph.node, source.graph)
        sources = [None if name is None else nodes[name] for name in belongs]
        return OnnxRuntimeGraph(
            engine,
            end,
            on_gpu=self._on_gpu,
            operations=[node.op_type for node in executed.graph.node],
            sources=sources,
        )


class OnnxRuntimeGraph:
    """See `wmdeploy.benchmarks.profile.nodes.GraphProfiler`.

    Args:
        end: ends the profiling, and gives the file.
        operations: the types of the nodes that run, in their order.
        sources: the node of the bundle's file that each belongs to.
    """

    def __init__(
        self,
        engine: Engine,
        end: Callable[[], Path],
        *,
        on_gpu: bool,
        operations: list[str],
        sources: list[SourceNode | None],
    ) -> None:
        self.engine = engine
        self._end, self._on_gpu = end, on_gpu
        self._operations, self._sources = operations, sources

    def block(self) -> AbstractContextManager[object]:
        return nullcontext()

    def end(self) -> list[Run]:
        """
        Raises:
            BackendError: the profile is damaged, not of the graph, or lacks the times of kernels.
        """
        try:
            events = msgspec.json.decode(self._end().read_bytes(), type=list[Event])
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:  # odd names are not escaped
            raise BackendError(
                f"{self.engine.name}: ONNX Runtime's profile cannot be read ({error}); export the "
                "model again"
            ) from error
        if self._on_gpu and not any(event.cat == "Kernel" for event in events):
            raise BackendError(
                f"{self.engine.name}: this build of ONNX Runtime times no kernels of CUDA; use an "
                "onnxruntime-gpu that was built with enable_cuda_profiling"
            )
        return [self._run(start, nodes) for start, nodes in _runs(events, self._on_gpu)]

    def _run(self, start: int, timed: list[tuple[Event, int]]) -> Run:
        if [event.args.op_name for event, _ in timed] != self._operations:
            raise BackendError(
                f"{self.engine.name}: ONNX Runtime timed other nodes than the graph has that it "
                f"wrote: {len(timed)}, expected {len(self._operations)}; use another version of it"
            )
        run: Run = []
        counted = set[str]()  # a fused product may have several nodes, of which one computes it
        for (event, duration), source in zip(timed, self._sources, strict=True):
            operations: int | None = 0
            if source is not None and _computes(event.args.op_name) and source.name not in counted:
                counted.add(source.name)
                operations = source.operations
            run.append(
                TimedNode(
                    name=event.name.removesuffix(BEHIND_NAME),
                    operation=event.args.op_name,
                    module="" if source is None else source.module,
                    start_ms=(event.ts - start) / 1e3,
                    ms=duration / 1e3,
                    operations=operations,
                    bytes=event.args.bytes,
                )
            )
        return run


def _computes(operation: str) -> bool:
    """Whether an operator is a product or a convolution, by its own name or by that of a fusion."""
    return any(word in operation for word in ("Conv", "MatMul", "Gemm", "Attention"))


def _runs(events: list[Event], on_gpu: bool) -> Iterator[tuple[int, list[tuple[Event, int]]]]:
    """By run: its start, and its nodes with their microseconds, on a GPU those of their kernels."""
    nodes: list[tuple[Event, int]] = []
    for event in events:
        if event.cat == "Node":
            nodes.append((event, 0 if on_gpu else event.dur))
        elif event.cat == "Kernel" and nodes and event.args.parent_name == nodes[-1][0].name:
            node, before = nodes[-1]
            nodes[-1] = node, before + event.dur
        elif event.name == "model_run":
            yield event.ts, nodes
            nodes = []
