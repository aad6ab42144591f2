"""The least time a stage could take on a machine: bytes over bandwidth, operations over rate."""

from dataclasses import dataclass

from wmdeploy.benchmarks.environment import Ceilings
from wmdeploy.benchmarks.report import Bound
from wmdeploy.benchmarks.stages import StageName
from wmdeploy.manifest import GraphRecord, Manifest
from wmdeploy.programs.contract import Call


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
    graphs, programs = manifest.graphs, manifest.programs
    rate = ceilings.rate(manifest.recipe.precision)

    def floor(name: str, times: int = 1) -> tuple[float, float]:
        graph = graphs[name]
        by_bytes = moved_bytes(graph, batch) / (ceilings.bandwidth_gb_s * 1e9)
        by_operations = batch * graph.flops / (rate * 1e9)
        return 1e3 * times * by_bytes, 1e3 * times * by_operations

    def called(calls: tuple[Call, ...]) -> list[tuple[float, float]]:
        return [floor(call.graph, call.times) for call in calls]

    parts = {name: [floor(name)] for name in graphs}
    parts["imagine"] = called(programs.predict)
    parts["slide"] = called(programs.steady(refill))
    parts["frame"] = parts["slide"] + called(programs.render)  # one after the other
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
