"""The least time a stage could take on a machine: bytes over bandwidth, operations over rate."""

from dataclasses import dataclass

from wmdeploy.benchmarks.environment import Ceilings
from wmdeploy.benchmarks.report import Bound
from wmdeploy.benchmarks.stages import GRAPH_STAGES, StageName
from wmdeploy.manifest import GraphRecord, Manifest


@dataclass(frozen=True)
class Floor:
    """The least ms, and which ceiling takes more of it."""

    ms: float
    bound: Bound


def moved_bytes(graph: GraphRecord, batch: int) -> int:
    """What one run must read or write at least: weights, inputs and outputs, each once."""
    return graph.weight_bytes + sum(t.bytes(batch) for t in (*graph.inputs, *graph.outputs))


def floors(
    manifest: Manifest, ceilings: Ceilings, batch: int, refill: int | None
) -> dict[StageName, Floor]:
    """The floor of each stage for a bundle's graphs, whatever runs them on that device."""
    graphs = manifest.graphs
    rate = ceilings.rate(manifest.recipe.precision)

    def floor(graph: GraphRecord) -> tuple[float, float]:
        by_bytes = moved_bytes(graph, batch) / (ceilings.bandwidth_gb_s * 1e9)
        by_operations = batch * graph.flops / (rate * 1e9)
        return 1e3 * by_bytes, 1e3 * by_operations

    parts = {stage: [floor(graphs[graph])] for stage, graph in GRAPH_STAGES.items()}
    parts["imagine"] = parts["step"]
    parts["slide"] = parts["step"] if refill else parts["prefill"]
    parts["frame"] = parts["slide"] + parts["decode"]  # one after the other: each has its own
    return {stage: _total(part) for stage, part in parts.items()}


def _total(graphs: list[tuple[float, float]]) -> Floor:
    """Graphs that run one after the other; `bound` is of the ceiling that has the larger share."""
    shares: dict[Bound, float] = {"bandwidth": 0.0, "compute": 0.0}
    for by_bytes, by_operations in graphs:
        if by_bytes > by_operations:
            shares["bandwidth"] += by_bytes
        else:
            shares["compute"] += by_operations
    return Floor(sum(shares.values()), max(shares, key=lambda bound: shares[bound]))
