"""Which layer's weight, stored as integers, does the harm where an export fails its check."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
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
        with scratch_directory("wmdeploy-export-") as scratch:
            found = [
                (change, layer, name)
                for name, build in graphs.items()
                for change, layer in _changes(
                    scratch / f"{name}.onnx", build(), cases[name], recipe
                )
            ]
        if not found:
            raise
        change, layer, name = max(found)
        raise ExportError(
            f"{error}. Of the layers with {recipe.weights} weights, {layer} of {name} does most "
            f"harm: alone it changes an output by {change:.1e} of its largest value; keep its "
            "weights as floats"
        ) from error


def _changes(
    path: Path, graph: Graph, cases: Sequence[Case], recipe: Recipe
) -> Iterator[tuple[float, str]]:
    """The largest relative change of an output by each layer, and the layer's name."""

    def write() -> None:
        write_onnx(graph, path, opset=recipe.opset, max_batch=recipe.max_batch)

    def answer() -> dict[str, np.ndarray]:
        engine = OnnxEngine(path, graph)
        return engine.run({s.name: cases[0].feeds[s.name].astype(s.dtype) for s in graph.inputs})

    write()
    exact = answer()
    for layer in list(find_layers(onnx.load(path, load_external_data=False))):
        if layer.name in recipe.float_layers:
            continue
        write()
        quantise_file(path, recipe.weights, chosen=lambda other, one=layer: other == one)
        changed = answer()
        yield (
            max(
                (
                    compare(changed[s.name], exact[s.name], 0).relative
                    for s in graph.outputs
                    if s.dtype != "int64"
                ),
                default=0.0,
            ),
            layer.name,
        )
