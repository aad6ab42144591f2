"""Rewards and ends: recorded, read, checked, and no matter to clips that have none."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wmdeploy.clips import (
    Clip,
    ReadOptions,
    RecordOptions,
    find_clips,
    read_clip,
    record,
    write_npz,
    write_video,
)
from wmdeploy.clips.find import search
from wmdeploy.clips.folder import (
    INDEX_NAME,
    ClipEntry,
    DataFolder,
    outcome_paths,
    read_data_folder,
    write_index,
)
from wmdeploy.clips.footage import clip_digest, read_footage
from wmdeploy.clips.read import SAMPLE_CLIP, open_source
from wmdeploy.clips.video import VideoSource
from wmdeploy.errors import ClipError

FRAMES = np.arange(6 * 8 * 8 * 3, dtype=np.uint8).reshape(6, 8, 8, 3)
REWARDS = np.array([0, 1, 0, -1, 0, 2], np.float32)
ENDS = np.array([False, False, True, False, False, True])


@pytest.fixture(scope="module")
def pong(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four minutes of Pong, which a random player loses after one: three games end."""
    pytest.importorskip("ale_py", reason="needs the extra 'train'")
    folder = tmp_path_factory.mktemp("recorded") / "pong"
    record(RecordOptions(game="pong", frames=1000, size=16, frame_skip=16, clip_frames=100), folder)
    return folder


def test_recorded_rewards_and_ends_are_those_of_the_game(pong: Path) -> None:
    entries = read_data_folder(pong).clips
    clips = [read_clip(pong / entry.file) for entry in entries]
    for clip, entry in zip(clips, entries, strict=True):
        assert clip.rewards is not None and clip.ends is not None
        assert clip.rewards.sum() == entry.score
        assert not clip.ends[:-1].any() and clip.ends[-1] == (clip.final is not None)
    ended = [index for index, clip in enumerate(clips) if clip.ends is not None and clip.ends[-1]]
    assert len(ended) >= 2
    for index in ended:  # the score of a game that is over is 21, and the next clip begins another
        episode = entries[index].episode
        points = np.concatenate(
            [c.rewards for c, e in zip(clips, entries, strict=True) if e.episode == episode]
        )
        assert max((points > 0).sum(), (points < 0).sum()) == 21 and abs(points).max() == 1
        assert index + 1 == len(entries) or entries[index + 1].episode == episode + 1


def test_final_picture_is_resized_as_the_frames_are(pong: Path) -> None:
    ended = next(path for path in find_clips(pong) if outcome_paths(path)["final"].exists())
    clip = read_clip(ended, size=8)
    assert clip.final is not None and clip.final.shape == (8, 8, 3)
    assert read_clip(ended, start=0, count=5).final is None
    part = read_clip(ended, start=5, count=3)
    whole = read_clip(ended)
    assert part.rewards is not None and whole.rewards is not None
    assert np.array_equal(part.rewards, whole.rewards[5:8])


def test_footage_has_them_numbered_through(pong: Path) -> None:
    paths = find_clips(pong)
    footage = read_footage(paths, 16, True, [])
    clips = [read_clip(path) for path in paths]
    assert footage.rewards is not None and footage.ends is not None
    assert np.array_equal(footage.rewards, np.concatenate([clip.rewards for clip in clips]))
    assert sorted(footage.finals) == np.flatnonzero(footage.ends).tolist()
    last = max(footage.finals)
    assert np.array_equal(
        footage.final(last), next(clip.final for clip in reversed(clips) if clip.final is not None)
    )


