"""Where inside a graph a backend leaves PyTorch: the first node past the tolerance.

Each value of the bundle's ONNX graph, as the backend runs it (`onnx_values`), is compared with what
eager PyTorch computes in float32 from the bundle's model (`pytorch_values`), so nothing of the file
under test is believed. The accumulated error is of the graph run from its inputs, some of its
values at a time, so that memory stays bounded; a node's own error is of that node alone, given
PyTorch's values. A fault shows in both, rounding that adds up in the first alone. Values that are
asked for are not fused away, so what only a fusion gets wrong is not found.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from wmdeploy.benchmarks.bisect.node_errors import Comparison, Node
from wmdeploy.bundle import Bundle
from wmdeploy.clips.clip import Clip
from wmdeploy.clips.read import read_clip
from wmdeploy.clips.source import ReadOptions
from wmdeploy.codes import CodeCount
from wmdeploy.errors import BundleError, WmdeployError
from wmdeploy.manifest import Exactness
from wmdeploy.progress import Progress, silent

if TYPE_CHECKING:
    from torch import Tensor, nn

    from wmdeploy.benchmarks.bisect.onnx_values import OnnxValues
    from wmdeploy.benchmarks.bisect.torch_values import PytorchValues

TOLERANCES: dict[Exactness, float] = {"fp32": 1e-3, "fp16": 3e-2, "int8": 5e-2}
FRAMES = 4  # of the clip; a rollout repeats them
TRACERS = ("torch", "onnxscript")  # they decide how values are named


@dataclass(frozen=True, kw_only=True)
class BisectOptions:
    """`graphs`: names, none for all; `tolerance`: relative, None for that of the precision."""

    bundle: Path
    clip: Path
    backend: str = "ort-cpu"
    graphs: tuple[str, ...] = ()
    tolerance: float | None = None
    read: ReadOptions = ReadOptions()


@dataclass(frozen=True, kw_only=True)
class Findings:
    """One graph, its nodes in the order of the file.

    `culprit` is the index of the first whose accumulated error is past `tolerance`, None if none
    is. `codes` are those of an encoder, beside PyTorch's.
    """

    graph: str
    backend: str
    precision: str  # in words: "fp32 with int8 weights"
    tolerance: float
    nodes: tuple[Node, ...]
    culprit: int | None
    warnings: tuple[str, ...] = ()
    codes: CodeCount | None = None

    @property
    def shown(self) -> int:
        """Index of the culprit, or else of the node with the largest accumulated error."""
        if self.culprit is not None:
            return self.culprit
        return max(range(len(self.nodes)), key=lambda i: self.nodes[i].accumulated)

    @property
    def faults(self) -> list[Node]:
        """The nodes that are past the tolerance given PyTorch's values."""
        return [node for node in self.nodes if (node.own or 0) > self.tolerance]

    @property
    def least_exact(self) -> Node:
        """The node with the largest error of its own, up to the culprit if there is one."""
        upto = None if self.culprit is None else self.culprit + 1
        return max(self.nodes[:upto], key=lambda node: node.own or 0)


def bisect(options: BisectOptions, progress: Progress = silent) -> Iterator[Findings]:
    """Compare a bundle's graphs with PyTorch, node by node; one graph after the other.

    Raises:
        WmdeployError: the tolerance is not a positive number, or the clip does not fit the model.
        BackendError: the backend is none of ONNX Runtime's, or cannot run a graph.
        BundleError: the bundle is damaged, has no such graph, or carries no model.
        ExportError: torch.export does not reproduce the model.
    """
    from wmdeploy.benchmarks.bisect.onnx_values import OnnxValues, check_backend
    from wmdeploy.benchmarks.bisect.torch_values import PytorchValues
    from wmdeploy.engines.pytorch.eager import bundled_model
    from wmdeploy.families import family_of

    bundle = Bundle.open(options.bundle)
    recipe = bundle.manifest.recipe
    tolerance = TOLERANCES[recipe.exactness] if options.tolerance is None else options.tolerance
    if not 0 < tolerance < math.inf:
        raise WmdeployError(f"tolerance: got {tolerance}, expected a number above 0, as 1e-3")
    check_backend(options.backend)
    graphs = tuple(dict.fromkeys(options.graphs)) or tuple(bundle.manifest.graphs)
    for graph in graphs:
        bundle.checked_graph(graph)
    progress("load", 0, 2, "the model")
    model = bundled_model(bundle)
    progress("load", 1, 2, "what PyTorch computes from real frames")
    size = family_of(model).facts(model).image_size
    clip = read_clip(options.clip, size=size, count=FRAMES, options=options.read)
    feeds = recorded_feeds(model, bundle, clip)
    versions = tuple(_other_versions(recipe.tools))
    warnings = (*clip.remarks, *versions)
    for graph in graphs:
        if graph not in feeds:
            raise BundleError(f"graphs: no program runs {graph}, choose others")
        progress(graph, 0, 1, "trace")
        exact = PytorchValues(model, recipe, graph)
        tested = OnnxValues(bundle, graph, options.backend, exact.operations, bool(versions))
        yield examine(
            exact,
            tested,
            feeds=feeds[graph],
            tolerance=tolerance,
            progress=progress,
            warnings=warnings,
        )


def examine(
    exact: "PytorchValues",
    tested: "OnnxValues",
    feeds: "Mapping[str, Tensor]",
    tolerance: float,
    progress: Progress = silent,
    warnings: tuple[str, ...] = (),
) -> Findings:
    """Compare one graph; arguments and errors as of `bisect`."""
    comparison = Comparison(exact, tested, feeds)
    progress(exact.graph, 0, 1, "each node alone")
    comparison.measure_own()
    done = 0
    for rows in comparison.portions():
        done += len(rows)
        progress(exact.graph, done, comparison.size, f"from the inputs to {rows[-1].name}")
        comparison.measure_accumulated(rows)
    nodes = tuple(comparison.nodes())
    past = (i for i, node in enumerate(nodes) if not node.accumulated <= tolerance)
    return Findings(
        graph=exact.graph,
        backend=tested.backend,
        precision=exact.types,
        tolerance=tolerance,
        nodes=nodes,
        culprit=next(past, None),
        warnings=warnings,
        codes=comparison.codes,
    )


def recorded_feeds(
    model: "nn.Module", bundle: Bundle, clip: Clip
) -> "dict[str, dict[str, Tensor]]":
    """What each graph that runs is asked in a rollout of real frames, by graph and input.

    It is of the last run with two rows, or else of the last one.
    """
    import torch

    from wmdeploy.families.cases import record_model
    from wmdeploy.programs.record import ROWS

    manifest = bundle.manifest
    programs = manifest.programs
    actions = clip.check_actions(programs.num_actions, programs.action_size)
    recorded = record_model(model, manifest.recipe.layout, clip.frames, actions)
    feeds = {}
    for name, cases in ((name, cases) for name, cases in recorded.items() if cases):
        inputs = manifest.graphs[name].inputs
        first = inputs[0]
        together = [c for c in cases if c.feeds[first.name].shape[first.batch_axis] == ROWS]
        case = (together or cases)[-1]
        feeds[name] = {
            spec.name: torch.from_numpy(case.feeds[spec.name].astype(spec.dtype)) for spec in inputs
        }
    return feeds


def _other_versions(tools: dict[str, str]) -> Iterator[str]:
    for name in TRACERS:
        here, there = metadata.version(name), tools.get(name, "an unknown version")
        if here != there:
            yield (
                f"the bundle was exported with {name} {there}, here is {here}: nodes whose names "
                "or operations changed are shown as part of the next one that is known"
            )
