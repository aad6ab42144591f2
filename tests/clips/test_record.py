"""Recording: real play, the same for the same seed, whole or not at all."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from wmdeploy.clips import (
    RecordOptions,
    RecordSummary,
    find_clips,
    read_clip,
    read_data_folder,
    record,
    split_clips,
)
from wmdeploy.clips.play import HoldingPolicy, _find_game
from wmdeploy.clips.record import _longest_episode, _next_length
from wmdeploy.errors import ClipError, WmdeployError

pytest.importorskip("ale_py", reason="needs the extra 'train'")

PONG = RecordOptions(game="pong", frames=80, seed=3, size=32)


@pytest.fixture(scope="module")
def pong(tmp_path_factory: pytest.TempPathFactory) -> RecordSummary:
    return record(PONG, tmp_path_factory.mktemp("record") / "pong")


def folder_bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_record_gives_the_frames_and_actions_asked_for(pong: RecordSummary) -> None:
    clips = [read_clip(path) for path in find_clips(pong.folder)]
    assert sum(len(clip) for clip in clips) == pong.frames == 80
    assert len(clips) == pong.clips
    for clip in clips:
        assert clip.frames.shape[1:] == (32, 32, 3)
        assert clip.actions is not None and clip.actions.max() < pong.num_actions == 6
        assert clip.fps == 15
    assert pong.size_bytes == sum(path.stat().st_size for path in pong.folder.iterdir())


def test_record_describes_itself(pong: RecordSummary) -> None:
    document = json.loads((pong.folder / "clips.json").read_text())
    assert document["schema"] == 1
    assert (document["game"], document["seed"], document["size"]) == ("Pong", 3, 32)
    assert (document["fps"], document["frame_skip"]) == (15.0, 4)
    assert document["action_meanings"] == "NOOP FIRE RIGHT LEFT RIGHTFIRE LEFTFIRE".split()
    assert "random" in document["policy"]


def test_record_plays_on(pong: RecordSummary) -> None:
    """The picture keeps changing, and the actions are many: nobody waits at a title screen."""
    clip = read_clip(find_clips(pong.folder)[1])
    changed = [bool((a != b).any()) for a, b in zip(clip.frames, clip.frames[1:], strict=False)]
    assert np.mean(changed) > 0.9
    assert clip.actions is not None and len(set(clip.actions.tolist())) >= 3


@pytest.mark.parametrize("game", ["boxing", "breakout", "ms_pacman", "riverraid", "seaquest"])
def test_record_gets_past_the_first_second_of_a_game(game: str, tmp_path: Path) -> None:
    """Ten seconds in, the picture still changes from frame to frame."""
    record(RecordOptions(game=game, frames=300, size=32), tmp_path / "data")
    clip = read_clip(find_clips(tmp_path / "data")[0])
    late = clip.frames[-30:].astype(int)
    assert (np.abs(np.diff(late, axis=0)).max((1, 2, 3)) > 16).mean() > 0.5


def test_record_actions_lead_to_the_next_frame(pong: RecordSummary) -> None:
    """Played again by hand, the recorded actions give the recorded frames."""
    import ale_py
    import gymnasium

    from wmdeploy.clips import area_resize

    gymnasium.register_envs(ale_py)
    env = gymnasium.make("ALE/Pong-v5", frameskip=4, repeat_action_probability=0)
    screen, _ = env.reset(seed=3)
    for path in find_clips(pong.folder):  # two episodes, cut off at half of the frames
        clip = read_clip(path)
        assert clip.actions is not None
        for frame, action in zip(clip.frames, clip.actions, strict=True):
            np.testing.assert_array_equal(frame, area_resize(screen, 32))
            screen = env.step(action)[0]
        screen, _ = env.reset()
    env.close()


def test_record_is_the_same_for_the_same_seed(pong: RecordSummary, tmp_path: Path) -> None:
    record(PONG, tmp_path / "again")
    assert folder_bytes(tmp_path / "again") == folder_bytes(pong.folder)


def test_record_differs_for_another_seed(pong: RecordSummary, tmp_path: Path) -> None:
    record(RecordOptions(game="pong", frames=80, seed=4, size=32), tmp_path / "other")
    ours, other = (find_clips(folder)[0] for folder in (pong.folder, tmp_path / "other"))
    assert not np.array_equal(read_clip(ours).frames, read_clip(other).frames)


def test_record_can_always_be_split(pong: RecordSummary) -> None:
    training, validation = split_clips(find_clips(pong.folder))
    assert [path.name for path in sorted(training + validation)] == [
        "clip-00000.mkv",
        "clip-00001.mkv",
    ]


def test_record_starts_a_clip_with_each_episode_and_cuts_long_ones(tmp_path: Path) -> None:
    """An episode of Freeway is always 512 decisions of 16 frames: cut into 300 + 212."""
    options = RecordOptions(game="freeway", frames=1100, size=16, frame_skip=16, clip_frames=300)
    summary = record(options, tmp_path / "data")
    clips = read_data_folder(tmp_path / "data").clips
    expected = [(300, 0), (212, 0), (300, 1), (212, 1), (76, 2)]
    assert [(clip.frames, clip.episode) for clip in clips] == expected
    assert (summary.frames, summary.clips, summary.episodes) == (1100, 5, 3)


def test_record_cuts_an_episode_off_so_that_there_is_one_for_validation(tmp_path: Path) -> None:
    options = RecordOptions(game="freeway", frames=401, size=16, frame_skip=16, clip_frames=300)
    record(options, tmp_path / "data")
    clips = read_data_folder(tmp_path / "data").clips
    assert [(clip.frames, clip.episode) for clip in clips] == [(201, 0), (200, 1)]


def test_all_actions_are_the_same_in_every_game(tmp_path: Path) -> None:
    record(RecordOptions(game="pong", frames=2, size=16, all_actions=True), tmp_path / "a")
    record(RecordOptions(game="breakout", frames=2, size=16, all_actions=True), tmp_path / "b")
    left, right = (read_data_folder(tmp_path / name) for name in "ab")
    assert left.action_meanings == right.action_meanings and left.num_actions == 18


def test_record_drops_the_short_rest_of_a_cut_episode(tmp_path: Path) -> None:
    options = RecordOptions(game="freeway", frames=500, size=16, frame_skip=60, clip_frames=125)
    record(options, tmp_path / "data")
    clips = read_data_folder(tmp_path / "data").clips
    assert [(clip.frames, clip.episode) for clip in clips] == [(125, index) for index in range(4)]
    assert len(list((tmp_path / "data").iterdir())) == 1 + 4 * len(clips)


def test_record_reports_progress(tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []

    def note(task: str, done: int, total: int, detail: str = "") -> None:
        seen.append((task, done, total))

    record(RecordOptions(game="boxing", frames=10, size=16), tmp_path / "data", note)
    assert seen == [("record boxing", done, 10) for done in range(1, 11)]


def test_record_stopped_by_hand_leaves_nothing(tmp_path: Path) -> None:
    def stop(task: str, done: int, total: int, detail: str = "") -> None:
        if done == 50:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        record(PONG, tmp_path / "data", stop)
    assert not any(tmp_path.iterdir())


def test_record_replaces_a_data_folder_and_nothing_else(tmp_path: Path) -> None:
    options = RecordOptions(game="pong", frames=4, size=16)
    record(options, tmp_path / "data")
    record(options, tmp_path / "data")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("years of work")
    with pytest.raises(WmdeployError, match="not ours to replace"):
        record(options, tmp_path / "other")
    assert (tmp_path / "other" / "thesis.txt").exists()


def test_record_prints_nothing(tmp_path: Path) -> None:
    """ALE greets on stderr; a progress bar would be torn by it."""
    code = (
        "from pathlib import Path; from wmdeploy.clips import RecordOptions, record; "
        f"record(RecordOptions(game='pong', frames=2, size=16), Path({str(tmp_path / 'data')!r}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("frames", 0),
        ("seed", -1),
        ("size", 15),
        ("size", 1025),
        ("frame_skip", 0),
        ("frame_skip", 61),
        ("stickiness", -0.1),
        ("stickiness", 1.1),
        ("stickiness", float("nan")),
        ("clip_frames", 15),
    ],
)
def test_options_outside_their_range_are_refused(field: str, value: float) -> None:
    with pytest.raises(ClipError, match=rf"{field}: got {value}, expected [0-9]+ (to|or more)"):
        RecordOptions(**{"game": "pong", "frames": 10, field: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("game", ["ms_pacman", "MsPacman", "ALE/MsPacman-v5", "ms pacman"])
def test_game_is_found_in_any_spelling(game: str) -> None:
    assert _find_game(game, ["ALE/Pong-v5", "ALE/MsPacman-v5"]) == "ALE/MsPacman-v5"


def test_unknown_game_is_refused_with_close_ones(tmp_path: Path) -> None:
    with pytest.raises(ClipError, match="'pongg' is unknown, .* did you mean Pong"):
        record(RecordOptions(game="pongg", frames=10), tmp_path / "data")
    with pytest.raises(ClipError, match="such as Pong, Boxing"):
        record(RecordOptions(game="!", frames=10), tmp_path / "data")
    assert not any(tmp_path.iterdir())


def test_recording_without_gymnasium_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    with pytest.raises(WmdeployError, match=r"pip install .*\[train\]'"):
        record(PONG, tmp_path / "data")


def test_policy_presses_fire_when_a_life_begins_and_holds_actions() -> None:
    policy = HoldingPolicy(("NOOP", "FIRE", "LEFT", "RIGHT"), seed=0)
    policy.begin_life()
    assert [policy.choose(), policy.choose()] == [1, 1]
    actions = [policy.choose() for _ in range(400)]
    assert set(actions) == {0, 1, 2, 3}
    changes = sum(a != b for a, b in zip(actions, actions[1:], strict=False))
    assert 30 < changes < 130  # held for 4.5 decisions on average


def test_policy_without_fire_presses_nothing_special() -> None:
    policy = HoldingPolicy(("NOOP", "UP"), seed=0)
    policy.begin_life()
    assert {policy.choose() for _ in range(100)} == {0, 1}


@pytest.mark.parametrize("frames", [1, 15, 63, 64, 65, 100, 499, 501, 515, 516, 1001, 1017])
@pytest.mark.parametrize("clip_frames", [16, 17, 30, 500])
def test_next_length_fills_up_exactly_without_useless_rests(frames: int, clip_frames: int) -> None:
    options = RecordOptions(game="pong", frames=frames, clip_frames=clip_frames)
    lengths: list[int] = []
    episodes = [0]
    while sum(lengths) < frames:
        lengths.append(_next_length(options, sum(lengths), episodes[-1]))
        episodes[-1] += lengths[-1]
        if episodes[-1] >= _longest_episode(options):
            episodes.append(0)
    assert sum(lengths) == frames and max(lengths) <= clip_frames
    if frames >= 64:
        assert episodes[1] >= 16  # a second one, for validation
    if frames >= 64 and clip_frames >= 32:
        assert min(lengths) >= 16
