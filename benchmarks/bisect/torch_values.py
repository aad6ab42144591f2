"""PyTorch's own value of each operation of a graph, in float32, by the name that ONNX gives it.

The graph's module is traced anew, as for an export, and the trace is interpreted: eager PyTorch,
one aten operation after another, with the model's float32 weights, also where the bundle is
float16. torch.onnx names values after those operations, which is how each is found in a bundle's
file; an operation that ONNX spells out in several nodes has its name at the last of them. That the
trace computes what the module computes is checked by their outputs. Knows no ONNX Runtime.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from wmdeploy.codes import Ties
from wmdeploy.errors import ExportError
from wmdeploy.exporters.to_onnx import translate
from wmdeploy.exporters.verify import TOLERANCES, compare
from wmdeploy.families import Graph, family_of
from wmdeploy.manifest import Recipe


@dataclass(frozen=True)
class Operation:
    """One aten operation of a trace.

    `name` is of its value in ONNX, `kind` such as "conv2d", `target` such as "aten.conv2d.default".
    `path` is of the innermost module in the graph's own module, `module` its name in the model that
    was exported; what belongs to neither has the graph module's class in it, as in
    "GraphStep.outward".
    """

    name: str
    kind: str
    target: str
    path: str
    module: str


# What was computed, its value, and what it was given -> the value to go on with.
Visit = Callable[[Operation, Tensor, tuple[Any, ...]], Tensor]


class PytorchValues:
    """The operations of one graph of a model, ready to be run on feeds.

    `gives_codes` says whether it is the graph that chooses the codes of real frames.
    """

    def __init__(self, model: nn.Module, recipe: Recipe, graph: str) -> None:
        self.graph, self.precision, self.types = graph, recipe.precision, recipe.types
        self._model, deployment = model, family_of(model).deployment
        deployed = deployment(model, recipe.layout, "fp32")
        self._exact = deployed.graphs[graph]()
        encoder, self._frames = deployed.programs.frame_input()
        self.gives_codes = graph == encoder and deployed.programs.codes_output() is not None
        traced = self._exact
        if recipe.precision != "fp32":
            traced = deployment(model, recipe.layout, recipe.precision).graphs[graph]()
        self._program = _trace(traced, recipe)
        sources = {id(module): name for name, module in model.named_modules()}
        self._operations = _operations(self._program, self._exact, sources)
        self.operations = {o.name: o for o in self._operations.values()}

    @torch.inference_mode()
    def run(self, feeds: Mapping[str, Tensor], visit: Visit) -> dict[str, Tensor]:
        """Compute everything, showing each value as it comes; none is kept longer than needed.

        Args:
            feeds: by input name; floating-point ones are taken as float32.
        """
        inputs = list(_inputs(self._program, self._exact, _widened(feeds)))
        results = _Float32(self._program.graph_module, self._operations, visit).run(*inputs)
        return {spec.name: r for spec, r in zip(self._exact.outputs, results, strict=True)}

    def find_ties(self, feeds: Mapping[str, Tensor], expected: Tensor, got: Tensor) -> Ties:
        """Which of the codes (B, N) that an encoder chose otherwise are ties."""
        frames = feeds[self._frames].numpy()
        find_ties = family_of(self._model).find_ties
        return find_ties(self._model, frames, expected.numpy(), got.numpy(), self.precision)

    @torch.inference_mode()
    def check(self, feeds: Mapping[str, Tensor], outputs: Mapping[str, Tensor]) -> None:
        """Compare what `run` gave with the module itself.

        Raises:
            ExportError: they differ, so the trace is not to be trusted.
        """
        given = _widened(feeds)
        results = self._exact.module(*(given[spec.name] for spec in self._exact.inputs))
        results = results if isinstance(results, tuple) else (results,)
        for spec, result in zip(self._exact.outputs, results, strict=True):
            expected = result.numpy()
            tolerance = TOLERANCES["fp32"][str(expected.dtype)]
            parity = compare(outputs[spec.name].numpy(), expected, tolerance)
            agreed = parity.agreement is None or parity.agreement >= tolerance
            if not agreed or (parity.agreement is None and not parity.relative <= tolerance):
                raise ExportError(
                    f"{self.graph}: torch.export's trace gives another {spec.name} than the module "
                    f"(relative {parity.relative:.2e}): a fault of torch {torch.__version__} that "
                    "exports share; try another version"
                )


class _Float32(fx.Interpreter):
    """Runs a trace with float32 wherever it says float16."""

    def __init__(
        self, module: fx.GraphModule, operations: Mapping[str, Operation], visit: Visit
    ) -> None:
        super().__init__(module)
        self._operations, self._visit = operations, visit

    def run_node(self, n: fx.Node) -> Any:
        given = self.fetch_args_kwargs_from_env(n)[0]
        value = super().run_node(n)
        if n.name not in self._operations:
            return value
        return self._visit(self._operations[n.name], value, tuple(given))

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        args = tuple(torch.float32 if a is torch.float16 else a for a in args)
        kwargs = {k: torch.float32 if v is torch.float16 else v for k, v in kwargs.items()}
        return super().call_function(target, args, kwargs)


def _trace(graph: Graph, recipe: Recipe) -> ExportedProgram:
    """The program that torch.onnx translates; values are named as in a file it writes."""
    program = translate(graph, opset=recipe.opset, max_batch=recipe.max_batch)
    assert program.exported_program is not None
    return program.exported_program


def _operations(
    program: ExportedProgram, graph: Graph, sources: Mapping[int, str]
) -> dict[str, Operation]:
    """By the name in the trace, every operation that gives one tensor."""
    signature = program.graph_signature
    outputs = [spec.name for spec in graph.outputs]
    renamed = dict(zip(signature.user_outputs, outputs, strict=True))
    operations = {}
    for node in program.graph.nodes:
        if node.op != "call_function" or not isinstance(node.meta.get("val"), Tensor):
            continue
        path = next(reversed(list(node.meta.get("nn_module_stack", {"": ("", "")}).values())))[0]
        target = str(node.target)
        operations[node.name] = Operation(
            renamed.get(node.name, node.name),
            target.split(".")[1] if "." in target else target,
            target,
            path,
            module_name(graph, path, sources),
        )
    return operations


def module_name(graph: Graph, path: str, sources: Mapping[int, str]) -> str:
    """The name in the model of the module at `path` in a graph's own, see `Operation`.

    Args:
        sources: names of the model's modules by their ids.
    """
    module = sources.get(id(graph.module.get_submodule(path)))
    return module or f"{type(graph.module).__name__}.{path}".removesuffix(".")


def _inputs(
    program: ExportedProgram, graph: Graph, feeds: Mapping[str, Tensor]
) -> Iterator[Tensor]:
    """What the trace's placeholders stand for, in order."""
    given = (feeds[spec.name] for spec in graph.inputs)
    for spec in program.graph_signature.input_specs:
        if spec.kind == InputKind.USER_INPUT:
            yield next(given)
        elif spec.kind == InputKind.PARAMETER:
            yield graph.module.get_parameter(str(spec.target))
        elif spec.kind == InputKind.BUFFER:
            yield graph.module.get_buffer(str(spec.target))
        else:
            constant = program.constants[str(spec.target)]
            yield constant.float() if constant.is_floating_point() else constant


def _widened(feeds: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {k: v.float() if v.is_floating_point() else v for k, v in feeds.items()}
