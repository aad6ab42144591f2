"""The session, on any engines: windows, rows, observed frames, fixed buffers, misuse."""

import dataclasses

import numpy as np
import pytest
import torch

from tests.conftest import MICRO, Bundles, future_pixels
from tests.engines.test_backends import assert_same_pixels, modules
from wmdeploy.engines.base import Backend, load_backend
from wmdeploy.engines.devices import CPU
from wmdeploy.engines.pytorch.cudagraph import run_into
from wmdeploy.engines.pytorch.eager import baseline
from wmdeploy.engines.session import Session
from wmdeploy.engines.static import Bind, Buffers, Launch, StaticEngine, feedback_of
from wmdeploy.errors import BackendError
from wmdeploy.manifest import Layout
from wmdeploy.models.graphs import deployment
from wmdeploy.models.world_model import WorldModel

S = MICRO.temporal.context


@pytest.mark.parametrize("context", [1, 4, S, S + 3])
def test_any_context_length_gives_the_baselines_frames(
    micro: WorldModel, frames: np.ndarray, context: int
) -> None:
    expected = future_pixels(micro, frames[:context], S)
    for kind in (baseline(micro), modules(micro)):
        session = Session(kind)
        session.reset(frames[:context])
        imagined = np.concatenate([session.step() for _ in range(S)])
        assert_same_pixels(imagined, expected)


def test_step_runs_until_the_window_is_full_and_the_prefill_after(
    micro: WorldModel, frames: np.ndarray
) -> None:
    kind, calls = modules(micro), []
    for name, engine in kind.engines.items():
        run = engine.run
        engine.run = lambda f, n=name, r=run: (calls.append(n), r(f))[1]  # type: ignore
    session = Session(kind)
    session.reset(frames[:4])
    session.imagine(5)
    assert calls == ["encoder", "prefill", "step", "step", "prefill", "prefill"]


def test_refill_is_the_documented_policy(micro: WorldModel, frames: np.ndarray) -> None:
    keep, horizon = 3, 9
    tokens = list(micro.encode(torch.tensor(frames[None, :4]))[0][0])  # latents, (L,) each
    window, expected = list(tokens), []
    for _ in range(horizon):
        if len(window) > S:
            window = window[-keep:]
        following = micro.temporal_model(torch.stack(window)[None])[0, -1]
        expected.append(following)
        window.append(following)
    for kind in (modules(micro, "latent"), baseline(micro)):
        session = Session(kind, refill=keep)
        session.reset(frames[:4])
        for want in expected:
            session.advance()
            assert session._rendered is not None
            torch.testing.assert_close(session._rendered[0], want, rtol=1e-3, atol=1e-4)


def test_imagine_is_step_without_rendering(micro: WorldModel, frames: np.ndarray) -> None:
    a, b = Session(modules(micro)), Session(modules(micro))
    a.reset(frames[:4])
    b.reset(frames[:4])
    for _ in range(7):
        last = a.step()
    b.imagine(7)
    np.testing.assert_array_equal(b.render(), last)


def test_observed_frame_takes_the_place_of_the_imagined_one(
    micro: WorldModel, frames: np.ndarray
) -> None:
    session, told = Session(modules(micro)), Session(modules(micro))
    session.reset(frames[:4])
    predicted = session.step()
    for t in range(4, 4 + 2 * S):  # one stream, far past the window
        session.observe(frames[t])
        told.reset(frames[: t + 1])
        following = session.step()
        assert_same_pixels(following, told.step())
        assert not np.array_equal(following, predicted)
        predicted = following


def test_observing_without_a_step_moves_time_on(micro: WorldModel, frames: np.ndarray) -> None:
    session, told = Session(modules(micro)), Session(modules(micro))
    session.reset(frames[:2])
    for t in range(2, 10):
        session.observe(frames[t])
    told.reset(frames[:10])
    assert_same_pixels(session.step(), told.step())


def test_rows_are_observed_on_their_own(micro: WorldModel, frames: np.ndarray) -> None:
    """Row 0 goes on from what it imagined; row 1 has just begun, and sees two real frames."""
    session = Session(modules(micro), batch=2)
    session.reset(frames[:3])
    session.step()
    session.reset(frames[10:12], rows=[1])
    session.observe(frames[12], rows=[1])
    session.observe(frames[13:14], rows=[1])
    together = session.step()
    assert_same_pixels(together[:1], future_pixels(micro, frames[:3], 2)[1:])
    assert_same_pixels(together[1:], future_pixels(micro, frames[10:14], 1))


