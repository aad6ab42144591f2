"""The error of a node, alone and with those before it."""

import math

import pytest
import torch

from tests.benchmarks.bisect.faults import ACTED, Exact, examined
from tests.conftest import Bundles
from wmdeploy.benchmarks.bisect import node_errors
from wmdeploy.benchmarks.bisect.node_errors import error
from wmdeploy.benchmarks.bisect.onnx_values import OnnxValues
from wmdeploy.benchmarks.bisect.run import examine
from wmdeploy.benchmarks.bisect.torch_values import Operation


def test_portions_change_no_error(
    bundles: Bundles, exact: Exact, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Codes are chosen in one portion and looked up in another."""
    intact = bundles(*ACTED)
    whole = examined(intact, intact, "encoder", exact)
    monkeypatch.setattr(node_errors, "BYTES_AT_ONCE", 1e5)
    pytorch, feeds = exact(intact, "encoder")
    tested = OnnxValues(intact, "encoder", "ort-cpu", pytorch.operations)
    calls, run = [], tested.run

    def counted(feeds: dict[str, torch.Tensor], names: list[str]) -> dict[str, torch.Tensor]:
        calls.append(len(names))
        return run(feeds, names)

    monkeypatch.setattr(tested, "run", counted)
    parts = examine(pytorch, tested, feeds, 1e-3)
    assert len(calls) > 5 and sum(calls) == len(whole.nodes)
    for one, other in zip(whole.nodes, parts.nodes, strict=True):
        assert one.accumulated == pytest.approx(other.accumulated, abs=1e-5)


def test_choices_are_judged_by_what_they_cost() -> None:
    def of(kind: str) -> Operation:
        return Operation("x", kind, f"aten.{kind}.default", "", "")

    distances = torch.tensor([[4.0, 1.0, 1.001, -8.0 + 16]])
    best = torch.tensor([1])
    cost = {i: error(of("argmin"), torch.tensor([i]), best, (distances, -1)) for i in range(4)}
    assert cost[1] == 0 and cost[2] == pytest.approx(0.001 / 8, rel=1e-3)
    assert cost[0] == pytest.approx(3 / 8) and cost[3] == pytest.approx(7 / 8)
    assert error(of("argmin"), torch.tensor([4]), best, (distances, -1)) == math.inf
    half = torch.tensor([0.499, 100.0])
    up, down = torch.tensor([1.0, 100.0]), torch.tensor([0.0, 100.0])
    assert error(of("round"), up, down, (half,)) == pytest.approx(1e-5, rel=1e-3)
    assert error(of("round"), up + 1, down, (half,)) == pytest.approx(0.01001, rel=1e-3)
    cut = torch.tensor([0.2, 8.99999, -1.5])
    whole = torch.tensor([0, 8, -1], dtype=torch.int8)
    assert error(of("_to_copy"), whole, whole, (cut,)) == 0
    above = torch.tensor([0, 9, -1], dtype=torch.int8)
    assert error(of("_to_copy"), above, whole, (cut,)) == pytest.approx(1e-5 / 9, rel=0.1)
    assert error(of("_to_copy"), above - 2, whole, (cut,)) == pytest.approx(2.2 / 9, rel=1e-4)
    assert error(of("_to_copy"), above.float(), whole.float(), (cut,)) == pytest.approx(1 / 8)
    values = torch.tensor([1.0, -math.inf, 2.0])
    assert error(of("add"), values, values, ()) == 0
    assert error(of("add"), torch.tensor([1.0, -math.inf, 2.5]), values, ()) == 0.25
    assert error(of("add"), torch.tensor([math.nan, -math.inf, 2.0]), values, ()) == math.inf
    assert error(of("add"), torch.tensor([1.0, 0.0, 2.0]), values, ()) == math.inf
    assert error(of("add"), values[:2], values, ()) == math.inf
    assert error(of("eq"), torch.tensor([True]), torch.tensor([False]), ()) == 1
