"""What a stage runs."""

import numpy as np
import pytest

from tests.conftest import MICRO
from tests.engines.test_backends import modules
from wmdeploy.benchmarks.stages import StageName
from wmdeploy.benchmarks.worker.rollouts import Rollout
from wmdeploy.benchmarks.worker.timing import measure
from wmdeploy.benchmarks.worker.workloads import session_stage
from wmdeploy.engines.session import Session
from wmdeploy.models.world_model import WorldModel

S = MICRO.temporal.context


@pytest.mark.parametrize("context", [1, S])
def test_session_stages_run_the_graphs_of_one_step(
    micro: WorldModel, frames: np.ndarray, context: int
) -> None:
    kind, calls = modules(micro), []
    for name, engine in kind.engines.items():
        inner = engine.run
        engine.run = lambda f, n=name, r=inner: (calls.append(n), r(f))[1]  # type: ignore
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
