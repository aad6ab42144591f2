"""What runtimes that cannot be installed everywhere can run: lists that are checked in.

`cuda.json` has every kernel of ONNX Runtime's CUDA provider, `tensorrt.json` every operator of the
parser of TensorRT 10.1 with its types (docs/operators.md of onnx-tensorrt); later ones have more.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
from onnx import defs

FOLDER = Path(__file__).parent
CUDA: dict[str, Any] = json.loads((FOLDER / "cuda.json").read_text())
TENSORRT: dict[str, Any] = json.loads((FOLDER / "tensorrt.json").read_text())


def nodes_without_cuda_kernel(model: onnx.ModelProto) -> Iterator[str]:
    """Each node, with its types, that ONNX Runtime would leave to the CPU."""
    types, opsets = _types(model), {o.domain: o.version for o in model.opset_import}
    for node in model.graph.node:
        schema = defs.get_schema(node.op_type, opsets[""], "") if not node.domain else None
        version = 1 if schema is None else schema.since_version
        kernels = CUDA["kernels"].get(f"{node.domain or 'ai.onnx'}::{node.op_type}", [])
        kinds = {} if schema is None else _constraints(node, schema, types)
        if not any(_takes(kernel, version, kinds) for kernel in kernels):
            yield f"{node.op_type}-{version} {kinds}"


def nodes_without_tensorrt(model: onnx.ModelProto) -> Iterator[str]:
    """Each node, with its types, that TensorRT's parser has no layer for."""
    types = _types(model)
    for node in model.graph.node:
        known = TENSORRT["operators"].get(node.op_type, [])
        floats = {types.get(name, "") for name in (*node.input, *node.output) if name}
        if node.domain or not known or not floats - {""} <= set(known) | _FREE:
            yield f"{node.op_type} {sorted(floats)}"


# an operator's conditions, indices and shapes are not what its types are about
_FREE = {"bool", "int64"}


def _types(model: onnx.ModelProto) -> dict[str, str]:
    """The element type of every value by ONNX's names, such as "float16"."""
    inferred = onnx.shape_inference.infer_shapes(model).graph
    types = {
        value.name: value.type.tensor_type.elem_type
        for value in (*inferred.value_info, *inferred.input, *inferred.output)
    } | {value.name: value.data_type for value in inferred.initializer}
    for node in model.graph.node:  # of foreign operators nothing is inferred
        if node.domain:
            types.setdefault(node.output[0], types[node.input[0]])
    return {name: onnx.TensorProto.DataType.Name(kind).lower() for name, kind in types.items()}


def _constraints(
    node: onnx.NodeProto, schema: defs.OpSchema, types: dict[str, str]
) -> dict[str, str]:
    """The type that a node has for each of its operator's type parameters."""
    kinds = {}
    for names, formals in ((node.input, schema.inputs), (node.output, schema.outputs)):
        for i, name in enumerate(names):
            formal = formals[min(i, len(formals) - 1)]  # the last may be variadic
            if name:
                kinds[formal.type_str] = types[name]
    return kinds


def _takes(kernel: dict[str, Any], version: int, kinds: dict[str, str]) -> bool:
    until = kernel["until"] or version
    fits = all(kinds[name] in allowed for name, allowed in kernel["types"].items() if name in kinds)
    return kernel["since"] <= version <= until and fits
