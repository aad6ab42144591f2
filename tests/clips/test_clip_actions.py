"""A clip fits a model's actions, or is refused with the same words wherever it is used."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import Bundles
from wmdeploy.benchmarks.bench.options import BenchOptions, write_clips
from wmdeploy.benchmarks.bisect.run import BisectOptions, bisect
from wmdeploy.benchmarks.evaluation.milestone import MilestoneOptions, run_milestone
from wmdeploy.bundle import Bundle
from wmdeploy.clips.clip import Clip, check_actions
from wmdeploy.clips.read import read_clip
from wmdeploy.engines.base import load_backend
from wmdeploy.engines.rollout import rollout
from wmdeploy.errors import ClipError
from wmdeploy.exporters.export import ExportOptions, export_bundle

NONE = "got no actions, and the model takes actions from 0 to 2"
OTHERS = "got actions up to 3, expected 0 to 2"
FLOATS = r"got actions float32 \(\d+, 2\), and the model takes actions from 0 to 2"


def clip_with(actions: np.ndarray | None) -> Clip:
    return Clip(np.zeros((3, 8, 8, 3), np.uint8), actions, "a clip")


def test_actions_that_fit_are_given_back() -> None:
    actions = np.array([0, 2, 1])
    assert clip_with(actions).check_actions(3) is actions
    assert clip_with(actions).check_actions(0) is None  # the model takes none
    assert clip_with(None).check_actions(0) is None


@pytest.mark.parametrize(
    ("actions", "message"), [(None, NONE), (np.array([0, 3, 1]), OTHERS)], ids=["none", "others"]
)
def test_actions_that_do_not_fit_are_refused(actions: np.ndarray | None, message: str) -> None:
    with pytest.raises(ClipError, match=f"^a clip: {message}; use a clip"):
        clip_with(actions).check_actions(3)


def test_float_actions_that_fit_are_given_back() -> None:
    actions = np.array([[0, 0.5], [-1, 2], [3, 4]], np.float32)
    assert clip_with(actions).check_actions(0, 2) is actions
    assert clip_with(actions).check_actions(0) is None  # the model takes none
    given = check_actions(actions.astype(float), 0, "given", 2)
    assert given is not None and given.dtype == np.float32


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        (None, "got no actions, and the model takes 2 floats for each frame; use an .npz"),
        (np.array([0, 1, 2]), r"got actions int64 \(3,\), and the model takes 2 floats .*; use a"),
        (np.zeros((3, 1), np.float32), r"got actions float32 \(3, 1\), and the model takes 2 .*"),
    ],
    ids=["none", "integers", "another size"],
)
def test_float_actions_that_do_not_fit_are_refused(
    actions: np.ndarray | None, message: str
) -> None:
    with pytest.raises(ClipError, match=f"^a clip: {message}"):
        clip_with(actions).check_actions(0, 2)


def test_floats_for_integers_and_infinite_floats_are_refused() -> None:
    floats = np.ones((3, 2), np.float32)
    with pytest.raises(
        ClipError, match=r"got actions float32 \(3, 2\), .* actions from 0 to 2; us"
    ):
        clip_with(floats).check_actions(3)
    with pytest.raises(ClipError, match="^given: got actions that are not finite, .* 2 floats"):
        check_actions(floats * np.inf, 0, "given", 2)


def export(bundle: Bundle, clip: Path, tmp_path: Path) -> None:
    export_bundle(
        ExportOptions(source=str(bundle.path / "model"), output=tmp_path / "again", clip=clip)
    )


def bench(bundle: Bundle, clip: Path, tmp_path: Path) -> None:
    options = BenchOptions(bundle=bundle.path, clips=(clip,), context=2, horizon=4)
    write_clips(options, bundle, tmp_path, [])


def bisected(bundle: Bundle, clip: Path, tmp_path: Path) -> None:
    next(bisect(BisectOptions(bundle=bundle.path, clip=clip)))


def milestone(bundle: Bundle, clip: Path, tmp_path: Path) -> None:
    run_milestone(MilestoneOptions(source=str(bundle.path / "model"), device="cpu", clip=clip))


def rolled(bundle: Bundle, clip: Path, tmp_path: Path) -> None:
    rollout(load_backend("ort-cpu", bundle), read_clip(clip, size=32), 2, 4)


@pytest.mark.parametrize("use", [export, bench, bisected, milestone, rolled])
@pytest.mark.parametrize(
    ("actions", "message"),
    [({}, NONE), ({"actions": [3] * 20}, OTHERS), ({"actions": np.full((20, 2), 0.5)}, FLOATS)],
    ids=["none", "others", "floats"],
)
def test_every_verb_refuses_with_the_same_words(
    bundles: Bundles,
    tmp_path: Path,
    use: Callable[[Bundle, Path, Path], None],
    actions: dict[str, Any],
    message: str,
) -> None:
    path = tmp_path / "clip.npz"
    np.savez(path, allow_pickle=False, frames=np.zeros((20, 32, 32, 3), np.uint8), **actions)
    with pytest.raises(ClipError, match=f"^clip: {message}; use a clip"):
        use(bundles(actions=True), path, tmp_path)
