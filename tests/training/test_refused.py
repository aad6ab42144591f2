"""Trainings that are refused, or end early, and clips that are left out: each named."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.squares import square_clip
from tests.training.test_train import options, run
from wmdeploy.clips import RecordOptions, record, write_npz
from wmdeploy.clips.folder import actions_path
from wmdeploy.errors import ClipError, TrainingError
from wmdeploy.training import TrainOptions
from wmdeploy.training.data import find_data


@pytest.fixture(scope="module")
def data(squares: Path) -> Path:
    return squares


def test_diverging_training_stops_and_keeps_the_last_state(data: Path, tmp_path: Path) -> None:
    with pytest.raises(
        TrainingError, match=r"vqvae, step \d+ of 12.*finite.*batch began with frame \d+ of .*rate"
    ):
        run(options(data, tmp_path / "model", vqvae_rate=1e30, checkpoint_every=1))
    state = torch.load(tmp_path / "model.train" / "state.pt", weights_only=True)
    assert state["current"]["step"] >= 1
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": ()}, "data: got no folder"),
        ({"vqvae_batch": 3}, "vqvae_batch: got 3, expected an even number"),
        ({"l1": -1.0}, "l1: got -1.0, expected a weight of 0 or more"),
        ({"self_fed": 0.6}, "self_fed: got 0.6"),
        ({"max_minutes": 0.0}, "max_minutes: got 0.0"),
        ({"accumulate": 0}, "accumulate: got 0"),
        ({"vqvae_steps": 0}, "vqvae_steps: got 0, expected 1 or more"),
        ({"temporal_batch": -1}, "temporal_batch: got -1"),
        ({"temporal_rate": float("nan")}, "temporal_rate: got nan"),
        ({"validation": 1.0}, "validation: got 1.0"),
        ({"seed": -1}, "seed: got -1, expected 0 or more"),
    ],
)
def test_options_out_of_range_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        dataclasses.replace(TrainOptions(data=(Path("a"),), output=Path("b")), **change)


def test_every_option_but_few_decides_the_weights() -> None:
    names = {field.name for field in dataclasses.fields(TrainOptions)}
    chosen = TrainOptions(data=(Path("a"),), output=Path("b")).deciding()
    assert names - set(chosen) == {"output", "checkpointing", "log"}
    assert json.loads(json.dumps(chosen)) == chosen


def write_two(folder: Path, change: Callable[[np.ndarray, Any], tuple[np.ndarray, Any]]) -> Path:
    write_npz(folder / "0.npz", *square_clip(12, 0))
    write_npz(folder / "1.npz", *change(*square_clip(12, 1)))
    return folder


def test_single_frame_clip_is_left_out_and_named(tmp_path: Path) -> None:
    folder = write_two(tmp_path / "data", lambda frames, actions: (frames[:1], actions[:1]))
    with pytest.raises(ClipError, match=r"1 of 2 clips can be used.*1\.npz: has 1 frame"):
        run(options(folder, tmp_path / "model"))
    write_npz(folder / "2.npz", *square_clip(12, 2))
    summary, _ = run(options(folder, tmp_path / "model"))
    assert [line.split(": ")[-1] for line in summary.skipped] == [
        "has 1 frame, and nothing follows it"
    ]


def test_actions_of_only_some_clips_are_refused_unless_unused(tmp_path: Path) -> None:
    folder = write_two(tmp_path / "data", lambda frames, actions: (frames, None))
    with pytest.raises(TrainingError, match=r"1 of 2 clips have them, clip 1 has none"):
        run(options(folder, tmp_path / "model"))
    summary, _ = run(options(folder, tmp_path / "model", actions=False))
    assert summary.num_actions == 0


def test_float_actions_are_refused_unless_unused(tmp_path: Path) -> None:
    floats = np.full((12, 2), 0.5, np.float32)
    folder = write_two(tmp_path / "data", lambda frames, actions: (frames, floats))
    with pytest.raises(
        ClipError, match=r"1 of 2 clips .*1\.npz: got actions float32 \(12, 2\), exp"
    ):
        run(options(folder, tmp_path / "model"))
    clips = find_data([folder], size=16, validation=0.5, seed=0, actions=False)
    assert sum(map(len, clips.paths)) == 2 and not clips.skipped


def test_unreadable_clips_are_left_out_and_named(tmp_path: Path) -> None:
    """One that cannot be opened, and one that only decoding shows to be damaged."""
    folder = tmp_path / "data"
    for index in range(12):
        write_npz(folder / f"{index}.npz", *square_clip(12, index))
    (folder / "2.npz").write_bytes(b"PK damaged")
    clips = find_data([folder], size=16, validation=0.1, seed=0, actions=True)
    victim = clips.paths[0][-1]
    whole = victim.read_bytes()
    at = whole.index(b"frames.npy") + 200
    victim.write_bytes(whole[:at] + bytes(20) + whole[at + 20 :])
    summary, _ = run(options(folder, tmp_path / "model"))
    assert [line.split(": ")[0] for line in summary.skipped] == [
        str(folder / "2.npz"),
        str(victim),
    ]
    assert summary.training_frames == 9 * 12


def test_log_where_the_model_is_made_is_refused(data: Path, tmp_path: Path) -> None:
    for log in ("model", "model/log", "model.train/log"):
        with pytest.raises(TrainingError, match="which is inside .* where the model is made"):
            run(options(data, tmp_path / "model", log=tmp_path / log))
    assert not list(tmp_path.iterdir())


def test_training_goes_on_without_a_cache_and_says_so(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no directory")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    summary, _ = run(options(data, tmp_path / "model"))
    assert [line.split(":")[0] for line in summary.skipped] == [
        "the cache of the training clips' codes", "the cache of the validation clips' codes",
    ]  # fmt: skip


def test_clip_with_damaged_actions_is_left_out_and_named(tmp_path: Path) -> None:
    record(RecordOptions(game="pong", frames=96, size=16, clip_frames=32), tmp_path / "data")
    clips = sorted((tmp_path / "data").glob("*.mkv"))
    actions_path(clips[1]).write_bytes(b"damaged")
    found = find_data([tmp_path / "data"], size=16, validation=0.5, seed=0, actions=True)
    assert found.num_actions == 6 and sum(map(len, found.paths)) == len(clips) - 1
    assert len(found.skipped) == 1 and "clip-00001" in found.skipped[0]


def test_too_many_frames_are_refused(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wmdeploy.clips.footage.MOST_BYTES", 1000)
    clips = find_data([data], size=16, validation=0.1, seed=0, actions=True)
    with pytest.raises(ClipError, match=r"frames of 16 x 16 need .* give fewer clips"):
        _ = clips.training


def test_folder_without_clips_and_a_single_clip_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ClipError, match="holds no clips"):
        run(options(tmp_path / "empty", tmp_path / "model"))
    write_npz(tmp_path / "one" / "0.npz", *square_clip(12, 0))
    with pytest.raises(ClipError, match="got 1 clip of one episode, expected 2"):
        run(options(tmp_path / "one", tmp_path / "model"))


def test_clip_shorter_than_the_context_is_learned_from(tmp_path: Path) -> None:
    folder = write_two(tmp_path / "data", lambda frames, actions: (frames[:2], actions[:2]))
    write_npz(folder / "2.npz", *[part[:3] for part in square_clip(9, 2)])
    summary, losses = run(options(folder, tmp_path / "model"))
    assert np.isfinite(losses["temporal"]).all()
    assert summary.quality
    assert summary.quality.all.following["model"].psnr is not None
    assert not summary.quality.all.rollouts  # no clip is long enough for one
