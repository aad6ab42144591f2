"""Where inside a graph a backend leaves PyTorch: bisect."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from wmdeploy.cli.common import Clip, Fit, FitName, Fps, Series, err, example, out, read_options
from wmdeploy.clips.read import SAMPLE_CLIP
from wmdeploy.files import check_output, write_document

if TYPE_CHECKING:
    from wmdeploy.benchmarks.bisect.node_errors import Node
    from wmdeploy.benchmarks.bisect.run import Findings

commands = typer.Typer()
NEIGHBOURS = 4  # shown on either side of a node
OTHERS = 3  # faults besides the first that are named
SCHEMA = 1  # of the JSON document


@commands.command(epilog=example("wmdeploy bisect bundles/pong --graph decoder"))
def bisect(
    bundle: Annotated[Path, typer.Argument(help="A bundle with its model, not a slim one.")],
    backend: Annotated[
        str, typer.Option(help="ort-cpu, ort-cuda or ort-tensorrt: they show values inside.")
    ] = "ort-cpu",
    graph: Annotated[
        list[str] | None,
        typer.Option(help="encoder, prefill, step or decoder; repeat to choose; default all."),
    ] = None,
    tolerance: Annotated[
        float | None,
        typer.Option(help="Largest relative error; default 1e-3, for fp16 bundles 3e-2."),
    ] = None,
    clip: Clip = SAMPLE_CLIP,
    fps: Fps = None,
    fit: Fit = FitName.squeeze,
    series: Series = None,
    json: Annotated[Path | None, typer.Option(help="Write all nodes' errors here.")] = None,
) -> None:
    """Find the first node of an ONNX graph whose value is not PyTorch's; exits with 1 if any."""
    from wmdeploy.benchmarks.bisect.run import BisectOptions
    from wmdeploy.benchmarks.bisect.run import bisect as run_bisect

    if json:
        check_output(json, bundle, clip)
    read = read_options(fps, fit, series)
    options = BisectOptions(bundle, clip, backend, tuple(graph or ()), tolerance, read)
    found = []
    with err.status("bisect") as status:
        for findings in run_bisect(options, status.update):
            found.append(findings)
            out.print(nodes_table(findings))
            out.print(in_words(findings))
            if findings.codes is not None:
                out.print(f"{findings.graph}: {findings.codes}")
    for warning in dict.fromkeys(warning for findings in found for warning in findings.warnings):
        err.print(Text("warning: ", style="yellow").append(warning, style="default"))
    if json:
        write_document({"schema": SCHEMA, "bundle": str(bundle), "graphs": found}, json)
    if any(findings.culprit is not None for findings in found):
        raise typer.Exit(1)


def nodes_table(findings: "Findings") -> Table:
    """The nodes around the first past the tolerance, or around the one with the largest error."""
    from wmdeploy.benchmarks.render.format import narrow_table

    nodes, shown = findings.nodes, findings.shown
    table = narrow_table(
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
            " ".join(node.ops),
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
    others = [_named(fault) for fault in faults if fault is not node]
    listed = ", ".join(others[:OTHERS])
    if len(others) > OTHERS:
        listed += f" and {len(others) - OTHERS} more"
    if node.own is not None and node in faults:
        said += f"given PyTorch's values it is {_off(node.own)}: the fault is in this node"
        return said + (f", and there are others in {listed}" if others else "")
    if node.own is None:
        return said + "the file does not say the types that it takes, so not whose fault that is"
    said += f"given PyTorch's values it is off by {node.own:.1e} only: errors before it add up"
    if others:
        return said + f"; a fault of their own have {listed}"
    worst = findings.least_exact
    return said + f", the largest of one node {worst.own:.1e}, at {_named(worst)}"


def _off(error: float) -> str:
    return f"off by {error:.1e}" if error < math.inf else "not finite, misshapen, or does not run"


def _named(node: "Node") -> str:
    return f"{node.name} ({' '.join(node.ops)} of {node.module})"
