"""The graphs of a site: operators that browsers have, float32, and the bundle's answers."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import onnx
import pytest

from tests.conftest import Bundles
from wmdeploy.bundle import Bundle
from wmdeploy.engines.base import load_backend
from wmdeploy.errors import ExportError
from wmdeploy.exporters.site.graphs import HALF, _check, write_graphs
from wmdeploy.exporters.verify import OnnxEngine
from wmdeploy.graph_file import WEIGHTS_FILE
from wmdeploy.manifest import Precision
from wmdeploy.programs.contract import TensorSpec
from wmdeploy.programs.record import Case, record_cases

NAMES = ("prefill", "step", "decoder")
Cases = dict[str, list[Case]]


def cases_of(bundle: Bundle, frames: np.ndarray) -> Cases:
    return record_cases(load_backend("ort-cpu", bundle), frames, None)


def kinds(model: onnx.ModelProto) -> Sequence[int]:
    """The element types of all values that are computed."""
    graph = model.graph
    values = [
        v.type.tensor_type.elem_type for v in (*graph.input, *graph.output, *graph.value_info)
    ]
    return [*values, *(a.i for node in graph.node for a in node.attribute if a.name == "to")]


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_graphs_answer_what_the_bundles_do(
    bundles: Bundles, frames: np.ndarray, precision: Precision, tmp_path: Path
) -> None:
    bundle = bundles(precision=precision)
    written, engines = write_graphs(bundle, NAMES, cases_of(bundle, frames), tmp_path)
    assert set(written) == set(engines) == set(NAMES)
    for name in NAMES:
        model = onnx.load(tmp_path / written[name].file, load_external_data=False)
        left = {node.op_type for node in model.graph.node}
        assert not left & {"GroupNormalization", "Attention", "Round"}
        assert HALF not in kinds(model)
        assert any(tensor.data_type == HALF for tensor in model.graph.initializer)
        assert all(spec.dtype != "float16" for spec in written[name].inputs)
    files = {path.name for path in tmp_path.iterdir()}
    assert files <= {*(f"{name}.onnx" for name in NAMES), WEIGHTS_FILE}
    if precision == "fp32":
        halves = sum(path.stat().st_size for path in tmp_path.iterdir())
        assert halves < bundle.manifest.files[WEIGHTS_FILE].bytes


def test_graph_that_answers_otherwise_is_refused(
    bundles: Bundles, frames: np.ndarray, tmp_path: Path
) -> None:
    bundle = bundles()
    cases = cases_of(bundle, frames)
    (name, value), *_ = cases["step"][0].outputs.items()
    wrong = replace(cases["step"][0], outputs={**cases["step"][0].outputs, name: value + 1})
    with pytest.raises(ExportError, match=f'step: for a browser, output "{name}" differs by'):
        write_graphs(bundle, NAMES, {**cases, "step": [wrong]}, tmp_path)


def codes(name: str, values: Sequence[int]) -> tuple[OnnxEngine, Case]:
    """A graph that gives its numbers back, and what it should have given."""
    spec = TensorSpec("codes", "int64", ("B", len(values)))
    engine = cast(
        OnnxEngine,
        SimpleNamespace(
            name=name, inputs=(spec,), outputs=(spec,), run=lambda feeds: {"codes": feeds["codes"]}
        ),
    )
    given = np.full((1, len(values)), 7)
    return engine, Case({"codes": given}, {"codes": np.array([values])})


def test_codes_are_counted_not_measured() -> None:
    _check(*codes("far", [7] * 99 + [500]))
    with pytest.raises(ExportError, match='"codes" agrees in 0.0%, expected 95% at least'):
        _check(*codes("none", [8] * 100))
