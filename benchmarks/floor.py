"""The least time a stage could take on a machine: bytes over bandwidth, operations over rate."""

from benchmarks.machine import Ceilings
from benchmarks.worker import ENGINE_STAGES
from wmdeploy.bundle import Bundle
from wmdeploy.manifest import GraphRecord


def floors(bundle: Bundle, machine: Ceilings, batch: int, refill: int | None) -> dict[str, float]:
    """The least ms of each stage for the bundle's graphs, whatever runs them on that machine."""
    graphs = bundle.manifest.graphs
    rate = machine.rate(bundle.manifest.recipe.precision)

    def floor(graph: GraphRecord) -> float:
        moved = graph.weight_bytes + sum(t.bytes(batch) for t in (*graph.inputs, *graph.outputs))
        by_bytes = moved / (machine.bandwidth_gb_s * 1e9)
        by_operations = batch * graph.flops / (rate * 1e9)
        return 1e3 * max(by_bytes, by_operations)

    least = {stage: floor(graphs[graph]) for stage, graph in ENGINE_STAGES.items()}
    least["imagine"] = least["step"]
    least["slide"] = least["step"] if refill else least["prefill"]
    least["frame"] = least["slide"] + least["decode"]
    return least
