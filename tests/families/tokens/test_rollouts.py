"""Sessions of the token family beside a plain loop, past several starts from the newest frame."""

import numpy as np
import pytest
import torch

from tests.benchmarks.bench import quick
from tests.families.tokens.plain import SEED, PlainRollout
from wmdeploy.bundle import Bundle
from wmdeploy.clips.read import SAMPLE_CLIP, read_clip
from wmdeploy.engines.base import load_backend
from wmdeploy.families import load_bundled_model
from wmdeploy.families.tokens.family import TokensFamily
from wmdeploy.families.tokens.network import TokensModel
from wmdeploy.programs.engine import Backend
from wmdeploy.programs.modules import module_backend
from wmdeploy.programs.session import Session

FAMILY = TokensFamily()


def backend_of(name: str, model: TokensModel, bundle: Bundle) -> Backend:
    if name == "ort-cpu":
        return load_backend(name, bundle)
    if name == "baseline":
        return module_backend(FAMILY.baseline_deployment(model, "fp32"), name=name)
    return module_backend(FAMILY.deployment(model, "default", "fp32"), name=name)


@pytest.mark.parametrize("name", ["modules", "baseline", "ort-cpu"])
@torch.inference_mode()
def test_frames_are_those_of_a_plain_loop(
    name: str, tiny: TokensModel, tiny_bundle: Bundle
) -> None:
    """Two rows at different points, imagined over 2·S frames; then real frames after each."""
    context = tiny.config.transformer.frames - 1
    clip = read_clip(SAMPLE_CLIP, size=32, count=8)
    codes = tiny.tokenizer.encode(torch.from_numpy(clip.frames)).tolist()
    session = Session(backend_of(name, tiny, tiny_bundle), batch=2, seed=SEED)
    rows = [PlainRollout(tiny, stream) for stream in range(2)]
    session.reset(clip.frames[:1], rows=[0])
    session.reset(clip.frames[1:4], np.array([1, 3]), rows=[1])
    rows[0].take_in(codes[0])
    for at, action in ((1, None), (2, 1), (3, 3)):
        rows[1].take_in(codes[at], action)
    np.testing.assert_allclose(
        session.outputs()["logits"][1], rows[1].forced_logits(), atol=1e-5, rtol=0
    )
    seen = set()
    for step in range(2 * context + 4):
        actions = np.array([step % 4, (step + 1) % 3])
        frames = session.step(actions)
        outputs = session.outputs()
        for at, row in enumerate(rows):
            tokens, reward, end = row.predict(int(actions[at]))
            picture = tiny.tokenizer.decode(torch.tensor([tokens]))[0].numpy()
            assert np.abs(frames[at].astype(int) - picture).max() <= 1
            assert (outputs["reward"][at], outputs["end"][at]) == (reward, end)
            seen |= {("token", *tokens), ("reward", reward), ("end", end)}
        if step >= 2 * context:  # and what really came in place of it, which goes back in time
            real = [(step + at) % 8 for at in range(2)]
            session.observe(clip.frames[real])
            for row, frame in zip(rows, real, strict=True):
                row.sequence = row.sequence[: -row.k]
                row.clock += 1
                row.tokens = codes[frame]
                row.sequence += [("token", token) for token in codes[frame]]
            logits = session.outputs()["logits"]
            for at, row in enumerate(rows):
                np.testing.assert_allclose(logits[at], row.forced_logits(), atol=1e-5, rtol=0)
    assert {("reward", -1.0), ("reward", 0.0), ("reward", 1.0), ("end", 0), ("end", 1)} <= seen
    assert len([kind for kind, *_ in seen if kind == "token"]) > 2 * context


@torch.inference_mode()
def test_baseline_and_graphs_agree_where_a_session_keeps_several_frames(tiny: TokensModel) -> None:
    """The window has 3 frames then, and the cache the newest alone."""
    clip = read_clip(SAMPLE_CLIP, size=32, count=8)
    sessions = [
        Session(module_backend(deployed, name="modules"), batch=2, refill=3, seed=SEED)
        for deployed in (
            FAMILY.deployment(tiny, "default", "fp32"),
            FAMILY.baseline_deployment(tiny, "fp32"),
        )
    ]
    for session in sessions:
        session.reset(clip.frames[:1], rows=[0])
        session.reset(clip.frames[1:4], np.array([1, 3]), rows=[1])
    for step in range(16):
        actions = np.array([step % 4, (step + 1) % 3])
        ours, theirs = (session.step(actions) for session in sessions)
        assert np.abs(ours.astype(int) - theirs).max() <= 1
        if step % 5 == 4:
            for session in sessions:
                session.observe(clip.frames[step % 8])
        mine, other = (session.outputs() for session in sessions)
        for name in ("reward", "end"):
            np.testing.assert_array_equal(mine[name], other[name])
        np.testing.assert_allclose(mine["logits"], other["logits"], atol=1e-5, rtol=0)


def test_logits_are_not_uniform(tiny: TokensModel) -> None:
    """Or a wrong graph would draw what the noise alone says, and pass."""
    rollout = PlainRollout(tiny)
    rollout.take_in([1, 2, 3, 4])
    rollout.predict(0)
    assert float(rollout.head("observations", rollout.hidden()).std()) > 0.5


def test_the_model_in_a_bundle_is_the_one_that_was_exported(
    tiny: TokensModel, tiny_bundle: Bundle
) -> None:
    again = load_bundled_model(tiny_bundle.manifest, tiny_bundle.path / "model")
    assert again.config == tiny.config
    for name, tensor in tiny.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], tensor, rtol=0, atol=0)


def test_graphs_give_new_entries_and_not_the_cache(tiny_bundle: Bundle) -> None:
    manifest = tiny_bundle.manifest
    k = 4
    for graph, count in {"absorb": k + 1, "begin": 2, "token": 1}.items():
        shapes = {spec.name: spec.shape for spec in manifest.graphs[graph].outputs}
        assert shapes["new_keys_1"] == shapes["new_values_1"] == ("B", 2, count, 32)
    begin, token = manifest.programs.predict
    assert (begin.times, token.times) == (1, k - 1)  # K passes, and not K + 1


@pytest.mark.slow
def test_it_is_benched(tiny_bundle: Bundle) -> None:
    report = quick.run(tiny_bundle, "ort-cpu", clips=(SAMPLE_CLIP,))
    assert {row.verdict for row in report.rows} == {"pass"}
    parity = quick.row(report, "ort-cpu", "frame").parity
    assert parity and parity.psnr_db and min(parity.psnr_db.values()) > 60
    variation = parity.outputs["logits"].variation
    assert variation is not None and variation < 1e-5
