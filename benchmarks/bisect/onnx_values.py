"""Values inside a bundle's ONNX graph, as one of ONNX Runtime's backends computes them.

Rows are the values that PyTorch knows by the same name, in the order of the file; whatever stands
between two of them belongs to the later one. Knows no PyTorch model and no errors of values.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx.utils import Extractor
from torch import Tensor

from wmdeploy.benchmarks.bisect.torch_values import Operation
from wmdeploy.bundle import Bundle
from wmdeploy.engines.base import BACKENDS
from wmdeploy.engines.ort.parts import REWRITES, part_session
from wmdeploy.errors import BackendError, BundleError

PROBE = """<ir_version: 10, opset_import: ["": 21]>
probe (float[1] x) => (float[1] y) { y = Identity(x) }"""  # is the backend there at all?
TYPES: dict[int, torch.dtype] = {
    onnx.TensorProto.FLOAT: torch.float32,
    onnx.TensorProto.FLOAT16: torch.float16,
    onnx.TensorProto.INT64: torch.int64,
    onnx.TensorProto.UINT8: torch.uint8,
    onnx.TensorProto.BOOL: torch.bool,
}


def check_backend(name: str) -> None:
    """Refuse a backend that cannot show values inside an ONNX graph, or that is not there.

    Raises:
        BackendError: it is another, or unknown, or not to be had here.
    """
    if name in REWRITES:
        probe = onnx.parser.parse_model(PROBE)
        part_session(name, Path("probe"), probe).run(None, {"x": np.zeros(1, np.float32)})
        return
    have = ", ".join(REWRITES)
    if name not in BACKENDS:
        raise BackendError(f"backend: got {name!r}, expected one of {have}")
    raise BackendError(
        f"backend: got {name!r}, which shows no values inside an ONNX graph; expected one of "
        f"{have}. `wmdeploy bench` says which graph brings another backend's error in"
    )


@dataclass(frozen=True)
class Row:
    """A value that is computed from `inputs`, which are rows or inputs of the graph.

    `nodes` are the names of the nodes that do so, and their operators, as the bundle's file has
    them, whatever the backend puts in their place.
    """

    name: str
    nodes: dict[str, str]
    inputs: tuple[str, ...]


class OnnxValues:
    """A graph whose every value can be asked for.

    Args:
        operations: of PyTorch, by the name of their values.
        distrust: names may mean something else; believe those whose metadata agrees.
    """

    def __init__(
        self,
        bundle: Bundle,
        graph: str,
        backend: str,
        operations: Mapping[str, Operation],
        distrust: bool = False,
    ) -> None:
        self.backend, self._graph = backend, graph
        record = bundle.manifest.graphs[graph]
        with bundle.graph_to_load(graph) as self._path:  # parts of it read its weights later, too
            self._model = onnx.load(self._path, load_external_data=False)
        self._given = [value.name for value in self._model.graph.input]
        names = {*self._given, *(value.name for value in self._model.graph.output)}
        if names != {spec.name for spec in (*record.inputs, *record.outputs)}:
            raise BundleError(
                f"{self._path}: has other tensors than the manifest says; export the model again"
            )
        made = [name for node in self._model.graph.node for name in node.output if name]
        if len(made) != len(set(made)) or self._model.graph.sparse_initializer:
            raise BundleError(f"{self._path}: not a graph as exports write them; export again")
        comparable = {
            name
            for node in self._model.graph.node
            for name in node.output
            if name in operations
            and (name in names or not distrust or _agrees(node, operations[name]))
        }
        self._operators = {node.name: node.op_type for node in self._model.graph.node}
        REWRITES[backend](self._model)
        self._extractor = Extractor(self._model)
        self.rows = list(self._find_rows(comparable))
        if not self.rows:
            raise BundleError(f"{self._path}: has no value that PyTorch knows; export again")
        for row in self.rows:  # ONNX Runtime infers types that the file does not say
            self._extractor.value_infos.setdefault(row.name, onnx.ValueInfoProto(name=row.name))

    def run(self, feeds: Mapping[str, Tensor], names: Sequence[str]) -> dict[str, Tensor]:
        """Values of rows, computed from the graph's inputs; nothing behind them is run.

        Raises:
            BackendError: the backend refuses the graph or cannot run it.
        """
        model = self._extractor.extract_model(self._given, list(names))
        return self._run(part_session(self.backend, self._path, model), feeds, names)

    def run_row(self, row: Row, values: Mapping[str, Tensor]) -> Tensor | None:
        """One row on given values, in the types that the file says; None if it does not say.

        Raises:
            BackendError: as `run`.
        """
        types = self._extractor.value_infos
        kinds = {n: TYPES.get(types[n].type.tensor_type.elem_type) for n in row.inputs}
        if not all(name in values and kind for name, kind in kinds.items()):
            return None
        feeds = {name: values[name].to(kind) for name, kind in kinds.items()}
        model = self._extractor.extract_model(list(row.inputs), [row.name])
        return self._run(part_session(self.backend, self._path, model), feeds, [row.name])[row.name]

    def _find_rows(self, comparable: set[str]) -> Iterator[Row]:
        order = list(self._model.graph.node)
        makers = {name: i for i, node in enumerate(order) for name in node.output if name}
        for i, node in enumerate(order):
            for name in (name for name in node.output if name in comparable):
                nodes, pending = {i}, list(node.input)
                inputs: dict[str, None] = {}
                while pending:
                    source = pending.pop(0)
                    if source in comparable or source in self._given:
                        inputs[source] = None
                    elif makers.get(source, i) not in nodes:
                        nodes.add(makers[source])
                        pending += order[makers[source]].input
                written = [self._written(order[n]) for n in sorted(nodes)]
                yield Row(name, dict(written), tuple(inputs))

    def _written(self, node: onnx.NodeProto) -> tuple[str, str]:
        """Name and operator of the file's node that one is, or is a part of: "norm/mean"."""
        name = node.name
        while name not in self._operators and "/" in name:
            name = name.rpartition("/")[0]
        return name, self._operators.get(name, node.op_type)

    def _run(
        self, session: Any, feeds: Mapping[str, Tensor], names: Sequence[str]
    ) -> dict[str, Tensor]:
        arrays = {name: tensor.numpy() for name, tensor in feeds.items()}
        try:
            results = [torch.from_numpy(array) for array in session.run(list(names), arrays)]
        except Exception as error:  # its exception types are private to its C extension
            raise BackendError(f"{self._graph}: ONNX Runtime cannot run it: {error}") from error
        return dict(zip(names, results, strict=True))


def _agrees(node: onnx.NodeProto, operation: Operation) -> bool:
    """The exporter left the same operation and module with the node."""
    metadata = {entry.key: entry.value for entry in node.metadata_props}
    traced, scopes = (
        metadata.get(f"pkg.torch.onnx.{key}", "") for key in ("fx_node", "name_scopes")
    )
    return f"target=torch.ops.{operation.target}]" in traced and repr(operation.path) in scopes
