"""The large linear layers of a graph with weights in 8 bits, a float scale for each block.

Block-wise and symmetric: of each output, `BLOCK` weights that follow each other share a scale, and
a weight is scale · integer, with integers from -127 to 127. Nothing that is computed becomes an
integer in the graph: `DequantizeLinear` gives the floats back, and runtimes take it together with
the product behind it.
"""

import ast
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from wmdeploy.errors import ExportError

BLOCK = 128  # weights of a scale; 64 cost 1% of the bytes more, 256 cost 3 dB and more
LARGEST = 127  # of the integers
# Values from which on a weight is worth it. Smaller ones lie in a cache, and are often those that a
# rollout runs through again and again: in 8 bits they save little, and move its frames most.
LEAST = 2**22
LINEAR = "target=torch.ops.aten.linear.default]"  # as torch.onnx notes it of a node


@dataclass(frozen=True)
class Layer:
    """A linear layer of a graph whose weight may be stored as integers.

    Attributes:
        name: of the module in the graph's module: "layers.0.feedforward.3".
        weight: name of the tensor.
        transposed: the tensor is (outputs, inputs), else (inputs, outputs).
    """

    name: str
    weight: str
    transposed: bool


def quantise(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A weight as integers and scales: weight ≈ scales.repeat(BLOCK, 0) · integers.

    Each weight is off by half its scale at most. A scale is the block's largest magnitude over the
    largest integer, in the weight's type, and rounded up where it would be too small.

    Args:
        weight: (K, N) float32 or float16, finite; K is a multiple of `BLOCK`.

    Returns:
        Integers (K, N) int8, and scales (K / BLOCK, N) of the weight's type.
    """
    blocks = weight.reshape(-1, BLOCK, weight.shape[1]).astype(np.float32)
    peaks = np.abs(blocks).max(1)
    scales = (peaks / LARGEST).astype(weight.dtype)
    low = scales.astype(np.float32) * LARGEST < peaks
    scales[low] = np.nextafter(scales[low], np.inf, dtype=weight.dtype)
    scales[scales == 0] = 1  # of a block of zeros
    blocks /= scales[:, None].astype(np.float32)
    np.clip(np.rint(blocks, out=blocks), -LARGEST, LARGEST, out=blocks)
    return blocks.astype(np.int8).reshape(weight.shape), scales


def find_layers(model: onnx.ModelProto) -> Iterator[Layer]:
    """The layers that are worth it: linear ones whose weight has `LEAST` values and more.

    Embeddings, convolutions, norms and biases stay as they are; so does what a product that is no
    layer reads, such as a codebook, whose distances decide codes, and a weight whose inputs are no
    multiple of `BLOCK`.
    """
    readers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
    for node in model.graph.node:
        for name in node.input:
            readers[name].append(node)
    floats = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)
    for tensor in model.graph.initializer:
        nodes = readers[tensor.name]
        if len(tensor.dims) != 2 or tensor.data_type not in floats or not nodes:
            continue
        turned = {_reads_transposed(node, tensor.name) for node in nodes}
        if np.prod(tensor.dims) < LEAST or None in turned or len(turned) != 1:
            continue
        transposed = True in turned
        if tensor.dims[1 if transposed else 0] % BLOCK == 0:
            yield Layer(_module_name(nodes[0]), tensor.name, transposed)


def quantise_layers(
    model: onnx.ModelProto, chosen: Callable[[Layer], bool] = lambda layer: True
) -> None:
    """Store the weights of layers as integers, in place.

    Args:
        model: with its weights in memory.
    """
    layers = list(filter(chosen, find_layers(model)))
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes: list[onnx.NodeProto] = []
    for layer in layers:
        tensor = tensors[layer.weight]
        weight = numpy_helper.to_array(tensor)
        integers, scales = quantise(weight.T if layer.transposed else weight)
        parts = [f"{layer.weight}/{part}" for part in ("integers", "scales")]
        model.graph.initializer.remove(tensor)
        for part, values in zip(parts, (integers, scales), strict=True):
            model.graph.initializer.append(numpy_helper.from_array(values, part))
        name = f"{layer.weight}/floats"  # TensorRT takes no node that is called as its tensor is
        node = helper.make_node(
            "DequantizeLinear", parts, [layer.weight], name=name, axis=0, block_size=BLOCK
        )
        nodes.append(node)
        for reader in model.graph.node:
            if layer.transposed and layer.weight in reader.input:
                next(a for a in reader.attribute if a.name == "transB").i = 0
    stored = {layer.weight for layer in layers}
    for value in [value for value in model.graph.value_info if value.name in stored]:
        model.graph.value_info.remove(value)  # it may be transposed now
    nodes += model.graph.node
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def quantise_file(source: Path, path: Path, chosen: Callable[[Layer], bool]) -> None:
    """The same of the graph in a file, to another file or the same, weights in `<path>.data`.

    Raises:
        ExportError: onnx.checker refuses what comes of it.
    """
    model = onnx.load(source)
    quantise_layers(model, chosen)
    Path(f"{path}.data").unlink(missing_ok=True)  # onnx.save would write behind what is there
    onnx.save(model, path, save_as_external_data=True, location=f"{path.name}.data")
    try:
        onnx.checker.check_model(path, full_check=True)
    except onnx.checker.ValidationError as error:
        raise ExportError(f"{path.stem}: onnx.checker refuses the graph: {error}") from error


def quantise_files(paths: Sequence[Path], float_layers: Sequence[str] = ()) -> None:
    """The same of all graphs of a bundle, but for the layers of these names.

    Raises:
        ExportError: as `quantise_file`; no graph has such a layer, or none of one of these names.
    """
    graphs = [onnx.load(path, load_external_data=False) for path in paths]
    names = {layer.name for graph in graphs for layer in find_layers(graph)}
    if not names:
        raise ExportError(
            f"weights: got int8, but no linear layer has {LEAST:,} weights and more, so there is "
            "nothing to gain; export with float weights"
        )
    if unknown := sorted(set(float_layers) - names):
        raise ExportError(
            f"float_layers: got {unknown[0]!r}, expected one of {', '.join(sorted(names))}"
        )
    for path in paths:
        quantise_file(path, path, lambda layer: layer.name not in float_layers)


def layer_bytes(paths: Sequence[Path]) -> int:
    """What the weights of those layers take in some graphs' files, shared ones once."""
    found: dict[tuple[str, str], int] = {}
    for path in paths:
        model = onnx.load(path, load_external_data=False)
        tensors = {tensor.name: tensor for tensor in model.graph.initializer}
        for layer in find_layers(model):
            tensor = tensors[layer.weight]
            place = {entry.key: entry.value for entry in tensor.external_data}
            key = place.get("location", path.name), place.get("offset", tensor.name)
            size = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)).itemsize
            found[key] = size * int(np.prod(tensor.dims))
    return sum(found.values())


def _reads_transposed(node: onnx.NodeProto, weight: str) -> bool | None:
    """How a linear layer reads its weight; None: the node is no such layer."""
    notes = {entry.key.rpartition(".")[2]: entry.value for entry in node.metadata_props}
    if LINEAR not in notes.get("fx_node", "") or list(node.input).index(weight) != 1:
        return None
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    if node.op_type == "MatMul":
        return False
    return bool(attributes.get("transB")) if node.op_type == "Gemm" else None


def _module_name(node: onnx.NodeProto) -> str:
    """Of the module whose layer a node is, as torch.onnx notes it: ['', 'project', 'linear'].

    That of the node where another program wrote the graph, and noted nothing.
    """
    notes = {entry.key.rpartition(".")[2]: entry.value for entry in node.metadata_props}
    try:
        *modules, _ = ast.literal_eval(notes["name_scopes"])
        return str(modules[-1])
    except (KeyError, IndexError, TypeError, ValueError, SyntaxError):
        return node.name
