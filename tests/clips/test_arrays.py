"""Files of arrays: what is certain is read and told, what is not is refused with what to do."""

import os
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wmdeploy.clips import count_frames, find_clips, read_clip
from wmdeploy.clips.footage import clip_digest
from wmdeploy.clips.source import ReadOptions
from wmdeploy.errors import ClipError

T = 6
FRAMES = np.random.default_rng(0).integers(0, 256, (T, 16, 24, 3), dtype=np.uint8)
GREY = FRAMES[..., :1]
ACTIONS = np.array([2, 0, 1, 1, 0, 2])
PLACES = "one-hot actions are read as indices"
ONE_HOT = np.eye(3, dtype=np.float32)[ACTIONS]


def saved(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


# Frames


@pytest.mark.parametrize(
    ("stored", "note"),
    [
        (FRAMES, ""),
        (FRAMES[None], r"shape \(1, 6, 16, 24, 3\) is read as 6 frames of 16 x 24"),
        (FRAMES.transpose(0, 3, 1, 2).copy(), r"shape \(6, 3, 16, 24\) is read as 6 frames"),
        (FRAMES.transpose(0, 3, 1, 2)[None].copy(), r"shape \(1, 6, 3, 16, 24\) is read as 6"),
        (FRAMES / 255, "float64 in 0..1 is read as 0..255"),
        ((FRAMES / 255).astype(np.float32), "float32 in 0..1 is read as 0..255"),
        (FRAMES.astype(np.int64), "int64 is read as 0..255"),
        (FRAMES.astype(">i4"), ">i4 is read as 0..255"),
    ],
)
@pytest.mark.parametrize("suffix", [".npz", ".npy"])
def test_frames_are_read_where_their_meaning_is_certain(
    tmp_path: Path, stored: np.ndarray, note: str, suffix: str
) -> None:
    path = tmp_path / f"a{suffix}"
    saved(path, frames=stored) if suffix == ".npz" else np.save(path, stored)
    clip = read_clip(path)
    np.testing.assert_array_equal(clip.frames, FRAMES)
    assert clip.actions is None and count_frames(path) == T
    np.testing.assert_array_equal(read_clip(path, start=2, count=3).frames, FRAMES[2:5])
    told = "; ".join(clip.notes)
    assert (told == "") == (note == "")
    assert re.search(note, told)


@pytest.mark.parametrize(
    "stored", [GREY, GREY[..., 0], GREY.transpose(0, 3, 1, 2), GREY[..., 0][None], GREY[None]]
)
def test_grey_frames_become_three_equal_channels(tmp_path: Path, stored: np.ndarray) -> None:
    np.save(tmp_path / "a.npy", np.ascontiguousarray(stored))
    np.testing.assert_array_equal(read_clip(tmp_path / "a.npy").frames, np.repeat(GREY, 3, axis=3))


@pytest.mark.parametrize(
    ("stored", "advice"),
    [
        (np.stack([FRAMES, FRAMES]), "save each of the 2 clips as its own file"),
        (FRAMES[0], r"a single picture is saved as frames\[None\]"),
        (FRAMES[0].transpose(2, 0, 1), r"save one picture as frames.transpose\(1, 2, 0\)\[None\]"),
        (FRAMES.transpose(3, 0, 1, 2), r"saved as frames.transpose\(1, 2, 3, 0\)"),
        (np.repeat(GREY, 4, axis=3), "4 channels may be RGBA or 4 grey frames stacked"),
        (np.repeat(GREY, 9, axis=3), "of stacked frames save the newest"),
        (FRAMES * 2.0, "save frames.round"),
        (FRAMES / 127.5 - 1, r"save \(\(frames \+ 1\) \* 127.5\)"),
        (FRAMES / 255 + np.nan, "replace what is no number"),
        (FRAMES.astype(np.int64) - 1, "save uint8 pixels"),
        (FRAMES > 100, "save RGB pixels in 0..255"),
        (FRAMES[:0], "at least one frame"),
    ],
)
def test_frames_of_two_meanings_are_refused_with_advice(
    tmp_path: Path, stored: np.ndarray, advice: str
) -> None:
    path = saved(tmp_path / "a.npz", frames=np.ascontiguousarray(stored))
    with pytest.raises(ClipError, match=rf"a\.npz: frames: .*expected .*{advice}"):
        read_clip(path)


@pytest.mark.parametrize("name", ["image", "Observations", "obs", "pixels", "arr_0"])
def test_frames_of_other_names_are_taken_and_told(tmp_path: Path, name: str) -> None:
    path = saved(tmp_path / "a.npz", **{name: FRAMES, "reward": np.zeros(T), "mask": GREY})
    clip = read_clip(path)
    np.testing.assert_array_equal(clip.frames, FRAMES)
    assert clip.notes == (f"frames are read from {name}", "not read: reward, mask")


def test_several_series_of_frames_are_refused_and_one_can_be_chosen(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.npz", front=FRAMES, wrist=FRAMES[::-1], actions=ACTIONS)
    with pytest.raises(ClipError, match=r"holds 2 series of frames \(front, wrist\), expected one"):
        read_clip(path)
    clip = read_clip(path, options=ReadOptions(series="Wrist"))
    np.testing.assert_array_equal(clip.frames, FRAMES[::-1])
    np.testing.assert_array_equal(clip.actions, ACTIONS)
    with pytest.raises(ClipError, match="got 'left', which is none of its series .front, wrist."):
        read_clip(path, options=ReadOptions(series="left"))
    with pytest.raises(ClipError, match="a.npz: holds no wrist with an episode"):
        read_clip(path / "wrist")


def test_states_are_told_from_pictures(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.npz", observations=np.zeros((T, 17), np.float32), actions=ACTIONS)
    with pytest.raises(ClipError, match="observations is no series of pictures; .*render the stat"):
        read_clip(path)


# Actions


@pytest.mark.parametrize(
    ("stored", "expected", "note"),
    [
        (ACTIONS, ACTIONS, ""),
        (ACTIONS[:, None].astype(np.uint8), ACTIONS, ""),
        (ACTIONS[None], ACTIONS, ""),
        (ACTIONS > 1, ACTIONS > 1, ""),
        (
            ACTIONS[:-1],
            [2, 0, 1, 1, 0, 0],
            "there is one action fewer than frames; the last one is repeated",
        ),
        (ONE_HOT, ACTIONS, "one-hot actions are read as indices"),
        (ONE_HOT.astype(bool), ACTIONS, "one-hot actions are read as indices"),
        (
            ONE_HOT[:-1],
            [2, 0, 1, 1, 0, 0],
            "one-hot actions are read as indices, there is one action fewer",
        ),
        # Dreamer: no action led to the first frame
        (ONE_HOT * (np.arange(T) > 0)[:, None], [0, 1, 1, 0, 2, 2], "actions are shifted by one"),
    ],
)
def test_actions_are_read_where_their_meaning_is_certain(
    tmp_path: Path, stored: np.ndarray, expected: np.ndarray, note: str
) -> None:
    clip = read_clip(saved(tmp_path / "a.npz", frames=FRAMES, actions=stored))
    np.testing.assert_array_equal(clip.actions, expected)
    assert clip.actions is not None and clip.actions.dtype == np.int64
    assert note in "; ".join(clip.notes) and bool(note) == bool(clip.notes)
    part = read_clip(tmp_path / "a.npz", start=2, count=2)
    np.testing.assert_array_equal(part.actions, expected[2:4])


@pytest.mark.parametrize("name", ["action", "acts", "Actions", "act"])
def test_actions_of_other_names_are_taken_and_told(tmp_path: Path, name: str) -> None:
    clip = read_clip(saved(tmp_path / "a.npz", frames=FRAMES, **{name: ACTIONS}))
    np.testing.assert_array_equal(clip.actions, ACTIONS)
    note = () if name == "actions" else (f"actions are read from {name}",)
    assert clip.notes == note


def test_actions_of_a_name_that_is_not_known_are_named(tmp_path: Path) -> None:
    clip = read_clip(saved(tmp_path / "a.npz", frames=FRAMES, moves=ACTIONS))
    assert clip.actions is None and clip.notes == ("not read: moves",)


def test_crafter_actions_led_to_their_frames(tmp_path: Path) -> None:
    stored = {"image": FRAMES, "action": ACTIONS, "achievement_eat": np.zeros(T)}
    clip = read_clip(saved(tmp_path / "a.npz", **stored))
    np.testing.assert_array_equal(clip.actions, [0, 1, 1, 0, 2, 2])
    assert "each action comes before its frame; actions are shifted by one" in clip.notes[-1]


def test_actions_that_are_none_are_none(tmp_path: Path) -> None:
    clip = read_clip(saved(tmp_path / "a.npz", frames=FRAMES, actions=None))
    assert clip.actions is None
    assert clip.notes == ("actions is None, so the clip is read without actions",)
    with pytest.raises(ClipError, match=r"actions: got object \(\), expected int64 \(6,\)"):
        read_clip(saved(tmp_path / "b.npz", frames=FRAMES, actions={"left": 1}))


@pytest.mark.parametrize(
    ("stored", "text"),
    [
        (np.arange(T + 1), r"got int64 \(7,\), expected int64 \(6,\)"),
        (np.arange(T - 2), r"got int64 \(4,\), expected int64 \(6,\)"),
        (np.ones((T, 3), np.int64), "3 numbers for each frame, expected"),
        (ACTIONS - 1, "got -1 as the lowest"),
        (ACTIONS + 2**60, "as the highest, expected less than 65536"),
        (ACTIONS.astype(np.uint64) + 2**63, "as the highest, expected less than 65536"),
    ],
)
def test_other_actions_are_refused(tmp_path: Path, stored: np.ndarray, text: str) -> None:
    path = saved(tmp_path / "a.npz", frames=FRAMES, actions=stored)
    with pytest.raises(ClipError, match=f"actions: .*{text}"):
        read_clip(path)


# Episodes


@pytest.mark.parametrize(
    "marks",
    [
        {"is_first": np.array([1, 0, 1, 0, 0, 0], bool)},
        {"terminals": np.array([0, 1, 0, 0, 0, 0], bool), "timeouts": np.zeros(T, bool)},
        {"dones": np.array([0, 1, 0, 0, 0, 1], np.float32)[:, None]},
        {"step_type": np.array([0, 2, 0, 1, 1, 2])},
    ],
)
def test_episodes_of_one_file_are_clips_of_their_own(
    tmp_path: Path, marks: dict[str, np.ndarray]
) -> None:
    path = saved(tmp_path / "a.npz", frames=FRAMES, actions=ACTIONS, **marks)
    clips = find_clips(tmp_path)
    assert clips == [path / "episode-00000", path / "episode-00001"]
    with pytest.raises(ClipError, match=r"holds 2 clips .* name it: .*a.npz/episode-00000"):
        read_clip(path)
    for clip, first, last in zip(clips, (0, 2), (2, T), strict=True):
        found = read_clip(clip)
        np.testing.assert_array_equal(found.frames, FRAMES[first:last])
        np.testing.assert_array_equal(found.actions, ACTIONS[first:last])
        assert count_frames(clip) == last - first and found.notes == ()
    assert clip_digest(clips[0]) != clip_digest(clips[1])
    with pytest.raises(ClipError, match="episode-00007: there are 2 episodes, counted"):
        read_clip(path / "episode-00007")


def test_file_with_one_episode_is_the_clip_itself(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.npz", frames=FRAMES, is_first=np.arange(T) == 0)
    assert find_clips(tmp_path) == [path]


# Hostile files


def claimed(path: Path, shape: tuple[int, ...], name: str = "frames", descr: str = "|u1") -> Path:
    """An .npz whose header claims a shape, of which it holds nothing."""
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}}}".ljust(117) + "\n"
    body = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode()
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(f"{name}.npy", body)
    return path


@pytest.mark.parametrize(
    ("shape", "text"),
    [
        ((1, 40000, 40000, 3), "a frame has 1,600,000,000 pixels of at most 178,956,970"),
        ((2**60, 8, 8, 3), "has more than 10,000,000 frames"),
        ((5, 64, 64, 3), "holds 128 bytes, expected 61568"),
        ((1, 5, 64, 64, 3), "holds 128 bytes, expected 61568"),
    ],
)
def test_claimed_sizes_are_checked_before_memory_is_taken(
    tmp_path: Path, shape: tuple[int, ...], text: str
) -> None:
    path = claimed(tmp_path / "a.npz", shape)
    for read in (read_clip, count_frames):
        with pytest.raises(ClipError, match=text):
            read(path)


def test_bomb_of_one_frame_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("frames.npy", "w", force_zip64=True) as file:
            np.lib.format.write_array_header_1_0(
                file,
                {"descr": "|u1", "fortran_order": False, "shape": (1, 14000, 14000, 3)},
            )
            for _ in range(14000 * 3 // 100):
                file.write(bytes(1_400_000))
    with pytest.raises(ClipError, match="a frame has 196,000,000 pixels"):
        read_clip(tmp_path / "a.npz")


def test_claimed_actions_are_refused_before_memory_is_taken(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.npz", frames=FRAMES)
    claimed(path, (2**60,), "actions", "<i8")
    with pytest.raises(ClipError, match=r"actions: got int64 \(1152921504606846976,\), expected"):
        read_clip(path)
    path = saved(tmp_path / "b.npz", frames=FRAMES)
    claimed(path, (T, 2**50), "actions", "<f4")
    with pytest.raises(ClipError, match="actions: got float32"):
        read_clip(path)


def test_pickled_dict_is_refused_with_what_to_do(tmp_path: Path) -> None:
    stored: Any = {"observations": FRAMES, "actions": ACTIONS}
    np.save(tmp_path / "a.npy", stored)  # as data sets of Procgen are
    with pytest.raises(ClipError, match="Python objects.* numpy.savez.* of a source you trust"):
        read_clip(tmp_path / "a.npy")


def test_many_arrays_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", *[FRAMES[0]] * 1001)
    with pytest.raises(ClipError, match="holds 1001 arrays, expected frames .* save numpy.stack"):
        read_clip(tmp_path / "a.npz")


def pipe(path: Path) -> None:
    os.mkfifo(path)


def zip_file(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x", "y")


def huge_claim(path: Path) -> None:
    header = b"{'descr': '<i8', 'fortran_order': False, 'shape': (1152921504606846976,)}".ljust(117)
    path.write_bytes(b"\x93NUMPY\x01\x00\x76\x00" + header + b"\n")


def sparse(path: Path) -> None:
    path.touch()
    os.truncate(path, 2**40)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (pipe, "cannot be read as actions .*not a regular file"),
        (
            lambda path: path.symlink_to("/dev/zero"),
            "cannot be read as actions .*not a regular file",
        ),
        (lambda path: path.symlink_to(path.name), "cannot be read as actions .*symbolic links"),
        (zip_file, "cannot be read as actions"),
        (huge_claim, r"got int64 \(1152921504606846976,\), expected int64 \(12,\)"),
        (sparse, "cannot be read as actions"),
    ],
)
def test_actions_that_are_no_such_file_are_one_line(
    tmp_path: Path, make: Callable[[Path], None], text: str
) -> None:
    from tests.clips.made_clips import make_data_folder

    make_data_folder(tmp_path / "data")
    path = tmp_path / "data" / "clip-00000.actions.npy"
    path.unlink()
    make(path)
    with pytest.raises(ClipError, match=text) as caught:
        read_clip(tmp_path / "data" / "clip-00000.mkv")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500
