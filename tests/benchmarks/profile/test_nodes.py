"""What profilers note of runs, put together; and what they refuse."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from wmdeploy.benchmarks.profile.nodes import TimedNode, summarise
from wmdeploy.benchmarks.profile.onnxruntime_nodes import OnnxRuntimeGraph
from wmdeploy.benchmarks.profile.pytorch_nodes import MODULE, RUN, nodes_of
from wmdeploy.errors import BackendError


def timed(name: str, ms: float, start: float = 0.0) -> TimedNode:
    return TimedNode(name=name, operation="Add", module="m", start_ms=start, ms=ms)


def test_nodes_have_the_median_of_all_runs_and_the_times_of_one() -> None:
    runs = [
        [timed("a", 1.0, 0.1), timed("b", 5.0, 1.0)],
        [timed("a", 3.0, 0.2), timed("b", 4.0, 3.0)],
        [timed("a", 2.0, 0.3), timed("b", 9.0, 2.0)],
    ]
    first, second = summarise(runs, typical=1)
    assert (first.ms, first.start_ms, first.run_ms) == (2.0, 0.2, 3.0)
    assert (second.ms, second.start_ms, second.run_ms) == (5.0, 3.0, 4.0)


def test_nodes_of_one_name_are_told_apart_and_one_that_is_missing_took_nothing() -> None:
    runs = [[timed("k", 1.0), timed("k", 7.0)], [timed("k", 3.0)], [timed("k", 2.0)]]
    first, second = summarise(runs, typical=1)
    assert (first.ms, second.ms, second.start_ms) == (2.0, 0.0, None)


def graph(folder: Path, events: list[dict[str, Any]], on_gpu: bool) -> OnnxRuntimeGraph:
    path = folder / "nodes.json"
    path.write_text(json.dumps(events))
    engine: Any = SimpleNamespace(name="step")
    return OnnxRuntimeGraph(engine, lambda: path, on_gpu=on_gpu, operations=["Add"], sources=[None])


def event(kind: str, name: str, **more: Any) -> dict[str, Any]:
    return {"cat": kind, "name": name, "ts": 10, "dur": 4, "args": {"op_name": "Add"}} | more


RUN_EVENT = event("Session", "model_run", ts=8, dur=9)


def test_a_build_that_times_no_kernels_is_refused(tmp_path: Path) -> None:
    events = [event("Node", "a_kernel_time"), RUN_EVENT]
    with pytest.raises(BackendError, match="step: this build of ONNX Runtime times no kernels"):
        graph(tmp_path, events, on_gpu=True).end()
    ((node,),) = graph(tmp_path, events, on_gpu=False).end()
    assert (node.name, node.ms, node.start_ms, node.module) == ("a", 0.004, 0.002, "")


def test_other_nodes_than_the_graph_has_are_refused(tmp_path: Path) -> None:
    events = [event("Node", "a"), event("Node", "b"), RUN_EVENT]
    with pytest.raises(BackendError, match="timed other nodes than the graph has .* 2, expected 1"):
        graph(tmp_path, events, on_gpu=False).end()


def test_a_damaged_profile_is_refused(tmp_path: Path) -> None:
    damaged = graph(tmp_path, [], on_gpu=False)
    (tmp_path / "nodes.json").write_text("[{")
    with pytest.raises(BackendError, match="step: ONNX Runtime's profile cannot be read"):
        damaged.end()


def ran(name: str, start: float, us: float, *children: Any, kernels: float = 0.0) -> Any:
    """An event of torch's profiler."""
    return SimpleNamespace(
        name=name,
        time_range=SimpleNamespace(start=start, elapsed_us=lambda: us),
        cpu_children=list(children),
        kernels=[SimpleNamespace(name="kernel", duration=kernels)] if kernels else [],
    )


def test_operations_of_torch_belong_to_the_innermost_module() -> None:
    inner = ran(f"{MODULE}net.0", 102, 5, ran("aten::conv2d", 103, 4, ran("aten::mm", 104, 2)))
    compiled = ran("Torch-Compiled Region: 0/0", 107, 3, ran("aten::add", 108, 1))
    outer = ran(f"{MODULE}net", 101, 8, compiled, inner)
    nodes = list(nodes_of(ran(RUN, 100, 10, outer), "decoder", on_gpu=False))
    assert [(n.module, n.name, n.start_ms, n.ms) for n in nodes] == [
        ("net.0", "aten::conv2d", 0.003, 0.004),
        ("net", "aten::add", 0.008, 0.001),
    ]


def test_on_a_gpu_kernels_count_wherever_they_were_launched() -> None:
    conv = ran("aten::conv2d", 3, 9, ran("aten::cudnn", 4, 1, kernels=50), kernels=20)
    idle = ran("aten::view", 5, 9)
    run = ran(RUN, 0, 10, ran(f"{MODULE}net", 1, 8, conv, idle), kernels=30)
    nodes = list(nodes_of(run, "decoder", on_gpu=True))
    assert [(n.module, n.name, n.ms) for n in nodes] == [
        ("decoder", "kernel", 0.03),
        ("net", "aten::conv2d", 0.07),
    ]
