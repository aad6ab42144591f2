"""The session, on any engines: windows, rows, observed frames, misuse."""

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np
import pytest
import torch

from tests.conftest import MICRO, Bundles, future_pixels
from tests.engines.test_backends import assert_same_pixels, modules
from tests.engines.test_fixed_buffers import static_engines
from wmdeploy.engines.base import load_backend
from wmdeploy.engines.pytorch.eager import baseline
from wmdeploy.errors import BackendError
from wmdeploy.families.reference.world_model import WorldModel
from wmdeploy.programs.arrays import Array
from wmdeploy.programs.engine import Backend
from wmdeploy.programs.record import recording
from wmdeploy.programs.session import Session

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
    calls: list[str] = []
    session = Session(recording(modules(micro), lambda name, *tensors: calls.append(name)))
    session.reset(frames[:4])
    session.imagine(5)
    assert calls == ["encoder", "prefill", "step", "step", "prefill", "prefill"]


def test_row_that_starts_anew_costs_the_others_nothing(
    micro: WorldModel, frames: np.ndarray
) -> None:
    """It alone runs the prefill; once all have a cache, one step is of all rows again."""
    found: list[tuple[str, int]] = []

    def tell(name: str, feeds: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
        found.append((name, outputs["hidden"].shape[0] if "hidden" in outputs else 0))

    session = Session(recording(modules(micro), tell), batch=3)
    session.reset(frames[:3])
    session.step()
    session.reset(frames[10:12], rows=[1])
    del found[:]
    session.advance()
    session.advance()
    assert found == [("prefill", 1), ("step", 2), ("step", 3)]


def test_refill_is_the_documented_policy(micro: WorldModel, frames: np.ndarray) -> None:
    keep, horizon = 3, 9
    latents = list(micro.encode(torch.tensor(frames[None, :4]))[0][0])  # (L,) each
    window, expected = list(latents), []
    for _ in range(horizon):
        if len(window) > S:
            window = window[-keep:]
        following = micro.temporal_model(torch.stack(window)[None])[0, -1]
        expected.append(following)
        window.append(following)
    for kind in (modules(micro, "latent"), baseline(micro)):
        predicted: list[torch.Tensor] = []

        def tell(
            name: str,
            feeds: Mapping[str, torch.Tensor],
            outputs: Mapping[str, torch.Tensor],
            predicted: list[torch.Tensor] = predicted,
        ) -> None:
            if "next_latent" in outputs:
                predicted.append(outputs["next_latent"][0].clone())

        session = Session(recording(kind, tell), refill=keep)
        session.reset(frames[:4])
        session.imagine(horizon)
        for got, want in zip(predicted, expected, strict=True):
            torch.testing.assert_close(got, want, rtol=1e-3, atol=1e-4)


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


every_kind = pytest.mark.parametrize("make", [modules, static_engines])


def test_encoder_sees_batches_of_the_session_and_no_other(
    micro: WorldModel, frames: np.ndarray
) -> None:
    """Where each batch size costs a captured graph."""
    kind = dataclasses.replace(modules(micro), encode_batch=1)
    sizes = []

    def tell(name: str, feeds: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
        if name == "encoder":
            sizes.append(len(feeds["frames"]))

    session = Session(recording(kind, tell), batch=2)
    session.reset(frames[:3])
    session.observe(frames[3])
    assert sizes == [2, 2, 2, 2]


@every_kind
def test_rows_at_different_points_do_not_disturb_each_other(
    make: Callable[[WorldModel], Backend], micro: WorldModel, frames: np.ndarray
) -> None:
    session = Session(make(micro), batch=3)
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


@every_kind
def test_snapshot_goes_back_exactly(
    make: Callable[[WorldModel], Backend], micro: WorldModel, frames: np.ndarray
) -> None:
    session = Session(make(micro))
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
        (lambda s, f: s.reset(f[:4, :16]), r"got uint8 \(4, 16, 32, 3\), expected uint8 \(B"),
        (lambda s, f: (s.reset(f[:4]), s.render()), "nothing predicted yet"),
        (lambda s, f: (s.reset(f[:4]), s.step(action=1)), "takes no actions"),
        (lambda s, f: s.reset(f[:4], np.zeros(3, np.int64)), "takes no actions"),
        (
            lambda s, f: s.reset(f[:4], rows=[2]),
            r"got rows \[2\], expected different ones",
        ),
        (lambda s, f: (s.reset(f[:4]), s.observe(f[:2])), "got 2 frames, expected one for 1 rows"),
        (lambda s, f: s.restore(Session(s.backend, batch=2).snapshot()), "a snapshot of 2 rows"),
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
