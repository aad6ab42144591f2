"""What a stage runs."""

import dataclasses
from collections.abc import Mapping

import numpy as np
import pytest

from tests.benchmarks.worker.drawn import drawn_backend
from tests.conftest import MICRO, Bundles
from wmdeploy.benchmarks.stages import StageName
from wmdeploy.benchmarks.worker.rollouts import Rollout
from wmdeploy.benchmarks.worker.timing import measure
from wmdeploy.benchmarks.worker.workloads import (
    engine_stage,
    fed_back,
    graph_behind,
    record_feeds,
    running,
    session_stage,
    stage_names,
)
from wmdeploy.clips.clip import Clip
from wmdeploy.engines.base import load_backend
from wmdeploy.families.reference.graphs import baseline_deployment, deployment
from wmdeploy.families.reference.world_model import WorldModel
from wmdeploy.programs.arrays import NUMPY
from wmdeploy.programs.contract import BATCH, Call, Programs, Shape, TensorSpec
from wmdeploy.programs.engine import Backend, FixedMemory
from wmdeploy.programs.modules import module_backend
from wmdeploy.programs.record import recording
from wmdeploy.programs.session import Session

S = MICRO.temporal.context


def modules(model: WorldModel) -> Backend:
    return module_backend(deployment(model, "token", "fp32"), name="modules")


def baseline(model: WorldModel) -> Backend:
    return module_backend(baseline_deployment(model), name="baseline")


@pytest.mark.parametrize("context", [1, S])
def test_session_stages_run_the_graphs_of_one_step(
    micro: WorldModel, frames: np.ndarray, context: int
) -> None:
    kind, calls = modules(micro), list[str]()
    for name, engine in kind.engines.items():
        inner = engine.run
        engine.run = lambda f, i=None, n=name, r=inner: (calls.append(n), r(f, i))[1]  # type: ignore
    rollout = Rollout(Session(kind), frames, None, context)
    rollout.reset()
    calls.clear()
    filling = S - max(1, min(context, S - 2)) - 1
    first = "step" if context == 1 else "prefill"  # one frame needs no cache
    # each timed step has one before it, off the clock; the window is full where it shall slide
    expected: dict[StageName, tuple[list[str], list[str]]] = {
        "imagine": ([], ["step", "step"] * 4),
        "slide": (["step"] * 2, ["prefill"] * 4),
        "frame": (["step"] * 2, ["prefill", "decoder"] * 4),
    }
    for name, (before, timed) in expected.items():
        calls.clear()
        workload = session_stage(rollout, name)
        filled = [first, *["step"] * (filling - 1)] if name == "imagine" else []
        setup = [call for call in calls if call != "encoder"]
        assert setup == [*filled, *before]  # the window is filled once
        calls.clear()
        measure(workload, 4)
        assert calls == timed


@pytest.mark.parametrize("context", [1, S])
def test_graphs_are_fed_what_a_full_window_asks(
    micro_actions: WorldModel, clip: Clip, context: int
) -> None:
    kind = modules(micro_actions)
    feeds = record_feeds(kind, Rollout(Session(kind), clip.frames, clip.actions, context))
    assert feeds.keys() == kind.engines.keys()
    for name, engine in kind.engines.items():
        given = {s.name: feeds[name][s.name].shape[s.batch_axis] for s in engine.inputs}
        assert set(given.values()) == {1} and given.keys() == feeds[name].keys()
    assert feeds["step"]["position"].tolist() == [S - 1]
    assert feeds["prefill"]["length"].tolist() == [S]
    assert feeds["step"]["keys"].abs().amin((0, 1, 2, 4))[:-1].all()  # of all frames before it
    assert (feeds["encoder"]["frames"][0].numpy() == clip.frames[-1]).all()
    assert feeds["decoder"]["hidden"].any()
    own = baseline(micro_actions)
    feeds = record_feeds(own, Rollout(Session(own), clip.frames, clip.actions, context))
    assert feeds["prefill"]["length"].tolist() == [S]


def test_baseline_has_the_whole_window_where_the_bundle_has_a_step(
    micro: WorldModel, frames: np.ndarray, bundles: Bundles
) -> None:
    own, manifest = baseline(micro), bundles().manifest
    sessions = ["frame", "imagine", "slide"]
    assert stage_names(own, manifest) == ["encoder", "prefill", "step", "decoder", *sessions]
    assert stage_names(load_backend("ort-cpu", bundles()), manifest) == stage_names(own, manifest)
    assert graph_behind("step", own.programs, manifest.programs) == "prefill"
    feeds = record_feeds(own, Rollout(Session(own), frames, None, 3))
    assert len(measure(engine_stage(own, feeds, "prefill"), 2).wall) == 2


