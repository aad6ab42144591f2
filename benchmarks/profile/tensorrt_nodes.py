"""Times of layers from TensorRT's IProfiler: backends `tensorrt` and `tensorrt-rtx`.

A layer is what TensorRT made of one node or several, whose names its own holds.
"""

import re
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import onnx

from wmdeploy.benchmarks.profile.nodes import Run, TimedNode
from wmdeploy.benchmarks.profile.onnx_nodes import SourceNode, source_nodes
from wmdeploy.bundle import Bundle
from wmdeploy.engines.trt.flavour import LayerTimes
from wmdeploy.engines.trt.run import PlanEngine, profiled_plan_engine
from wmdeploy.programs.engine import Backend, Engine


class TensorRtProfiler:
    """See `wmdeploy.benchmarks.profile.nodes.Profiler`.

    Args:
        name_of: gives a graph's names of modules, see `source_nodes`.
    """

    def __init__(
        self,
        backend: Backend,
        bundle: Bundle,
        name_of: Callable[[str], Callable[[str], str] | None],
    ) -> None:
        self.backend = backend
        self.notes = ["layers were timed without CUDA graphs, one launched after the other"]
        self._bundle, self._name_of = bundle, name_of

    def open(self, graph: str, folder: Path) -> "TensorRtGraph":
        source = onnx.load(self._bundle.checked_graph(graph), load_external_data=False)
        times: LayerTimes = []
        engine = profiled_plan_engine(self.backend.name, self._bundle, graph, times)
        return TensorRtGraph(engine, times, source_nodes(source, self._name_of(graph)))


class TensorRtGraph:
    """See `wmdeploy.benchmarks.profile.nodes.GraphProfiler`.

    Args:
        times: what the engine's profiler writes to.
        nodes: of the bundle's file, by name.
    """

    def __init__(
        self, engine: PlanEngine, times: LayerTimes, nodes: Mapping[str, SourceNode]
    ) -> None:
        self.engine: Engine = engine
        self._times, self._nodes = times, nodes

    def block(self) -> AbstractContextManager[object]:
        return nullcontext()

    def end(self) -> list[Run]:
        return [self._run(layers) for layers in self._times]

    def _run(self, layers: list[tuple[str, float]]) -> Run:
        run: Run = []
        start = 0.0  # layers run one after the other
        for name, ms in layers:
            held = nodes_in(name, self._nodes)
            counts = [node.operations for node in held]
            known = [count for count in counts if count is not None]
            run.append(
                TimedNode(
                    name=name,
                    operation="layer",
                    module=held[-1].module if held else "",
                    start_ms=start,
                    ms=ms,
                    operations=sum(known) if len(known) == len(counts) and held else None,
                )
            )
            start += ms
        return run


def nodes_in(layer: str, nodes: Mapping[str, SourceNode]) -> list[SourceNode]:
    """The nodes whose names the name of a layer holds, as in "node_conv2d + node_silu"."""
    return [nodes[word] for word in re.findall(r"[\w./]+", layer) if word in nodes]
