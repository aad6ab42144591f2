"""Nodes of a bundle's ONNX graph: the module and the operations of each, and what became of them.

torch.onnx leaves the module with each node that it writes. A runtime fuses nodes and adds its own:
`owners` says to which node of the file each of those that it runs belongs.
"""

import ast
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import onnx

from wmdeploy.bundle import Bundle
from wmdeploy.errors import BundleError

SCOPES, CLASSES = "pkg.torch.onnx.name_scopes", "pkg.torch.onnx.class_hierarchy"
# what ONNX Runtime puts before and behind the names of nodes and values that it makes of others
CAST, BLOCKED = "InsertedPrecisionFreeCast_", "_nchwc"


@dataclass(frozen=True)
class SourceNode:
    """A node of the file; `module` is its name in the model, `operations` None if unknown."""

    name: str
    module: str
    operations: int | None


def source_nodes(
    model: onnx.ModelProto, name_of: Callable[[str], str] | None
) -> dict[str, SourceNode]:
    """The nodes of a file by their names.

    Args:
        name_of: the name in the model of a path in the graph's own module; None: modules have that
            path behind the class of the graph's module, as "GraphStep.layers.0".
    """
    shapes = _shapes(model.graph)
    found = {}
    for node in model.graph.node:
        metadata = {entry.key: entry.value for entry in node.metadata_props}
        scopes, classes = (_names(metadata.get(key, "[]")) for key in (SCOPES, CLASSES))
        path = scopes[-2] if len(scopes) > 1 else ""  # the last one is the operation itself
        path = re.sub(r"@\d+", "", path)  # the second and later calls of a module
        if name_of is None:
            root = classes[0].split(".")[-1] if classes else model.graph.name
            module = f"{root}.{path}".removesuffix(".")
        else:
            module = name_of(path)
        found[node.name] = SourceNode(node.name, module, operations(node, shapes))
    return found


def names_in_model(bundle: Bundle, graph: str) -> Callable[[str], str]:
    """The names of modules as `wmdeploy bisect` has them; see `source_nodes`.

    Raises:
        BundleError: the bundle carries no model, or it was altered.
    """
    from wmdeploy.benchmarks.bisect.torch_values import module_name
    from wmdeploy.engines.pytorch.eager import bundled_model
    from wmdeploy.families import family_of

    model = bundled_model(bundle)
    sources = {id(module): name for name, module in model.named_modules()}
    own = family_of(model).deployment(model, bundle.manifest.recipe.layout, "fp32").graphs[graph]()

    def name_of(path: str) -> str:
        try:
            return module_name(own, path, sources)
        except AttributeError:
            raise BundleError(
                f"{bundle.path}: a node of {graph} names the module {path[:80]!r}, which its model "
                "does not have; export the model again"
            ) from None

    return name_of


def operations(node: onnx.NodeProto, shapes: Mapping[str, Sequence[int]]) -> int | None:
    """Of products and convolutions, as an export counts them; multiply-adds count as two.

    Args:
        shapes: of values at batch 1, by name.

    Returns:
        0 for other nodes; None where a shape is not known.
    """
    if node.op_type not in ("Conv", "ConvTranspose", "MatMul", "Gemm", "Attention"):
        return 0
    if not {*node.input[:2], node.output[0]} <= shapes.keys():
        return None
    first, second = (shapes[name] for name in node.input[:2])
    out = math.prod(shapes[node.output[0]])
    if node.op_type == "Conv":  # weights (out, in / groups, height, width)
        return 2 * out * math.prod(second[1:])
    if node.op_type == "ConvTranspose":  # weights (in, out / groups, height, width)
        return 2 * math.prod(first) * math.prod(second[1:])
    if (
        node.op_type == "Attention"
    ):  # queries by keys, and these by values; keys (..., tokens, size)
        return 2 * second[-2] * (math.prod(first) + out)
    transposed = any(a.name == "transA" and a.i for a in node.attribute)
    return 2 * out * (first[-2] if transposed else first[-1])


def owners(executed: Sequence[onnx.NodeProto], source: onnx.GraphProto) -> list[str | None]:
    """The node of the file that each executed one belongs to; None of what belongs to none.

    A node belongs to the one whose name it has, or whose value it gives; otherwise, as what is put
    between two, to the first behind it that takes its value.
    """
    makers = {name: node.name for node in source.node for name in node.output}
    names = {node.name for node in source.node}

    def direct(node: onnx.NodeProto) -> str | None:
        if (name := node.name.split("/")[0]) in names:
            return name
        # a blocked convolution is called after the value that it gave in the file
        made = [node.name.removesuffix(BLOCKED), *node.output]
        values = (name.removeprefix(CAST) for name in made)
        return next((makers[value] for value in values if value in makers), None)

    found = [direct(node) for node in executed]
    takers: dict[str, str] = {}  # by value, the owner of the first node that takes it
    for index in range(len(executed) - 1, -1, -1):  # those behind come first
        node = executed[index]
        if found[index] is None:
            found[index] = next((takers[name] for name in node.output if name in takers), None)
        if (owner := found[index]) is not None:
            takers |= dict.fromkeys(node.input, owner)
    return found


def _names(text: str) -> list[str]:
    """A list of names as the exporter writes it; of anything else, none."""
    try:
        names = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return []
    return [str(name) for name in names] if isinstance(names, list) else []


def _shapes(graph: onnx.GraphProto) -> dict[str, list[int]]:
    """Of all values at batch 1, the one size that is not a number; others are left out."""
    shapes = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    for value in (*graph.value_info, *graph.input, *graph.output):
        dims = value.type.tensor_type.shape.dim
        if all(dim.HasField("dim_value") or dim.dim_param.isidentifier() for dim in dims):
            shapes[value.name] = [1 if dim.dim_param else dim.dim_value for dim in dims]
    return shapes
