"""Engines with fixed buffers, as on a GPU: never stale, and nothing is copied that need not be."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from tests.conftest import MICRO, future_pixels
from tests.engines.test_backends import assert_same_pixels, modules
from wmdeploy.engines.devices import CPU
from wmdeploy.engines.pytorch.cudagraph import run_into
from wmdeploy.engines.static import Bind, Buffers, Launch, StaticEngine
from wmdeploy.families.reference.graphs import deployment
from wmdeploy.families.reference.world_model import WorldModel
from wmdeploy.programs.contract import state_inputs
from wmdeploy.programs.engine import Backend, FixedMemory, powers_of_two
from wmdeploy.programs.session import Session

S = MICRO.temporal.context


def static_engines(model: WorldModel, layout: str = "token") -> Backend:
    """Engines with fixed buffers, as on a GPU; the programs run the modules on the CPU."""
    deployed = deployment(model, layout, "fp32")
    kind = modules(model, layout)

    def bind_to(module: torch.nn.Module) -> Bind:
        def bind(inputs: Buffers, outputs: Buffers) -> Launch:
            return lambda: run_into(module, inputs, outputs)

        return bind

    engines = {}
    for name, build in deployed.graphs.items():
        graph = build()
        engines[name] = StaticEngine(
            name=name,
            inputs=graph.inputs,
            outputs=graph.outputs,
            state=state_inputs(deployed.programs, name),
            device=CPU,
            bind=bind_to(graph.module),
        )
    return dataclasses.replace(
        kind,
        name="static",
        engines=engines,
        encode_batch=1,
        buckets=powers_of_two(None),
        memory=FixedMemory(kind.arrays),
    )


@pytest.mark.parametrize("layout", ["token", "latent"])
def test_fixed_buffers_never_show_a_stale_cache(
    micro: WorldModel, frames: np.ndarray, layout: str
) -> None:
    """After a reset, after the window slides, and when two sessions alternate."""
    kind = static_engines(micro, layout)
    sessions = [Session(kind), Session(kind), Session(kind, refill=2)]
    alike = dataclasses.replace(modules(micro, layout), encode_batch=1)
    steady = [Session(alike, refill=refill) for refill in (None, None, 2)]
    for start in (0, 15):
        for i, (session, other) in enumerate(zip(sessions, steady, strict=True)):
            session.reset(frames[start + i : start + i + 3])
            other.reset(frames[start + i : start + i + 3])
        for t in range(2 * S):
            for session, other in zip(sessions, steady, strict=True):
                if t == 4:
                    session.observe(frames[30])
                    other.observe(frames[30])
                np.testing.assert_array_equal(session.step(), other.step())


def test_sessions_of_other_batches_share_fixed_buffers(
    micro: WorldModel, frames: np.ndarray
) -> None:
    kind = static_engines(micro)
    alone, pair = Session(kind), Session(kind, batch=2)
    alone.reset(frames[:3])
    pair.reset(frames[:3], rows=[0])
    pair.reset(frames[10:12], rows=[1])
    expected = future_pixels(micro, frames[:3], S)
    for t in range(S):
        one = alone.step()
        assert_same_pixels(one, expected[t : t + 1])
        assert_same_pixels(pair.step()[:1], one)


def test_cache_changes_sides_without_a_copy(micro: WorldModel, frames: np.ndarray) -> None:
    places: list[tuple[int, int]] = []

    def tell(name: str, feeds: Buffers, outputs: Buffers) -> None:
        if name == "step":
            places.append((feeds["keys"].data_ptr(), outputs["next_keys"].data_ptr()))

    session = Session(telling(static_engines(micro), tell))
    session.reset(frames[:2])
    session.imagine(4)
    (a, b), *others = places
    assert a != b and others == [(b, a), (a, b)]


def telling(backend: Backend, tell: Callable[[str, Buffers, Buffers], None]) -> Backend:
    """The same backend, whose engines tell of each run where it reads and writes."""
    for name, engine in backend.engines.items():

        def told(
            feeds: Buffers, into: Buffers | None = None, name: str = name, run: Any = engine.run
        ) -> Buffers:
            outputs: Buffers = run(feeds, into)
            tell(name, feeds, outputs)
            return outputs

        engine.run = told  # type: ignore[method-assign, assignment]
    return backend


def test_new_session_takes_the_buffers_of_one_that_is_over(
    micro: WorldModel, frames: np.ndarray
) -> None:
    """What was bound for it, such as a CUDA graph, is not bound again."""
    bound = []
    kind = static_engines(micro)
    for name, engine in kind.engines.items():
        assert isinstance(engine, StaticEngine)
        bind = engine._bind
        engine._bind = lambda i, o, n=name, b=bind: (bound.append(n), b(i, o))[1]  # type: ignore
    for _ in range(3):
        session = Session(kind)
        session.reset(frames[:3])
        session.imagine(2 * S)
        session.reset(frames[:3])
        session.imagine(2 * S)
        del session
    assert sorted(bound) == ["encoder", "prefill", "prefill", "step", "step"]


def test_frames_that_were_given_stay_as_they_are(micro: WorldModel, frames: np.ndarray) -> None:
    session = Session(static_engines(micro))
    session.reset(frames[:3])
    first = session.step()
    kept = first.copy()
    assert not np.array_equal(session.step(), first)
    np.testing.assert_array_equal(first, kept)
