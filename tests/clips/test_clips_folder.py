"""Data folders, and sets of clips: found, split, written, imported."""

import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.clips.made_clips import (
    change_index,
    make_data_folder,
    noise,
)
from wmdeploy.clips import (
    ClipEntry,
    DataFolder,
    check_suffix,
    find_clips,
    read_clip,
    side_by_side,
    split_clips,
    write_npz,
    write_video,
)
from wmdeploy.clips.folder import read_data_folder, write_index
from wmdeploy.errors import ClipError, WmdeployError


@pytest.mark.parametrize(
    "name", ["../out.mkv", "/etc/passwd", "sub/clip.mkv", "a\\b.mkv", "..", "", "c:x.mkv"]
)
def test_data_folder_names_stay_inside(tmp_path: Path, name: str) -> None:
    make_data_folder(tmp_path / "data")
    write_video(tmp_path / "out.mkv", noise(12), fps=15)
    change_index(tmp_path / "data", lambda document: document["clips"][0].update(file=name))
    with pytest.raises(ClipError, match="expected a plain name of a file inside the folder"):
        find_clips(tmp_path / "data")


def test_data_folder_of_a_download_cache_is_read(tmp_path: Path) -> None:
    data = tmp_path / "data"
    make_data_folder(data)
    folder = tmp_path / "snapshots" / "main"
    folder.mkdir(parents=True)
    (tmp_path / "blobs").mkdir()
    for number, path in enumerate(sorted(data.iterdir())):
        shutil.copy(path, tmp_path / "blobs" / str(number))
        (folder / path.name).symlink_to(f"../../blobs/{number}")
    assert read_data_folder(folder) == read_data_folder(data)


def test_data_folder_links_stay_inside(tmp_path: Path) -> None:
    make_data_folder(tmp_path / "data")
    clip = tmp_path / "data" / "clip-00000.mkv"
    clip.rename(tmp_path / "out.mkv")
    clip.symlink_to(tmp_path / "out.mkv")
    with pytest.raises(ClipError, match="inside the folder"):
        read_clip(clip)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda d: d.update(schema=2), "has schema 2, expected 1"),
        (lambda d: d.pop("schema"), '"schema" is missing, expected int'),
        (lambda d: d.update(num_actions=True), '"num_actions" is True, expected int'),
        (lambda d: d.update(fps=0), '"fps" is 0, expected a number above 0'),
        (lambda d: d.update(clips={}), '"clips" is {}, expected list'),
        (lambda d: d.update(clips=[3]), '"clips" holds a int, expected objects'),
        (lambda d: d["clips"][0].update(frames=0), "has 0 frames"),
        (lambda d: d["clips"][0].update(file="gone.mkv"), "lists gone.mkv, which is not there"),
        (lambda d: d.update(clips=[]), "holds no clips"),
    ],
)
def test_data_folder_with_an_invalid_index_is_refused(
    tmp_path: Path, change: Callable[[dict], object], text: str
) -> None:
    make_data_folder(tmp_path / "data")
    change_index(tmp_path / "data", change)
    with pytest.raises(ClipError, match=text):
        find_clips(tmp_path / "data")


@pytest.mark.parametrize("content", ["", "[1, 2]", "{", "[" * 100_000, "\x00"])
def test_data_folder_with_broken_json_is_refused(tmp_path: Path, content: str) -> None:
    make_data_folder(tmp_path / "data")
    (tmp_path / "data" / "clips.json").write_text(content)
    with pytest.raises(ClipError, match="clips.json: "):
        read_clip(tmp_path / "data" / "clip-00000.mkv")


