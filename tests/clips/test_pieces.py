"""Long clips are encoded and measured in pieces: the same figures, and no more memory."""

import tracemalloc
from pathlib import Path

import msgspec
import numpy as np
import pytest

from tests.conftest import Bundles
from wmdeploy.benchmarks.evaluation.evaluate import TiedRunner
from wmdeploy.clips import Clip, write_npz
from wmdeploy.clips.footage import Footage, read_footage
from wmdeploy.engines.base import load_backend
from wmdeploy.families.reference.world_model import WorldModel
from wmdeploy.quality.measure import evaluate
from wmdeploy.quality.report import QualityReport
from wmdeploy.training.codes import encode_footage


def close(found: object, expected: object) -> bool:
    """Whether two reports are equal but for how floats round."""
    if isinstance(expected, dict) and isinstance(found, dict):
        return found.keys() == expected.keys() and all(close(found[k], expected[k]) for k in found)
    if isinstance(expected, list | tuple) and isinstance(found, list | tuple):
        return len(found) == len(expected) and all(map(close, found, expected))
    if isinstance(expected, float):
        return found == pytest.approx(expected, rel=1e-4, abs=1e-4)
    return found == expected


@pytest.mark.parametrize("frames_at_once", [7, 39])
def test_figures_do_not_depend_on_the_pieces(
    micro_actions: WorldModel,
    bundles: Bundles,
    clip: Clip,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    frames_at_once: int,
) -> None:
    write_npz(tmp_path / "0.npz", clip.frames, clip.actions)
    write_npz(tmp_path / "1.npz", clip.frames[9::-1], clip.actions[9::-1])  # type: ignore[index]
    footage = read_footage([tmp_path / "0.npz", tmp_path / "1.npz"], 32, True, [])

    def measured() -> QualityReport:
        runner = TiedRunner(load_backend("ort-cpu", bundles(actions=True)), micro_actions)
        return evaluate(micro_actions, footage, name="micro", runner=runner)

    whole = measured()
    monkeypatch.setattr("wmdeploy.quality.measure.PIECE_BYTES", frames_at_once * 32 * 32 * 3)
    assert close(msgspec.to_builtins(measured()), msgspec.to_builtins(whole))


@pytest.fixture(scope="module")
def long_clip(clip: Clip, tmp_path_factory: pytest.TempPathFactory) -> Footage:
    """1,200 frames, 3.7 MB as pixels."""
    path = tmp_path_factory.mktemp("long") / "0.npz"
    write_npz(path, np.tile(clip.frames, (30, 1, 1, 1)))
    return read_footage([path], 32, False, [])


def test_long_clip_is_encoded_in_little_memory(micro: WorldModel, long_clip: Footage) -> None:
    tracemalloc.start()
    try:
        coded = encode_footage(micro.vqvae, long_clip)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(coded.codes) == 1200 and peak < 1.5e6


def test_long_clip_is_measured_in_little_memory(
    micro: WorldModel, long_clip: Footage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wmdeploy.quality.measure.PIECE_BYTES", 10**5)
    tracemalloc.start()
    try:
        report = evaluate(micro, long_clip, name="micro")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert report.all.frames == 1200 and peak < 4e6
