"""Which layer's weight, stored as integers, does the harm where an export fails its check."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import onnx

from wmdeploy.errors import ExportError
from wmdeploy.exporters.quantise import find_layers, quantise_file
from wmdeploy.exporters.to_onnx import write_onnx
from wmdeploy.exporters.verify import OnnxEngine, compare
from wmdeploy.families import Graph
from wmdeploy.leftovers import scratch_directory
from wmdeploy.manifest import Recipe
from wmdeploy.programs.record import Case


@contextmanager
def naming_worst_layer(
    graphs: Mapping[str, Callable[[], Graph]], cases: Mapping[str, Sequence[Case]], recipe: Recipe
) -> Iterator[None]:
    """Let an ExportError of the block name the layer that changes these graphs most.

    Each layer in turn is the only one with integers, and the graph is run on its first case beside
    the graph of floats.
    """
    try:
        yield
    except ExportError as error:
        if recipe.weights == "float":
            raise
        found: list[tuple[float, str, str]] = []
        with scratch_directory("wmdeploy-export-") as scratch:
            for name, build in graphs.items():
                changes = _changes(scratch, build(), cases[name], recipe)
                found += [(change, layer, name) for change, layer in changes]
        if not found:
            raise
        change, layer, name = max(found)
        raise ExportError(
            f"{error}. Of the layers with {recipe.weights} weights, {layer} of {name} does most "
            f"harm: alone it changes an output by {change:.1e} of its largest value; keep its "
            "weights as floats"
        ) from error


def _changes(
    folder: Path, graph: Graph, cases: Sequence[Case], recipe: Recipe
) -> Iterator[tuple[float, str]]:
    """The largest relative change of an output by each layer, and the layer's name."""
    feeds = {s.name: cases[0].feeds[s.name].astype(s.dtype) for s in graph.inputs}
    floats, integers = folder / "floats.onnx", folder / "integers.onnx"
    write_onnx(graph, floats, opset=recipe.opset, max_batch=recipe.max_batch)
    exact = OnnxEngine(floats, graph).run(feeds)
    compared = [s.name for s in graph.outputs if s.dtype != "int64"]
    for layer in list(find_layers(onnx.load(floats, load_external_data=False))):
        if layer.name in recipe.float_layers:
            continue
        quantise_file(floats, integers, layer.__eq__)
        got = OnnxEngine(integers, graph).run(feeds)
        changes = [compare(got[name], exact[name], 0).relative for name in compared]
        yield max(changes, default=0.0), layer.name
