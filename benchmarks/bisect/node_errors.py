"""Errors of a graph's nodes against PyTorch: of the graph as it runs, and of each node alone.

An error is the largest absolute difference over the largest absolute value of PyTorch's. A choice
(a code, a pixel that is rounded or cut off) is judged by what it costs, and a code that ties costs
nothing; PyTorch goes on from the backend's choice.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from wmdeploy.errors import BackendError

if TYPE_CHECKING:
    from torch import Tensor

    from wmdeploy.benchmarks.bisect.onnx_values import OnnxValues, Row
    from wmdeploy.benchmarks.bisect.torch_values import Operation, PytorchValues, Visit
    from wmdeploy.codes import CodeCount

    Cost = Callable[[Tensor, tuple[Any, ...]], tuple[Tensor, Tensor]]  # and its scale

BYTES_AT_ONCE = 512e6  # of values inside a graph, as PyTorch's float32


@dataclass(frozen=True, kw_only=True)
class Node:
    """One operation of PyTorch, and the nodes that the bundle's file has for it.

    `name` is of its value in ONNX, `nodes` and `ops` are the names and types of its nodes, the last
    of which gives the value; `module` is the module of the source model that it belongs to (see
    `pytorch_values.Operation`). Errors are relative, infinite where a value is not finite or of
    another shape; `own` is None where the file does not say the type of an input.
    """

    name: str
    nodes: tuple[str, ...]
    ops: tuple[str, ...]
    module: str
    operation: str
    shape: tuple[int, ...]
    accumulated: float
    own: float | None


class Comparison:
    """Errors of one graph's rows; see the module's docstring for the two kinds.

    Args:
        feeds: of the graph's inputs by name, in its own types.
    """

    def __init__(
        self, exact: "PytorchValues", tested: "OnnxValues", feeds: "Mapping[str, Tensor]"
    ) -> None:
        self._exact, self._tested, self._feeds = exact, tested, feeds
        self._rows = {row.name: row for row in tested.rows}
        self._own: dict[str, float | None] = {}
        self._accumulated: dict[str, float] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._choices: dict[str, Tensor] = {}
        self._broken = False
        self.codes: CodeCount | None = None  # of an encoder, as they come out of the graph

    def measure_own(self) -> None:
        """Each row on PyTorch's values, as soon as they are there; also checks the trace."""
        held = dict(self._feeds)
        uses = Counter(name for row in self._rows.values() for name in row.inputs)

        def visit(operation: "Operation", value: "Tensor", given: tuple[Any, ...]) -> "Tensor":
            row = self._rows.get(operation.name)
            if row is not None:
                self._shapes[row.name] = tuple(value.shape)
                try:
                    got = self._tested.run_row(row, held)
                    own = None if got is None else error(operation, got, value, given)
                except BackendError:
                    own = math.inf
                self._own[row.name] = own
                uses.subtract(row.inputs)
                for name in row.inputs:
                    if uses[name] <= 0:
                        held.pop(name, None)
            if uses[operation.name] > 0:
                held[operation.name] = value
            return value

        self._exact.check(self._feeds, self._exact.run(self._feeds, visit))

    @property
    def size(self) -> int:
        """How many nodes are compared."""
        return len(self._rows)

    def portions(self) -> Iterator[list["Row"]]:
        """The rows in order, in parts whose values fit into memory together."""
        portion: list[Row] = []
        size = 0
        for row in self._rows.values():
            portion.append(row)
            size += 4 * math.prod(self._shapes[row.name])
            if size >= BYTES_AT_ONCE:
                yield portion
                portion, size = [], 0
        if portion:
            yield portion

    def measure_accumulated(self, rows: Sequence["Row"]) -> None:
        """Rows as they come out of the graph; portions must be measured in order.

        What the backend cannot compute is as wrong as can be, and all that is behind it.
        """
        if self._broken:
            return
        try:
            values = self._tested.run(self._feeds, [row.name for row in rows])
        except BackendError:
            if len(rows) == 1:
                self._broken = True
                return
            middle = len(rows) // 2
            self.measure_accumulated(rows[:middle])
            self.measure_accumulated(rows[middle:])
            return
        self._exact.run(self._feeds, self._comparing(values))

    def _comparing(self, values: "dict[str, Tensor]") -> "Visit":
        import torch

        def visit(operation: "Operation", value: "Tensor", given: tuple[Any, ...]) -> "Tensor":
            name = operation.name
            if name in values:
                got = values.pop(name)
                if _cost(operation, value, given) and got.shape == value.shape:
                    self._choices[name] = got.to(value.dtype)
                chooses_codes = operation.kind == "argmin" and self._exact.gives_codes
                if chooses_codes and got.shape == value.shape:
                    ties = self._exact.find_ties(self._feeds, value, got)
                    self.codes = ties.count
                    got = value.where(torch.from_numpy(ties.tied), got)
                self._accumulated[name] = error(operation, got, value, given)
            return self._choices.get(name, value)

        return visit

    def nodes(self) -> Iterator[Node]:
        for name, row in self._rows.items():
            operation = self._exact.operations[name]
            yield Node(
                name=name,
                nodes=tuple(row.nodes),
                ops=tuple(row.nodes.values()),
                module=operation.module,
                operation=operation.kind,
                shape=self._shapes[name],
                accumulated=self._accumulated.get(name, math.inf),
                own=self._own[name],
            )


