"""Rows of floats are actions that are vectors; what takes indices refuses them."""

import re
from pathlib import Path

import numpy as np
import pytest

from tests.clips.test_arrays import ACTIONS, FRAMES, ONE_HOT, T, saved
from wmdeploy.clips import read_clip, write_npz
from wmdeploy.clips.footage import read_footage
from wmdeploy.clips.read import open_source
from wmdeploy.errors import ClipError

VECTORS = np.random.default_rng(1).normal(size=(T, 3)).astype(np.float32)
WITHOUT_FIRST = VECTORS * (np.arange(T) > 0)[:, None]


@pytest.mark.parametrize(
    ("stored", "expected", "note"),
    [
        (VECTORS, VECTORS, ""),
        (VECTORS.astype(">f8"), VECTORS, ""),
        (VECTORS.astype(np.float16), VECTORS.astype(np.float16), ""),
        (VECTORS[None], VECTORS, ""),
        (ACTIONS[:, None].astype(float), ACTIONS[:, None], ""),  # (T, 1): one float each
        (ONE_HOT * 2, ONE_HOT * 2, ""),
        (VECTORS[:-1], VECTORS[[0, 1, 2, 3, 4, 4]], "one action fewer than frames; the last one"),
        (WITHOUT_FIRST, WITHOUT_FIRST, "the first action is zeros; leave it out if each comes bef"),
    ],
)
def test_rows_of_floats_are_vectors(
    tmp_path: Path, stored: np.ndarray, expected: np.ndarray, note: str
) -> None:
    path = saved(tmp_path / "a.npz", frames=FRAMES, actions=stored)
    clip = read_clip(path)
    assert clip.actions is not None and clip.actions.dtype == np.float32
    np.testing.assert_array_equal(clip.actions, expected)
    assert note in "; ".join(clip.notes) and bool(note) == bool(clip.notes)
    np.testing.assert_array_equal(read_clip(path, start=2, count=2).actions, expected[2:4])
    write_npz(tmp_path / "b.npz", clip.frames, clip.actions)
    np.testing.assert_array_equal(read_clip(tmp_path / "b.npz").actions, expected)


def test_rows_of_floats_beside_a_clip_are_vectors(tmp_path: Path) -> None:
    np.save(tmp_path / "frames.npy", FRAMES)
    np.save(tmp_path / "actions.npy", VECTORS)
    np.testing.assert_array_equal(read_clip(tmp_path / "frames.npy").actions, VECTORS)


@pytest.mark.parametrize(
    ("stored", "text"),
    [
        (ACTIONS.astype(float), r"got float64 \(6,\), expected int64 \(6,\) or float32 \(6, n\);"),
        (VECTORS * np.nan, "got values that are not finite as float32"),
        (VECTORS.astype(float) * 1e300, "got values that are not finite as float32"),
    ],
    ids=["one float", "nan", "too large"],
)
def test_unusable_actions_do_not_keep_a_clip_from_being_read(
    tmp_path: Path, stored: np.ndarray, text: str
) -> None:
    path = saved(tmp_path / "a.npz", frames=FRAMES, actions=stored)
    with pytest.raises(ClipError, match=f"actions: {text}.* train without actions$"):
        open_source(path).actions()
    clip = read_clip(path)
    assert clip.actions is None and re.match(f"actions: {text}", clip.notes[0])


def test_what_takes_indices_refuses_vectors(tmp_path: Path) -> None:
    source = open_source(saved(tmp_path / "a.npz", frames=FRAMES, actions=VECTORS))
    with pytest.raises(ClipError, match=r"a\.npz: got actions float32 \(6, 3\), expected an in"):
        source.integer_actions()
    source = open_source(saved(tmp_path / "b.npz", frames=FRAMES, actions=ACTIONS))
    np.testing.assert_array_equal(source.integer_actions(), ACTIONS)
    skipped: list[str] = []
    footage = read_footage([tmp_path / "a.npz", tmp_path / "b.npz"], 16, True, skipped)
    np.testing.assert_array_equal(footage.actions, ACTIONS)
    assert len(skipped) == 1 and skipped[0].startswith(f"{tmp_path / 'a.npz'}: got actions float32")