def test_session_survives_engines_that_reuse_their_outputs(
    micro: WorldModel, frames: np.ndarray
) -> None:
    """As engines with static buffers do: two sets, the older one is overwritten."""
    kind = modules(micro)
    for engine in kind.engines.values():
        run, kept = engine.run, [{}, {}]  # type: ignore[var-annotated]

        def reuse(feeds, run=run, kept=kept):  # type: ignore[no-untyped-def]
            kept.reverse()
            for name, value in run(feeds).items():
                kept[0].setdefault(name, value.clone()).copy_(value)
            return kept[0]

        engine.run = reuse  # type: ignore[method-assign]
    session, steady = Session(kind), Session(modules(micro))
    for start in (0, 15):
        session.reset(frames[start : start + 3])
        steady.reset(frames[start : start + 3])
        for _ in range(2 * S):
            np.testing.assert_array_equal(session.step(), steady.step())


def static_engines(model: WorldModel, layout: Layout = "token") -> Backend:
    """Engines with fixed buffers, as on a GPU; the programs run the modules on the CPU."""
    deployed = deployment(model, layout, "fp32")

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
            feedback=feedback_of(name, deployed.wiring),
            device=CPU,
            bind=bind_to(graph.module),
        )
    return Backend(
        name="static",
        precision="fp32",
        device=CPU,
        engines=engines,
        wiring=deployed.wiring,
        encode_batch=8,
    )


@pytest.mark.parametrize("layout", ["token", "latent"])
def test_fixed_buffers_never_show_a_stale_cache(
    micro: WorldModel, frames: np.ndarray, layout: Layout
) -> None:
    """After a reset, after the window slides, and when two sessions alternate."""
    kind = static_engines(micro, layout)
    sessions = [Session(kind), Session(kind), Session(kind, refill=2)]
    steady = [Session(modules(micro, layout), refill=refill) for refill in (None, None, 2)]
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
    kind = static_engines(micro)
    session = Session(kind)
    session.reset(frames[:2])
    session.step()
    places = []
    copies = []
    for _ in range(3):
        given = dict(session._cache)
        session.advance()
        places.append(session._cache["keys"].data_ptr())
        copies.append(given["keys"].data_ptr() == session._cache["keys"].data_ptr())
    assert places[0] == places[2] != places[1] and not any(copies)


def test_encoder_sees_batches_of_the_session_and_no_other(
    micro: WorldModel, frames: np.ndarray
) -> None:
    """Where each batch size costs a captured graph."""
    kind = dataclasses.replace(modules(micro), encode_batch=1)
    encoder, sizes = kind.engines["encoder"], []
    run = encoder.run
    encoder.run = lambda feeds: (sizes.append(len(feeds["frames"])), run(feeds))[1]  # type: ignore
    session = Session(kind, batch=2)
    session.reset(frames[:3])
    session.observe(frames[3])
    assert sizes == [2, 2, 2, 2]


def test_frames_that_were_given_stay_as_they_are(micro: WorldModel, frames: np.ndarray) -> None:
    session = Session(static_engines(micro))
    session.reset(frames[:3])
    first = session.step()
    kept = first.copy()
    assert not np.array_equal(session.step(), first)
    np.testing.assert_array_equal(first, kept)


def test_rows_at_different_points_do_not_disturb_each_other(
    micro: WorldModel, frames: np.ndarray
) -> None:
    session = Session(modules(micro), batch=3)
    starts, contexts = (0, 10, 20), (2, 4, S)
    alone = []
    for row, (start, context) in enumerate(zip(starts, contexts, strict=True)):
        clip = frames[start : start + context]
        session.reset(clip, rows=[row])
        alone.append(future_pixels(micro, clip, 2 * S))
    for t in range(2 * S):
        together = session.step()
        for row in range(3):
            assert_same_pixels(together[row], alone[row][t])
        if t == 5:  # one row starts anew while the others go on
            session.reset(frames[30:33], rows=[1])
            alone[1] = np.concatenate(
                [alone[1][:6], future_pixels(micro, frames[30:33], 2 * S)], axis=0
            )


