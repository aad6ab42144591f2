"""What bisect found, as a table and in words."""

import math
from typing import TYPE_CHECKING

from rich.table import Table

from wmdeploy.benchmarks.render.format import some

if TYPE_CHECKING:
    from wmdeploy.benchmarks.bisect.node_errors import Node
    from wmdeploy.benchmarks.bisect.run import Findings


NEIGHBOURS = 4  # shown on either side of a node


def nodes_table(findings: "Findings") -> Table:
    """The nodes around the first past the tolerance, or around the one with the largest error."""
    from wmdeploy.benchmarks.render.terminal import new_table

    nodes, shown = findings.nodes, findings.shown
    table = new_table(
        f"{findings.graph}: {findings.backend} ({findings.precision}) against PyTorch's float32, "
        f"{len(nodes)} nodes",
        "errors are relative: largest difference / largest value; accumulated: from the graph's "
        "inputs on; own: of the node alone, given PyTorch's values",
        ("", "op", "name", "in the model"),
        ("shape", "accumulated", "own"),
    )
    for column in table.columns:
        column.overflow = "fold"  # a name that is cut cannot be looked up
        column.no_wrap = column.justify == "right"
    for i in range(max(0, shown - NEIGHBOURS), min(len(nodes), shown + NEIGHBOURS + 1)):
        node = nodes[i]
        style = "bold red" if i == findings.culprit else "bold" if i == shown else ""
        table.add_row(
            ">" if i == shown else "",
            some(node.ops),
            node.name,
            f"{node.module}: {node.operation}",
            "x".join(map(str, node.shape)),
            f"{node.accumulated:.1e}",
            "" if node.own is None else f"{node.own:.1e}",
            style=style,
        )
    return table


def in_words(findings: "Findings") -> str:
    """What the errors of one graph come to, in one line."""
    node, tolerance = findings.nodes[findings.shown], f"{findings.tolerance:.2g}"
    if findings.culprit is None:
        return (
            f"{findings.graph}: no node is past {tolerance}; the largest error is "
            f"{node.accumulated:.1e}, at {_named(node)}"
        )
    said = (
        f"{findings.graph}: the first node past {tolerance} is {_named(node)}, "
        f"{_off(node.accumulated)}; "
    )
    faults = findings.faults
    others = some([_named(fault) for fault in faults if fault is not node])
    if node.own is not None and node in faults:
        said += f"given PyTorch's values it is {_off(node.own)}: the fault is in this node"
        return said + (f", and there are others in {others}" if others else "")
    if node.own is None:
        return (
            said + "the file does not state the types of its inputs, so the faulty node is unknown"
        )
    said += f"given PyTorch's values it is off by {node.own:.1e} only: errors before it add up"
    if others:
        return said + f"; nodes with a fault of their own: {others}"
    worst = findings.least_exact
    return said + f", the largest of one node {worst.own:.1e}, at {_named(worst)}"


def _off(error: float) -> str:
    return f"off by {error:.1e}" if error < math.inf else "not finite, misshapen, or does not run"


def _named(node: "Node") -> str:
    return f"{node.name} ({some(node.ops)} of {node.module})"
