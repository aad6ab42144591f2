"""Where dreams begin, and what their actions are called."""

from pathlib import Path

import numpy as np
import pytest

from tests.envs.counting import SIZE, counted, counting
from wmdeploy.clips.clip import Clip
from wmdeploy.clips.find import spread
from wmdeploy.clips.read import SAMPLE_CLIP
from wmdeploy.clips.source import ReadOptions
from wmdeploy.clips.write import write_npz
from wmdeploy.errors import BackendError, ClipError
from wmdeploy.serve.world import World, find_world

READ = ReadOptions()


def world(*places: Path, least: int = 1, game: str | None = None) -> World:
    return find_world(counting(least=least), places, READ, game, bundle=None, remarks=[])


def write(path: Path, clip: Clip) -> Path:
    write_npz(path, clip.frames, clip.actions)
    return path


def test_starts_are_spread_over_clips(tmp_path: Path) -> None:
    for index in range(3):
        write(tmp_path / f"{index}.npz", counted(50 * index, 9))
    starts = world(tmp_path, least=3).starts
    assert len(starts) == 3 * 4
    assert [start.title for start in starts[:4]] == [f"0, frame {n}" for n in (2, 4, 6, 8)]
    assert starts[1].frames[:, 0, 0, 0].tolist() == [2, 3, 4]
    assert starts[0].actions is not None and starts[0].actions.shape == (2,)


def test_of_many_clips_some_are_taken(tmp_path: Path) -> None:
    for index in range(30):
        write(tmp_path / f"{index:02}.npz", counted(index, 3))
    starts = world(tmp_path).starts
    assert len(starts) == 12
    assert starts[0].title.startswith("00") and starts[-1].title.startswith("29")


def test_actions_are_called_as_in_the_recording() -> None:
    assert world(SAMPLE_CLIP).meanings == ("NOOP", "UP", "DOWN")
    assert world().meanings == ("NOOP", "UP", "DOWN")


def test_a_clip_without_meanings_has_none(tmp_path: Path) -> None:
    assert world(write(tmp_path / "a.npz", counted(0, 9))).meanings == ()


@pytest.mark.parametrize(
    ("clip", "message"),
    [
        (counted(0, 2), "has 2 frames, asked for 3"),
        (Clip(np.zeros((5, SIZE, SIZE, 3), np.uint8), None, "x"), "actions"),
        (Clip(np.zeros((5, SIZE, SIZE, 3), np.uint8), np.full(5, 3), "x"), "action"),
    ],
    ids=["short", "without-actions", "other-actions"],
)
def test_clips_that_do_not_fit_are_refused(clip: Clip, message: str, tmp_path: Path) -> None:
    with pytest.raises(ClipError, match=message):
        world(write(tmp_path / "a.npz", clip), least=3)


def test_models_that_keys_cannot_play_are_refused() -> None:
    with pytest.raises(BackendError, match="vectors of numbers"):
        find_world(counting(floats=True), [], READ, None, bundle=None, remarks=[])


def test_places_are_spread_evenly() -> None:
    assert spread(5, 9) == [0, 1, 2, 3, 4]
    assert spread(9, 5) == [0, 2, 4, 6, 8]
    assert spread(1, 3) == [0]
