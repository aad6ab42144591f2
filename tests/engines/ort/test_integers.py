"""Products with integer weights, beside the same in numpy."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from wmdeploy.engines.ort.cpu import cpu_session, rewrite_for_cpu
from wmdeploy.errors import BackendError
from wmdeploy.exporters import quantise as module
from wmdeploy.exporters.quantise import quantise_file
from wmdeploy.exporters.to_onnx import write_onnx
from wmdeploy.families import Graph
from wmdeploy.programs.contract import TensorSpec

WIDTH, OUTPUTS = 256, 48


class Rows(nn.Module):
    """x (B, K) -> (B, N), and (B, 3, K) -> (B, 3, N), by one layer each."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.many = nn.Linear(WIDTH, OUTPUTS), nn.Linear(WIDTH, OUTPUTS, bias=False)

    def forward(self, x: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        return self.one(x), self.many(rows)


@pytest.fixture
def graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Its file, with integers as weights."""
    monkeypatch.setattr(module, "LEAST", 1)
    torch.manual_seed(0)
    specs = [("x", (WIDTH,)), ("rows", (3, WIDTH))], [("y", (OUTPUTS,)), ("ys", (3, OUTPUTS))]
    inputs, outputs = (
        tuple(TensorSpec(name, "float32", ("B", *sizes)) for name, sizes in side) for side in specs
    )
    path = tmp_path / "rows.onnx"
    write_onnx(Graph(Rows().eval(), inputs, outputs), path, opset=21, max_batch=4)
    quantise_file(path, path, lambda layer: True)
    return path


def feeds(batch: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(batch)
    x = random.standard_normal((batch, WIDTH)) * 10.0 ** random.uniform(-3, 3, (batch, 1))
    x[0, :128] = 0  # a block of zeros
    rows = random.standard_normal((batch, 3, WIDTH))
    return {"x": x.astype(np.float32), "rows": rows.astype(np.float32)}


def expected(path: Path, given: dict[str, np.ndarray]) -> list[np.ndarray]:
    model = onnx.load(path)
    stored = {t.name: numpy_helper.to_array(t).astype(float) for t in model.graph.initializer}
    integers = [name for name in stored if name.endswith("/integers")]
    weights = []
    for name in integers:
        scales = stored[name.replace("/integers", "/scales")]
        weights.append(stored[name] * scales.repeat(module.BLOCK, 0))
    by_bias = {node.output[0]: node.input for node in model.graph.node if node.op_type == "Gemm"}
    (inputs,) = by_bias.values()
    one, many = sorted(zip(integers, weights, strict=True), key=lambda p: p[0][:-9] != inputs[1])
    return [given["x"] @ one[1] + stored[inputs[2]], given["rows"] @ many[1]]


@pytest.mark.parametrize("batch", [1, 4])
def test_products_are_those_of_the_stored_weights(graph: Path, batch: int) -> None:
    """Within 16 bits of what they are given, where ONNX Runtime alone has 8."""
    given = feeds(batch)
    got = cpu_session(graph).run(None, given)
    for mine, exact in zip(got, expected(graph, given), strict=True):
        assert mine.shape == exact.shape
        scale = np.abs(exact).max(-1, keepdims=True)
        assert (np.abs(mine - exact) / scale).max() < 3e-4


def test_a_strangers_product_is_refused(graph: Path) -> None:
    model = onnx.load(graph)
    gemm = next(node for node in model.graph.node if node.op_type == "Gemm")
    next(a for a in gemm.attribute if a.name == "transB").i = 1
    with pytest.raises(BackendError, match="Gemm of a kind that wmdeploy does not export"):
        rewrite_for_cpu(model)