@pytest.mark.parametrize(
    ("actions", "text"),
    [
        (np.arange(5) % 3, r"got int64 \(5,\), expected int64 \(12,\)"),
        (np.zeros(12), r"got float64 \(12,\), expected"),
        (np.full(12, 3), "got actions 3 to 3, expected 0 to 2"),
        (np.full(12, -1), "got actions -1 to -1, expected 0 to 2"),
        (np.array([None] * 12), r"got object \(12,\), expected int64 \(12,\)"),
        (None, "cannot be read as actions"),
    ],
)
def test_data_folder_actions_must_fit(
    tmp_path: Path, actions: np.ndarray | None, text: str
) -> None:
    make_data_folder(tmp_path / "data")
    path = tmp_path / "data" / "clip-00000.actions.npy"
    if actions is None:
        path.unlink()
    else:
        np.save(path, actions)
    with pytest.raises(ClipError, match=text):
        read_clip(tmp_path / "data" / "clip-00000.mkv")


def test_find_clips_lists_a_data_folder_in_its_order(tmp_path: Path) -> None:
    make_data_folder(tmp_path / "data")
    change_index(tmp_path / "data", lambda document: document["clips"].reverse())
    write_video(tmp_path / "data" / "another.mkv", noise(2), fps=15)
    names = [path.name for path in find_clips(tmp_path / "data")]
    assert names == ["clip-00001.mkv", "clip-00000.mkv"]


def test_find_clips_lists_videos_and_arrays_of_any_folder(tmp_path: Path) -> None:
    for name in ("b.MP4", "a10.npz", "a9.webm", ".hidden.mp4", "picture.png", "readme.txt"):
        (tmp_path / name).touch()
    (tmp_path / "folder.mp4").mkdir()
    assert [path.name for path in find_clips(tmp_path)] == ["a9.webm", "a10.npz", "b.MP4"]


def test_find_clips_takes_pictures_as_one_clip(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    assert find_clips(tmp_path) == [tmp_path]


@pytest.mark.parametrize("count", [2, 3, 10, 57])
@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.99])
def test_split_keeps_every_clip_once_and_both_sides_filled(count: int, share: float) -> None:
    clips = [Path(f"clip-{index}.mkv") for index in range(count)]
    training, validation = split_clips(clips, validation=share)
    assert training and validation
    assert sorted(training + validation) == sorted(clips)
    assert abs(len(validation) - share * count) <= 1


def test_split_depends_on_the_seed_and_not_on_the_order() -> None:
    clips = [Path(f"clip-{index}.mkv") for index in range(40)]
    shuffled = random.Random(5).sample(clips, len(clips))
    assert split_clips(clips, seed=1) == split_clips(shuffled, seed=1)
    assert split_clips(clips, seed=1) != split_clips(clips, seed=2)


def test_split_never_puts_one_clip_on_both_sides() -> None:
    training, validation = split_clips([Path("a"), Path("b"), Path("a")], validation=0.5)
    assert not set(training) & set(validation)