def error(
    operation: "Operation", got: "Tensor", expected: "Tensor", given: tuple[Any, ...]
) -> float:
    """Relative; of a choice, what it costs. Infinite where shapes differ or `got` is not finite."""
    if got.shape != expected.shape:
        return math.inf
    cost_of = _cost(operation, expected, given)
    if cost_of is not None:
        cost, scale = cost_of(got, given)
    else:
        wide = expected.float() if expected.is_floating_point() else expected.double()
        difference = (got.to(wide.dtype) - wide).abs()
        cost = difference.masked_fill_(got.to(wide.dtype) == wide, 0)  # infinities too
        scale = wide.masked_fill(wide.isinf(), 0).abs()
    largest, size = float(cost.max()), float(scale.max())
    if math.isnan(largest):
        return math.inf
    return largest / size if size else largest


def _cost_of_nearest(got: "Tensor", given: tuple[Any, ...]) -> "tuple[Tensor, Tensor]":
    """How much further the chosen entries are than the nearest: argmin(distances, axis)."""
    distances, axis = given
    inside = (got >= 0) & (got < distances.shape[axis])
    index = got.where(inside, got.new_zeros(())).unsqueeze(axis)
    excess = distances.gather(axis, index).squeeze(axis) - distances.amin(axis)
    return excess.masked_fill(~inside, math.inf), distances.abs()


def _cost_of_rounding(got: "Tensor", given: tuple[Any, ...]) -> "tuple[Tensor, Tensor]":
    """How far the whole numbers are from what was rounded, past a half."""
    return ((got.float() - given[0]).abs() - 0.5).clamp_min(0), given[0].abs()


def _cost_of_truncation(got: "Tensor", given: tuple[Any, ...]) -> "tuple[Tensor, Tensor]":
    """How far what was cut off lies outside the values that become these whole numbers."""
    whole = got.float()
    below, above = whole - (got <= 0).float(), whole + (got >= 0).float()
    return (below - given[0]).maximum(given[0] - above).clamp_min(0), given[0].abs()


def _cost(operation: "Operation", expected: "Tensor", given: tuple[Any, ...]) -> "Cost | None":
    """What a choice is judged by; None for an operation that chooses nothing."""
    if operation.kind == "_to_copy":
        import torch

        whole = not expected.is_floating_point() and expected.dtype is not torch.bool
        return _cost_of_truncation if whole and given[0].is_floating_point() else None
    return COSTS.get(operation.kind)


COSTS: "dict[str, Cost]" = {"argmin": _cost_of_nearest, "round": _cost_of_rounding}