def test_baseline_has_no_stage_for_a_part_of_what_it_does_at_once(
    micro: WorldModel, bundles: Bundles
) -> None:
    own, bundled = baseline(micro).programs, bundles().manifest.programs
    (step,) = bundled.predict
    often = dataclasses.replace(step, times=16)
    more = Call("begin", {}, {})
    for predict in ((often,), (more, step)):
        looped = dataclasses.replace(bundled, predict=predict)
        assert graph_behind("step", own, looped) is None
    assert graph_behind("begin", own, bundled) is None
    several = dataclasses.replace(own, predict=(more, *own.predict))
    assert graph_behind("step", several, bundled) is None


@pytest.mark.parametrize("name", ["imagine", "slide", "frame"])
def test_stages_of_a_model_without_a_window_are_steps(frames: np.ndarray, name: StageName) -> None:
    kind, calls = drawn_backend(), list[str]()
    clip = np.ascontiguousarray(frames[:9, ::8, ::8])
    rollout = Rollout(Session(recording(kind, lambda n, f, o: calls.append(n))), clip, None, 8)
    workload = session_stage(rollout, name)
    calls.clear()
    measure(workload, 3)
    assert calls == {"frame": ["prior", "decoder"], "slide": ["prior"]}.get(name, ["prior"] * 2) * 3
    feeds = record_feeds(kind, rollout)
    assert list(feeds) and feeds.keys() == kind.engines.keys()
    for graph in kind.engines:
        measure(engine_stage(kind, feeds, graph), 2)


ONE: Shape = (BATCH, 1)
COUNTING = Programs(
    context=4,
    keep=4,
    state=(TensorSpec("sum", "float32", ONE), TensorSpec("count", "int64", ONE)),
    encode=(Call("encode", {"frame": "frame"}, {}),),
    predict=(
        Call(
            "add",
            {"sum": "state.sum", "count": "state.count", "by": "newest.x"},
            {"state.sum": "next_sum", "state.count": "next_count"},
        ),
    ),
)


class Bound:
    """Adds, and notes the addresses that it reads and writes."""

    name = "add"
    inputs: tuple[TensorSpec, ...] = (
        TensorSpec("sum", "float32", ONE),
        TensorSpec("count", "int64", ONE),
    )
    outputs: tuple[TensorSpec, ...] = (
        TensorSpec("next_sum", "float32", ONE),
        TensorSpec("next_count", "int64", ONE),
    )

    def __init__(self) -> None:
        self.places: list[tuple[int, int]] = []
        self.seen: list[tuple[float, int]] = []

    def run(
        self, feeds: Mapping[str, np.ndarray], into: Mapping[str, np.ndarray] | None = None
    ) -> dict[str, np.ndarray]:
        self.seen.append((feeds["sum"].item(), feeds["count"].item()))
        outputs = {"next_sum": feeds["sum"] + feeds["by"], "next_count": feeds["count"] + 1}
        for name, place in (into or {}).items():
            place[:] = outputs[name]
            outputs[name] = place
        self.places.append((id(feeds["sum"]), id(outputs["next_sum"])))
        return outputs

    def synchronize(self) -> None: ...

    def close(self) -> None: ...


@pytest.mark.parametrize("bound", [False, True])
def test_state_that_a_graph_gives_is_fed_to_it_again(bound: bool) -> None:
    """But for a count, which would run past the window; and in two places that take turns."""
    engine = Bound()
    kind = Backend(
        name="x",
        precision="fp32",
        device="cpu",
        arrays=NUMPY,
        engines={"add": engine},
        programs=COUNTING,
        encode_batch=1,
        memory=FixedMemory(NUMPY) if bound else None,
    )
    assert fed_back(COUNTING, "add") == {"sum": "next_sum"}
    two = np.full((1, 1), 2, np.float32)
    run = running(kind, "add", {"sum": two, "count": np.array([[3]]), "by": two})
    for _ in range(4):
        run()
    assert engine.seen == [(2, 3), (4, 3), (6, 3), (8, 3)]
    if bound:
        (first, second), *others = engine.places
        assert first != second
        assert others == [(second, first), (first, second), (second, first)]