def test_split_holds_out_whole_episodes_of_every_data_folder(tmp_path: Path) -> None:
    for game, episodes in (("a", 2), ("b", 5)):
        folder = tmp_path / game
        folder.mkdir()
        entries = []
        for index in range(3 * episodes):
            (folder / f"clip-{index}.mkv").touch()
            entries.append(ClipEntry(f"clip-{index}.mkv", 9, episode=index // 3, score=0))
        write_index(
            DataFolder(
                game=game,
                seed=0,
                size=8,
                fps=15,
                frame_skip=4,
                policy="random",
                num_actions=0,
                action_meanings=(),
                clips=tuple(entries),
            ),
            folder,
        )
    clips = [clip for game in "ab" for clip in find_clips(tmp_path / game)]
    _, validation = split_clips(clips)
    numbers = {
        game: [int(c.stem[5:]) for c in validation if c.parent.name == game] for game in "ab"
    }
    for found in numbers.values():  # one episode each, and all three clips of it
        assert sorted(found) == [min(found), min(found) + 1, min(found) + 2]
        assert min(found) % 3 == 0
    with pytest.raises(ClipError, match="3 clips of one episode, expected 2"):
        split_clips(clips[:3])


def test_split_refuses_a_single_clip_and_impossible_shares() -> None:
    with pytest.raises(ClipError, match="got 1 clip of one episode, expected 2 .* record more"):
        split_clips([Path("a"), Path("a")])
    for share in (0, 1, -0.5, float("nan")):
        with pytest.raises(ClipError, match="expected a share between 0 and 1"):
            split_clips([Path("a"), Path("b")], validation=share)


def test_write_refuses_other_suffixes_and_lists_the_valid(tmp_path: Path) -> None:
    for name in ("a.mov", "a"):
        with pytest.raises(ClipError, match=r"name it .gif, .mkv, .mp4"):
            write_video(tmp_path / name, noise(2), fps=15)
    with pytest.raises(ClipError, match=r"name it .npz"):
        write_npz(tmp_path / "a.mp4", noise(2))
    with pytest.raises(ClipError, match=r"name it .gif, .mkv, .mp4, .npz"):
        check_suffix(tmp_path / "a.txt")
    check_suffix(tmp_path / "a.GIF")
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".gif"])
def test_write_refuses_bad_frames_and_leaves_nothing(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    with pytest.raises(ClipError, match="got no frames"):
        write_video(path, [], fps=15)
    with pytest.raises(ClipError, match=r"frame 1: got float64 \(48, 64, 3\), expected uint8"):
        write_video(path, [noise(1)[0], noise(1)[0] / 255], fps=15)
    with pytest.raises(ClipError, match=r"frame 1: got \(8, 8, 3\), the first was \(48, 64, 3\)"):
        write_video(path, [noise(1)[0], noise(1, 8, 8)[0]], fps=15)
    for fps in (0, -1, float("nan"), float("inf"), 1e6):
        with pytest.raises(ClipError, match="frames per second, expected"):
            write_video(path, noise(2), fps=fps)
    assert not any(tmp_path.iterdir())


def test_write_keeps_the_older_file_when_frames_break_off(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mkv", noise(3), fps=15)
    with pytest.raises(ClipError):
        write_video(tmp_path / "a.mkv", [noise(1)[0], np.zeros(3)], fps=15)
    assert [path.name for path in tmp_path.iterdir()] == ["a.mkv"]
    assert len(read_clip(tmp_path / "a.mkv")) == 3


def test_write_to_an_impossible_place_is_our_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(WmdeployError, match="cannot be written"):
        write_video(tmp_path / "file" / "a.mkv", noise(2), fps=15)


def test_write_says_when_h264_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import av

    monkeypatch.setattr(av, "codecs_available", {"ffv1"})
    with pytest.raises(ClipError, match="has no libx264 encoder; .* or write .gif or .mkv"):
        write_video(tmp_path / "a.mp4", noise(2), fps=15)


def test_side_by_side_joins_with_a_gap() -> None:
    left, right = noise(3, 64, 40), noise(3, 64, 50, seed=1)
    joined = side_by_side(left, right)
    assert joined.shape == (3, 64, 40 + 2 + 50, 3)
    np.testing.assert_array_equal(joined[:, :, :40], left)
    np.testing.assert_array_equal(joined[:, :, -50:], right)


def test_side_by_side_refuses_what_does_not_fit() -> None:
    for right in (noise(2), noise(3, 32, 64)):
        with pytest.raises(ClipError, match="expected the same number of frames and the same"):
            side_by_side(noise(3), right)
    with pytest.raises(ClipError, match="float64"):
        side_by_side(noise(3), noise(3) / 255)


def modules_after(statement: str) -> set[str]:
    code = f"{statement}\nimport sys\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_import_loads_no_framework_and_no_decoder() -> None:
    heavy = {"torch", "onnx", "onnxruntime", "av", "PIL", "gymnasium", "ale_py"}
    assert not heavy & modules_after("import wmdeploy.clips")
    assert "av" in modules_after("import wmdeploy.clips, av")  # the check itself can fail