def test_snapshot_goes_back_exactly(micro: WorldModel, frames: np.ndarray) -> None:
    session = Session(modules(micro))
    session.reset(frames[:3])
    session.step()
    before = session.snapshot()
    first = [session.step() for _ in range(5)]
    for _ in range(2):
        session.restore(before)
        for frame in first:
            np.testing.assert_array_equal(session.step(), frame)


@pytest.mark.parametrize("name", ["eager", "ort-cpu"])
def test_actions_reach_every_graph(
    bundles: Bundles, micro_actions: WorldModel, frames: np.ndarray, name: str
) -> None:
    actions = np.arange(30) % 3
    session = Session(load_backend(name, bundles(actions=True)))
    session.reset(frames[:4], actions[:3])
    imagined = np.concatenate([session.step(int(actions[3 + t])) for t in range(2 * S)])
    expected = future_pixels(micro_actions, frames[:4], 2 * S, actions[: 4 + 2 * S - 1])
    assert_same_pixels(imagined, expected)
    session.reset(frames[:4], actions[:3])
    other = np.concatenate([session.step(1) for _ in range(2 * S)])
    assert not np.array_equal(imagined, other)


@pytest.mark.parametrize(
    ("misuse", "message"),
    [
        (lambda s, f: s.step(), "call reset first"),
        (lambda s, f: s.reset(f[0]), "reset: got frames"),
        (lambda s, f: s.reset(f[:4].astype(np.float32)), "got float32 .*expected uint8"),
        (lambda s, f: s.reset(f[:4, :16]), r"got uint8 \(4, 16, 32, 3\), expected uint8"),
        (lambda s, f: (s.reset(f[:4]), s.render()), "nothing predicted yet"),
        (lambda s, f: (s.reset(f[:4]), s.step(action=1)), "takes no actions"),
        (lambda s, f: s.reset(f[:4], np.zeros(3, np.int64)), "takes no actions"),
        (
            lambda s, f: s.reset(f[:4], rows=[2]),
            r"got rows \[2\], expected different ones",
        ),
        (lambda s, f: (s.reset(f[:4]), s.observe(f[:2])), "got 2 frames, expected one for 1 rows"),
        (lambda s, f: s.restore(Session(s.backend, batch=2).snapshot()), "another kind of session"),
    ],
)
def test_misuse_is_explained(
    micro: WorldModel, frames: np.ndarray, misuse: object, message: str
) -> None:
    with pytest.raises(BackendError, match=message):
        misuse(Session(modules(micro)), frames)  # type: ignore[operator]


def test_missing_and_foreign_actions_are_explained(
    micro_actions: WorldModel, frames: np.ndarray
) -> None:
    session = Session(modules(micro_actions))
    with pytest.raises(BackendError, match="takes the action at each frame but the last"):
        session.reset(frames[:4])
    with pytest.raises(BackendError, match="got actions 0 to 7, expected 0 to 2"):
        session.reset(frames[:4], np.array([0, 7, 1]))
    with pytest.raises(BackendError, match=r"got actions int64 \(4,\), expected integers \(1, 3\)"):
        session.reset(frames[:4], np.array([0, 1, 1, 2]))  # one too many: which frame is it of?
    session.reset(frames[:4], np.array([0, 1, 1]))
    with pytest.raises(BackendError, match="got actions float64"):
        session.step(1.5)  # type: ignore[arg-type]
    with pytest.raises(BackendError, match=r"imagine: got actions \(2,\), expected \(3,\)"):
        session.imagine(3, np.array([0, 1]))
    with pytest.raises(BackendError, match="conditioned on actions; give one per row"):
        session.step()
    with pytest.raises(BackendError, match="got actions 3 to 3"):
        session.step(3)


def test_batch_above_the_exported_one_is_refused(bundles: Bundles) -> None:
    with pytest.raises(BackendError, match="batch: got 5, expected 1 to 4, as the bundle was"):
        Session(load_backend("ort-cpu", bundles()), batch=5)


@pytest.mark.parametrize("refill", [0, S])
def test_refill_out_of_range_is_refused(micro: WorldModel, refill: int) -> None:
    with pytest.raises(BackendError, match=f"refill: got {refill}, expected 1 to {S - 1}"):
        Session(modules(micro), refill=refill)
