"""One graph to one ONNX file with its weights beside it. Knows torch.onnx, and no model."""

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from wmdeploy import __version__
from wmdeploy.errors import ExportError
from wmdeploy.families import Graph
from wmdeploy.programs.contract import BATCH, TensorSpec

if TYPE_CHECKING:
    import onnx_ir as ir

SAMPLE_BATCH = 2  # torch.export specialises sizes 0 and 1


def translate(graph: Graph, *, opset: int, max_batch: int) -> torch.onnx.ONNXProgram:
    """A module as an ONNX program in memory, with the trace that it was made from.

    Raises:
        ExportError: torch.onnx cannot express the module.
    """
    batch = torch.export.Dim("batch", min=1, max=max(max_batch, SAMPLE_BATCH))
    with _quiet():
        try:
            program = torch.onnx.export(
                graph.module,
                tuple(_sample(spec) for spec in graph.inputs),
                input_names=[spec.name for spec in graph.inputs],
                output_names=[spec.name for spec in graph.outputs],
                dynamic_shapes=graph.dynamic_shapes(batch),
                opset_version=opset,
                dynamo=True,
                verbose=False,
            )
        except torch.onnx.errors.OnnxExporterError as error:
            cause = str(error.__cause__ or error).strip().splitlines()[0]
            raise ExportError(f"torch.onnx cannot export it: {cause}") from error
    assert program is not None  # None only with dynamo=False
    return program


def write_onnx(
    graph: Graph, path: Path, *, opset: int, max_batch: int, about: Mapping[str, str] | None = None
) -> None:
    """Export a module as `path` and its weights as `<path>.data`; the batch alone is dynamic.

    Args:
        about: what the file tells of itself to people and programs that have no manifest; ONNX
            Runtime gives it as `get_modelmeta().custom_metadata_map`.

    Raises:
        ExportError: torch.onnx cannot express the module, or the file is not what was described.
    """
    import onnx
    import onnx_ir as ir

    try:
        program = translate(graph, opset=opset, max_batch=max_batch)
    except ExportError as error:
        raise ExportError(f"{path.stem}: {error}") from error
    for node in program.model.graph:
        # paths of the machine that exported; the names of modules stay, `wmdeploy bisect` has them
        node.metadata_props.pop("pkg.torch.onnx.stack_trace", None)
        if node.op_type == "Attention":  # otherwise a float16 graph's softmax is float16 too
            float32 = onnx.TensorProto.FLOAT
            node.attributes["softmax_precision"] = ir.AttrInt64("softmax_precision", float32)
    _introduce(program.model, path.stem, graph, about or {})
    program.save(path, external_data=True)
    try:
        onnx.checker.check_model(path, full_check=True)  # by path: reads weights above 2 GB too
    except onnx.checker.ValidationError as error:
        raise ExportError(f"{path.stem}: onnx.checker refuses the graph: {error}") from error
    model = onnx.load(path, load_external_data=False)
    _check_signature(path.stem, model.graph.input, graph.inputs)
    _check_signature(path.stem, model.graph.output, graph.outputs)


def _introduce(model: "ir.Model", name: str, graph: Graph, about: Mapping[str, str]) -> None:
    """Let the file explain itself, in Netron and in plain ONNX Runtime."""
    inputs = ", ".join(f"{spec.name}: {spec}" for spec in graph.inputs)
    outputs = ", ".join(f"{spec.name}: {spec}" for spec in graph.outputs)
    model.graph.name = name
    model.doc_string = f"{name} of a world model, a graph of wmdeploy: {inputs} -> {outputs}"
    model.producer_name, model.producer_version = "wmdeploy", __version__
    model.metadata_props.update({"graph": name, "wmdeploy": __version__, **about})


def _sample(spec: TensorSpec) -> Tensor:
    shape = [SAMPLE_BATCH if size == BATCH else size for size in spec.shape]
    return torch.ones(shape, dtype=getattr(torch, spec.dtype))


def _check_signature(graph: str, values: object, expected: tuple[TensorSpec, ...]) -> None:
    """The file's inputs or outputs are those of the contract, in name, dtype and shape."""
    import onnx

    described = []
    for value in values:  # type: ignore[attr-defined]
        tensor = value.type.tensor_type
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name
        shape = tuple(d.dim_value if d.HasField("dim_value") else BATCH for d in tensor.shape.dim)
        described.append(f"{value.name}: {dtype} {shape}")
    wanted = [f"{spec.name}: {spec.dtype} {spec.shape}" for spec in expected]
    if described != wanted:
        raise ExportError(f"{graph}: the ONNX file has {described}, expected {wanted}")


@contextmanager
def _quiet() -> Iterator[None]:
    """Without torch.onnx's notices (no torchvision, renamed dimensions): nothing to act on."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
