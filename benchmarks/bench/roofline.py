"""The least time a stage could take on a machine: bytes over bandwidth, operations over rate."""

from collections.abc import Iterable
from dataclasses import dataclass

from wmdeploy.benchmarks.environment import Ceilings
from wmdeploy.benchmarks.report import Bound
from wmdeploy.benchmarks.stages import StageName
from wmdeploy.manifest import GraphRecord, Manifest
from wmdeploy.programs.contract import Call

Shares = tuple[float, float]  # ms that bytes take at least, ms that operations take


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

    def floor(name: str, times: int = 1) -> Shares:
        graph = graphs[name]
        moved, operations = times * moved_bytes(graph, batch), times * batch * graph.flops
        return shares(moved, operations, ceilings, manifest.recipe.precision)

    def called(calls: tuple[Call, ...]) -> list[Shares]:
        return [floor(call.graph, call.times) for call in calls]

    parts = {name: [floor(name)] for name in graphs}
    parts["imagine"] = called(programs.predict)
    parts["slide"] = called(programs.steady(refill))
    parts["frame"] = parts["slide"] + called(programs.render)  # one after the other
    return {stage: total(part) for stage, part in parts.items()}


def shares(moved: float, operations: float, ceilings: Ceilings, precision: str) -> Shares:
    """What the bytes take and what the operations take at least, in ms."""
    by_bytes = moved / (ceilings.bandwidth_gb_s * 1e9)
    return 1e3 * by_bytes, 1e3 * operations / (ceilings.rate(precision) * 1e9)


def total(parts: Iterable[Shares]) -> Floor:
    """Of what runs one after the other; `bound` is of the ceiling that has the larger share."""
    sums: dict[Bound, float] = {"bandwidth": 0.0, "compute": 0.0}
    for by_bytes, by_operations in parts:
        if by_bytes > by_operations:
            sums["bandwidth"] += by_bytes
        else:
            sums["compute"] += by_operations
    return Floor(sum(sums.values()), max(sums, key=lambda bound: sums[bound]))