def test_frames_of_a_video_without_a_final_picture_are_not_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That would read the whole file, of which two frames are asked for."""
    write_video(tmp_path / "a.mp4", FRAMES, fps=15)

    def count(self: VideoSource) -> int:
        raise AssertionError

    monkeypatch.setattr(VideoSource, "count", count)
    assert len(read_clip(tmp_path / "a.mp4", count=2)) == 2


def test_folder_without_them_is_read_as_before(pong: Path, tmp_path: Path) -> None:
    old = tmp_path / "old"
    old.mkdir()
    names = {path.name for clip in find_clips(pong) for path in outcome_paths(clip).values()}
    for path in pong.iterdir():
        if path.name not in names:
            (old / path.name).write_bytes(path.read_bytes())
    assert not search(pong).left_out and not search(old).left_out
    clip = read_clip(old / "clip-00000.mkv")
    assert clip.actions is not None and clip.rewards is clip.ends is clip.final is None
    footage = read_footage(find_clips(old), 16, True, [])
    assert footage.actions is not None and footage.rewards is footage.ends is None
    assert clip_digest(old / "clip-00000.mkv") != clip_digest(pong / "clip-00000.mkv")
    some = read_footage([*find_clips(old)[:1], *find_clips(pong)[:1]], 16, True, [])
    assert some.rewards is some.ends is None and not some.finals


def test_digest_of_a_clip_without_them_stays_what_it_was() -> None:
    """Models note the digests of their clips; this one is of the sample that ships."""
    assert clip_digest(SAMPLE_CLIP) == (
        "7cf86f8b7fb0dc0e82a3674389e3d814422f8f5a4e8189880f3e3eced0c7242b"
    )


def test_files_beside_a_video_elsewhere_are_no_clips(pong: Path, tmp_path: Path) -> None:
    for path in pong.iterdir():
        if path.name != INDEX_NAME:
            (tmp_path / path.name).write_bytes(path.read_bytes())
    result = search(tmp_path)
    assert {path.suffix for path in result.clips} == {".mkv"}
    assert {path.name.split(".")[1] for path in result.left_out} == {"rewards", "ends", "final"}


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("rewards", np.zeros(100, np.float64)),
        ("rewards", np.zeros(7, np.float32)),
        ("rewards", np.full(100, np.nan, np.float32)),
        ("ends", np.zeros(100, np.int8)),
        ("ends", np.zeros(10**6, np.bool_)),
        ("final", np.zeros((16, 16), np.uint8)),
        ("final", np.zeros((999, 999, 3), np.uint8)),
        ("rewards", np.array([None] * 100)),
    ],
)
def test_damaged_files_are_one_clear_error(
    pong: Path, tmp_path: Path, name: str, values: np.ndarray
) -> None:
    for path in pong.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    clip = tmp_path / "clip-00000.mkv"
    np.save(outcome_paths(clip)[name], values)
    with pytest.raises(ClipError, match=r"clip-00000\S*: .*"):
        read_clip(clip)


def test_npz_keeps_them_and_is_cut_at_its_ends(tmp_path: Path) -> None:
    write_npz(tmp_path / "a.npz", FRAMES, np.arange(6), REWARDS, ENDS)
    first, second = map(read_clip, find_clips(tmp_path / "a.npz"))
    assert first.rewards is not None and first.rewards.tolist() == [0, 1, 0]
    assert second.rewards is not None and second.rewards.tolist() == [-1, 0, 2]
    for clip in (first, second):
        assert clip.ends is not None and clip.ends.tolist() == [False, False, True]
        assert not clip.notes


def test_npz_keeps_the_final_picture_of_its_last_episode(tmp_path: Path) -> None:
    final = np.arange(8 * 8 * 3, dtype=np.uint8).reshape(8, 8, 3).transpose(1, 0, 2)
    write_npz(tmp_path / "a.npz", FRAMES, np.arange(6), REWARDS, ENDS, final=final)
    first, second = (read_clip(path) for path in find_clips(tmp_path / "a.npz"))
    assert first.final is None and not first.notes and not second.notes
    assert second.final is not None and np.array_equal(second.final, final)
    footage = read_footage(find_clips(tmp_path / "a.npz"), 8, True, [])
    assert list(footage.finals) == [5] and np.array_equal(footage.final(5), final)
    with pytest.raises(ClipError, match=r"final: got uint8 \(4, 8, 3\), expected uint8 \(8, 8, 3"):
        write_npz(tmp_path / "b.npz", FRAMES, final=final[:4])


@pytest.mark.parametrize(
    ("final", "rewards"),
    [(FRAMES[0, :4], REWARDS), (FRAMES[0].astype(float), REWARDS), (FRAMES[0], REWARDS[:5])],
)
def test_final_picture_of_another_kind_or_behind_another_is_not_read(
    tmp_path: Path, final: np.ndarray, rewards: np.ndarray
) -> None:
    np.savez(tmp_path / "a.npz", frames=FRAMES, rewards=rewards, final=final)
    clip = read_clip(tmp_path / "a.npz")
    assert clip.final is None and clip.rewards is not None
    assert clip.notes == ("not read: final",)


def test_what_actions_brought_is_moved_with_them(tmp_path: Path) -> None:
    """Where row t holds the action that led to frame t, it holds what that brought, too."""
    actions = np.eye(3)[[0, 1, 2, 0, 1, 2]]
    actions[[0, 3]] = 0  # nothing led to the first frame of an episode
    np.savez(tmp_path / "a.npz", frames=FRAMES, actions=actions, rewards=REWARDS, ends=ENDS,
             final=FRAMES[0])  # fmt: skip
    first, second = (read_clip(path) for path in find_clips(tmp_path / "a.npz"))
    for clip, taken, rewards in ((first, [1, 2, 2], [1, 0, 0]), (second, [1, 2, 2], [0, 2, 0])):
        assert clip.actions is not None and clip.actions.tolist() == taken
        assert clip.rewards is not None and clip.rewards.tolist() == rewards
        assert clip.ends is not None and clip.ends.tolist() == [False, True, False]
        assert clip.final is None
        assert "actions are shifted by one, rewards and ends with them" in clip.notes[0]
        assert "final is not read" in clip.notes[0]


def test_rewards_of_a_file_whose_actions_are_not_read_stay_where_they_are(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", frames=FRAMES, actions=np.zeros(6), rewards=REWARDS)
    clip = read_clip(tmp_path / "a.npz")
    assert clip.actions is None and clip.rewards is not None
    assert clip.rewards.tolist() == REWARDS.tolist()


def test_one_fewer_than_frames_leaves_the_last_frame_to_be_the_final_picture(
    tmp_path: Path,
) -> None:
    ends = np.array([0, 0, 0, 0, 1])
    np.savez(tmp_path / "a.npz", frames=FRAMES, rewards=REWARDS[:5], ends=ends)
    clip = read_clip(tmp_path / "a.npz")
    assert clip.ends is not None and clip.ends.tolist() == [False] * 4 + [True, False]
    assert clip.rewards is not None and clip.rewards.tolist() == [0, 1, 0, -1, 0, 0]


@pytest.mark.parametrize("rewards", [np.zeros(3), np.full(6, np.inf), np.zeros((6, 2)), "text"])
def test_npz_with_other_rewards_is_read_without_and_says_so(tmp_path: Path, rewards: Any) -> None:
    np.savez(tmp_path / "a.npz", frames=FRAMES, rewards=rewards)
    clip = read_clip(tmp_path / "a.npz")
    assert clip.rewards is None and clip.notes == ("not read: rewards",)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"rewards": REWARDS.astype(float)}, r"rewards: got float64 \(6,\), expected float32"),
        ({"rewards": REWARDS[:3]}, r"rewards: got float32 \(3,\)"),
        ({"rewards": REWARDS * np.float32("nan")}, "rewards: got values that are not finite"),
        ({"ends": ENDS.astype(int)}, r"ends: got int64 \(6,\), expected bool \(6,\)"),
        ({"final": FRAMES}, r"final: got uint8 \(6, 8, 8, 3\), expected uint8 \(H, W, 3\)"),
    ],
)
def test_clip_checks_types_shapes_and_values(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ClipError, match=message):
        Clip(FRAMES, None, "one", **given)


def test_frames_at_another_rate_have_none(tmp_path: Path) -> None:
    """As actions of a number of frames that `fps` changes; where it changes none, they stay."""
    path = write_video_with(tmp_path, REWARDS, ENDS)
    same = open_source(path, ReadOptions(fps=15)).outcomes()
    assert same.rewards is not None and same.rewards.tolist() == REWARDS.tolist()
    assert open_source(path, ReadOptions(fps=5)).outcomes().rewards is None


def write_video_with(folder: Path, rewards: np.ndarray, ends: np.ndarray) -> Path:
    """A data folder of one clip."""
    video = folder / "clip-00000.mkv"
    write_video(video, FRAMES, fps=15)
    np.save(outcome_paths(video)["rewards"], rewards)
    np.save(outcome_paths(video)["ends"], ends)
    entry = ClipEntry(video.name, len(FRAMES), 0, 0.0)
    data = DataFolder(
        game="none", seed=0, size=8, fps=15, frame_skip=4, policy="", num_actions=0,
        action_meanings=(), clips=(entry,),
    )  # fmt: skip
    write_index(data, folder)
    return video
