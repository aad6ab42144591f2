"""Evaluation: scores of known predictions, baselines, clips that must be left out, pictures."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.conftest import MICRO, Bundles
from wmdeploy.benchmarks.evaluation.evaluate import EvaluateOptions, TiedRunner
from wmdeploy.benchmarks.evaluation.evaluate import evaluate as run_evaluation
from wmdeploy.clips import write_npz
from wmdeploy.clips.clip import Clip
from wmdeploy.clips.footage import clip_digest, read_footage
from wmdeploy.engines.base import load_backend
from wmdeploy.errors import ClipError, WmdeployError
from wmdeploy.families import save_model
from wmdeploy.families.reference.world_model import WorldModel, to_pixels
from wmdeploy.psnr import IDENTICAL_DB, psnr
from wmdeploy.quality.measure import evaluate
from wmdeploy.quality.plots import strip, write_picture, write_plot
from wmdeploy.quality.report import HORIZONS, QualityReport


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, clip: Clip) -> Path:
    """Two folders of real frames: 40 with their actions; 40 and 12 of them backwards."""
    root = tmp_path_factory.mktemp("quality")
    write_npz(root / "a" / "0.npz", clip.frames, clip.actions)
    assert clip.actions is not None
    write_npz(root / "b" / "0.npz", clip.frames[::-1], clip.actions[::-1])
    write_npz(root / "b" / "1.npz", clip.frames[11::-1], clip.actions[11::-1])
    return root


def report_of(model: WorldModel, data: Path) -> QualityReport:
    paths = [data / "a" / "0.npz", data / "b" / "0.npz", data / "b" / "1.npz"]
    footage = read_footage(paths, 32, True, [])
    return evaluate(model, footage, name="micro")


def test_scores_are_those_of_the_model_as_written(micro_actions: WorldModel, data: Path) -> None:
    report = report_of(micro_actions, data)
    assert [group.name for group in report.groups] == ["a", "b", "all"]
    assert [group.frames for group in report.groups] == [40, 52, 92]
    with np.load(data / "a" / "0.npz") as stored:
        frames, actions = stored["frames"], torch.from_numpy(stored["actions"])
    latents, codes = micro_actions.encode(torch.from_numpy(frames)[None])
    window = MICRO.temporal.context
    predicted = [
        micro_actions.temporal_model(
            latents[:, max(0, t - window) : t], actions[None, max(0, t - window) : t]
        )[0, -1]
        for t in range(1, 40)
    ]
    guess = torch.stack(predicted)
    pictures = to_pixels(micro_actions.decode(guess[None])[0]).numpy()
    found = report.groups[0]
    expected = psnr(float(np.square(pictures.astype(float) - frames[1:]).mean()))
    assert found.following["model"].psnr == pytest.approx(expected, abs=0.01)
    copied = psnr(float(np.square(frames[1:].astype(float) - frames[:-1]).mean()))
    assert found.following["copy"].psnr == pytest.approx(copied, abs=1e-4)
    within = ((guess - latents[0, 1:]).abs() <= 0.1).double().mean().item()
    assert found.latents["model"].within == pytest.approx(within, abs=1e-4)
    moved = codes[0, 1:] != codes[0, :-1]
    assert found.latents["copy"].codes == pytest.approx(1 - moved.double().mean().item())
    assert found.latents["copy"].codes_changed == 0
    ceiling = to_pixels(micro_actions.decode(latents[:, 1:])[0]).numpy()
    expected = psnr(float(np.square(ceiling.astype(float) - frames[1:]).mean()))
    assert found.following["ceiling"].psnr == pytest.approx(expected, abs=0.01)


def test_rollouts_are_those_of_the_model_as_written(micro_actions: WorldModel, data: Path) -> None:
    report = report_of(micro_actions, data)
    with np.load(data / "a" / "0.npz") as stored:
        frames, actions = stored["frames"], torch.from_numpy(stored["actions"])
    imagined = micro_actions.predict_future(
        torch.from_numpy(frames[None, :8]), 32, actions[None, :39]
    )
    pictures = to_pixels(imagined[0]).numpy().astype(float)
    for n in HORIZONS:  # one rollout fits into 40 frames
        expected = psnr(float(np.square(pictures[n - 1] - frames[7 + n]).mean()))
        scores = report.groups[0].rollouts["model"]
        assert scores.psnr[n] == pytest.approx(expected, abs=0.01) == scores.worst[n]
        copied = psnr(float(np.square(frames[7].astype(float) - frames[7 + n]).mean()))
        assert report.groups[0].rollouts["copy"].psnr[n] == pytest.approx(copied)


def test_still_frames_agree_and_equal_frames_are_identical(
    micro: WorldModel, tmp_path: Path, frames: np.ndarray
) -> None:
    write_npz(tmp_path / "0.npz", np.repeat(frames[:1], 5, axis=0), None)
    found = evaluate(micro, read_footage([tmp_path / "0.npz"], 32, False, []), name="still").all
    assert found.static_agreement == 1.0
    assert found.following["copy"].psnr == IDENTICAL_DB
    assert found.following["copy"].psnr_changed is None
    assert found.latents["copy"].codes == 1.0 and found.latents["model"].codes_changed is None
    assert not found.rollouts


def test_bundle_is_judged_beside_its_own_model(
    bundles: Bundles, data: Path, tmp_path: Path
) -> None:
    bundle = bundles(actions=True)
    report, picture = run_evaluation(
        EvaluateOptions(
            source=str(bundle.path), data=(data / "a", data / "b"), backend="ort-cpu", pictures=True
        ),
    )
    found = report.all
    assert report.backend == "ort-cpu"
    model, backend = found.following["model"], found.following["ort-cpu"]
    assert model.psnr is not None and model.psnr == pytest.approx(backend.psnr, abs=0.05)
    for n in HORIZONS:
        ours = found.rollouts["ort-cpu"].psnr[n]
        assert ours == pytest.approx(found.rollouts["model"].psnr[n], abs=0.3)
    assert picture is not None and picture.dtype == np.uint8
    write_plot(report, tmp_path / "plot.png")
    write_picture(tmp_path / "strip.png", picture)
    assert (tmp_path / "plot.png").read_bytes()[:4] == b"\x89PNG"


def test_session_follows_true_frames(bundles: Bundles, micro: WorldModel, clip: Clip) -> None:
    runner = TiedRunner(load_backend("eager", bundles()), micro)
    latents, codes = micro.encode(torch.from_numpy(clip.frames[None, :12]))
    found = list(runner.following(clip.frames[:12], codes[0].numpy(), None))
    last = micro.temporal_model(latents[:, 11 - 6 : 11])[:, -1:]
    expected = to_pixels(micro.decode(last)[0]).numpy()[0]
    assert np.abs(found[10].astype(int) - expected).max() <= 1


def test_clips_of_the_training_are_left_out(
    micro_actions: WorldModel, data: Path, tmp_path: Path
) -> None:
    def judged(*seen: str) -> QualityReport:
        digests = [clip_digest(data / name) for name in seen]
        about = {"training": {"clips": digests}}
        save_model(micro_actions, tmp_path / "model", about=about)
        options = EvaluateOptions(source=str(tmp_path / "model"), data=(data / "a", data / "b"))
        return run_evaluation(options)[0]

    report = judged("b/0.npz")
    assert [(g.name, g.frames) for g in report.groups] == [("a", 40), ("b", 12), ("all", 52)]
    assert report.skipped == (f"{data / 'b'}: 1 clips that the model was trained on",)
    with pytest.raises(ClipError, match="no clip is left to evaluate on.*was trained on"):
        judged("a/0.npz", "b/0.npz", "b/1.npz")


def test_clips_without_actions_are_refused(
    micro_actions: WorldModel, data: Path, tmp_path: Path, frames: np.ndarray
) -> None:
    write_npz(tmp_path / "0.npz", frames, None)
    with pytest.raises(ClipError, match="data: got no actions, and the model takes"):
        evaluate(micro_actions, read_footage([tmp_path / "0.npz"], 32, True, []), name="micro")
    write_npz(tmp_path / "0.npz", frames, np.full(len(frames), 5))
    with pytest.raises(ClipError, match="got actions up to 5, expected 0 to 2"):
        evaluate(micro_actions, read_footage([tmp_path / "0.npz"], 32, True, []), name="micro")


def test_backend_for_a_model_is_refused(micro_model: Path, data: Path) -> None:
    options = EvaluateOptions(source=str(micro_model), data=(data / "a",), backend="ort-cpu")
    with pytest.raises(WmdeployError, match="ort-cpu runs bundles.*wmdeploy export"):
        run_evaluation(options)


def test_report_is_plain_json(micro_actions: WorldModel, data: Path, tmp_path: Path) -> None:
    import msgspec

    from wmdeploy.files import write_document

    report = report_of(micro_actions, data)
    write_document(report, tmp_path / "q.json")
    text = (tmp_path / "q.json").read_bytes()
    assert "NaN" not in text.decode() and json.loads(text)["groups"][2]["name"] == "all"
    assert msgspec.json.decode(text, type=QualityReport) == report


def test_rollouts_of_clips_with_the_same_name_all_count(
    micro_actions: WorldModel, tmp_path: Path, clip: Clip
) -> None:
    paths = [tmp_path / "one" / "pong" / "0.npz", tmp_path / "two" / "pong" / "0.npz"]
    write_npz(paths[0], clip.frames, clip.actions)
    write_npz(paths[1], clip.frames[::-1], clip.actions)
    alone, both = (
        evaluate(micro_actions, read_footage(chosen, 32, True, []), name="x")
        for chosen in (paths[:1], paths)
    )
    assert [group.clips for group in both.groups] == [1, 1, 2]
    assert both.groups[0].rollouts == {
        who: dataclasses.replace(scores, worst_clip=both.groups[0].rollouts[who].worst_clip)
        for who, scores in alone.all.rollouts.items()
    }
    assert both.all.rollouts["copy"].psnr != alone.all.rollouts["copy"].psnr


def test_strip_that_cannot_be_drawn_is_refused_before_evaluating(
    micro_actions: WorldModel, tmp_path: Path, clip: Clip
) -> None:
    save_model(micro_actions, tmp_path / "model")
    write_npz(tmp_path / "data" / "0.npz", clip.frames[:23], clip.actions[:23])  # type: ignore
    stages: list[str] = []
    chosen = EvaluateOptions(
        source=str(tmp_path / "model"), data=(tmp_path / "data",), pictures=True
    )
    with pytest.raises(ClipError, match="strip: no clip has 24 frames"):
        run_evaluation(chosen, lambda task, done, total, detail="": stages.append(task))
    assert "evaluate" not in stages


def test_strip_has_a_row_for_each_clip() -> None:
    rows = [np.full((9, 4, 6, 3), value, np.uint8) for value in (10, 200)]
    picture = strip(rows, columns=3, scale=2)
    assert picture.shape == (2 * 8 + 2, 3 * 12 + 2 * 2, 3)
    assert picture[0, 0, 0] == 10 and picture[-1, -1, 0] == 200


def test_psnr_of_known_errors() -> None:
    assert psnr(255.0**2) == 0
    assert psnr(1.0) == pytest.approx(48.13, abs=0.01)
    assert psnr(0.0) == IDENTICAL_DB
