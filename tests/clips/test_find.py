"""What a folder gives: every clip that the reader reads, and the names of what is left out."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.clips.made_clips import make_data_folder
from tests.squares import square_clip, write_squares
from wmdeploy.clips import find_clips, read_clip, write_npz, write_video
from wmdeploy.clips.find import left_out_line, search
from wmdeploy.clips.footage import read_footage
from wmdeploy.clips.suffixes import ARRAY_SUFFIXES, CLIP_SUFFIXES, VIDEO_SUFFIXES
from wmdeploy.errors import ClipError
from wmdeploy.training.data import TrainingClips, find_data

FRAMES = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), dtype=np.uint8)


def pictures(folder: Path, suffix: str = ".png", frames: np.ndarray = FRAMES) -> Path:
    folder.mkdir(parents=True)
    for index, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / f"{index}{suffix}", lossless=True)
    return folder


def found_data(*folders: Path) -> tuple[TrainingClips, list[str]]:
    lines: list[str] = []
    clips = find_data(folders, size=16, validation=0.2, seed=0, actions=True, tell=lines.append)
    return clips, lines


def test_every_suffix_of_the_reader_is_taken(tmp_path: Path) -> None:
    for suffix in VIDEO_SUFFIXES | ARRAY_SUFFIXES:
        (tmp_path / f"clip{suffix}").touch()
    assert {clip.suffix for clip in find_clips(tmp_path)} == VIDEO_SUFFIXES | ARRAY_SUFFIXES
    assert search(tmp_path).left_out == []
    for suffix in CLIP_SUFFIXES - VIDEO_SUFFIXES - ARRAY_SUFFIXES:
        (tmp_path / f"of{suffix}").mkdir()
        (tmp_path / f"of{suffix}" / f"0{suffix}").touch()
    assert search(tmp_path).left_out == []
    assert len(find_clips(tmp_path)) == len(CLIP_SUFFIXES)


def test_folder_for_each_episode(tmp_path: Path) -> None:
    for episode in (1, 2, 10):
        pictures(tmp_path / "level" / f"episode{episode}", ".webp")
    np.savez(tmp_path / "a.npz", frames=FRAMES)
    clips = find_clips(tmp_path)
    names = ["a.npz", "level/episode1", "level/episode2", "level/episode10"]
    assert [str(clip.relative_to(tmp_path)) for clip in clips] == names
    for clip in clips:
        np.testing.assert_array_equal(read_clip(clip).frames, FRAMES)
    footage = read_footage(clips, 16, True, [], roots=[tmp_path])
    assert footage.groups == (tmp_path.name,) * 4
    assert footage.spans.names[1] == f"{tmp_path.name}/level/episode1"


def test_arrays_of_an_episode_in_their_own_files(tmp_path: Path) -> None:
    for episode in "ab":
        (tmp_path / episode).mkdir()
        np.save(tmp_path / episode / "frames.npy", FRAMES)
        np.save(tmp_path / episode / "actions.npy", np.arange(5) % 3)
    found = search(tmp_path)
    assert found.clips == [tmp_path / episode / "frames.npy" for episode in "ab"]
    assert found.left_out == []
    clip = read_clip(found.clips[0])
    np.testing.assert_array_equal(clip.actions, np.arange(5) % 3)
    assert clip.notes == ("actions are read from actions.npy",)


def test_actions_beside_a_video_and_in_a_folder_of_pictures_are_read(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mkv", FRAMES, fps=15)
    np.save(tmp_path / "a.actions.npy", np.arange(5))
    folder = pictures(tmp_path / "b")
    np.save(folder / "actions.npy", np.arange(4))
    found = search(tmp_path)
    assert found.clips == [tmp_path / "a.mkv", folder] and found.left_out == []
    np.testing.assert_array_equal(read_clip(tmp_path / "a.mkv").actions, np.arange(5))
    np.testing.assert_array_equal(read_clip(folder).actions, [0, 1, 2, 3, 3])


def test_what_is_left_out_is_counted_and_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", frames=FRAMES)
    for name in ("notes.txt", "cover.png", "labels.csv", ".hidden"):
        (tmp_path / name).touch()
    os.mkfifo(tmp_path / "pipe.npz")
    found = search(tmp_path)
    assert found.clips == [tmp_path / "a.npz"]
    text = f"{tmp_path}: 4 entries are not read: cover.png, labels.csv, notes.txt, pipe.npz"
    assert left_out_line(tmp_path, found) == text
    make_data_folder(tmp_path / "data")
    (tmp_path / "data" / "clip-00009.mkv").touch()
    found = search(tmp_path / "data")
    assert left_out_line(tmp_path / "data", found).endswith("1 entry is not read: clip-00009.mkv")


def test_links_to_folders_are_left_out(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", frames=FRAMES)
    (tmp_path / "again").symlink_to(tmp_path)
    found = search(tmp_path)
    assert (found.clips, found.left_out) == ([tmp_path / "a.npz"], [tmp_path / "again"])


def test_training_tells_what_is_not_read_before_it_begins(tmp_path: Path) -> None:
    for index in range(4):
        frames, actions = square_clip(12, index)
        np.savez(tmp_path / f"{index}.npz", image=frames, action=actions, reward=np.zeros(12))
    (tmp_path / "notes.txt").touch()
    clips, lines = found_data(tmp_path)
    assert clips.num_actions == 2 and clips.skipped == []
    assert lines == [
        f"{tmp_path}: 1 entry is not read: notes.txt",
        "4 of 4 clips: frames are read from image",
        "4 of 4 clips: not read: reward",
        "4 of 4 clips: actions are read from action",
    ]


def test_float_actions_are_no_silent_loss(tmp_path: Path) -> None:
    for index in range(3):
        np.savez(tmp_path / f"{index}.npz", frames=FRAMES, actions=np.zeros((5, 6), np.float32))
    text = r"0 of 3 clips can be used.*train without actions.* \(2 more alike\)$"
    with pytest.raises(ClipError, match=text):
        found_data(tmp_path)


def test_broken_file_of_arrays_does_not_hide_the_others(tmp_path: Path) -> None:
    write_squares(tmp_path)
    (tmp_path / "bad.npz").write_text("no data")
    clips, _ = found_data(tmp_path)
    assert len(clips.paths[0] + clips.paths[1]) == 5
    assert clips.skipped == [
        f"{tmp_path / 'bad.npz'}: cannot be read as .npz (File is not a zip file)"
    ]


@pytest.mark.parametrize(
    ("files", "text"),
    [
        (
            {"meta/info.json": '{"codebase_version": "v3.0"}'},
            r"is a LeRobot dataset \(v3.0\).*savez",
        ),
        (
            {"meta/info.json": '{"codebase_version": "v2.1"}', "videos/chunk-000/top/0.mp4": ""},
            "without actions: give .*/videos/chunk-000/top",
        ),
        ({".zgroup": "{}"}, "is a Zarr store, which is not read; .*savez"),
        ({"zarr.json": "{}"}, "is a Zarr store, which is not read; .*savez"),
        ({"metadata.json": '{"data_format": "arrow"}'}, "Minari dataset in Arrow files.*savez"),
        (
            {"features.json": "{}", "dataset_info.json": "{}"},
            "is a dataset of TensorFlow Datasets, which is not read; .*savez",
        ),
        ({"0.pt": ""}, "0.pt is a file of PyTorch, which is not read; .*savez"),
        ({"0.pkl": ""}, "0.pkl is a pickle, which could run code"),
        ({"train.parquet": ""}, "is a Parquet table, which is not read; .*savez"),
        ({"a.tar": ""}, "is an archive, which is not read; unpack it"),
    ],
)
def test_data_of_other_tools_are_named_with_their_conversion(
    tmp_path: Path, files: dict[str, str], text: str
) -> None:
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    for read in (find_clips, read_clip):
        with pytest.raises(ClipError, match=text) as caught:
            read(tmp_path)
        assert "\n" not in str(caught.value)


def test_file_of_another_tool_is_named(tmp_path: Path) -> None:
    (tmp_path / "episode_0.pt").write_bytes(b"PK")
    with pytest.raises(ClipError, match="episode_0.pt: is a file of PyTorch, which is not read"):
        read_clip(tmp_path / "episode_0.pt")


def test_index_of_a_huge_clip_is_refused(tmp_path: Path) -> None:
    make_data_folder(tmp_path / "data")
    index = json.loads((tmp_path / "data" / "clips.json").read_text())
    index["clips"][0]["frames"] = 10**12
    (tmp_path / "data" / "clips.json").write_text(json.dumps(index))
    with pytest.raises(ClipError, match="has 1000000000000 frames, expected 1 to 10000000"):
        find_clips(tmp_path / "data")


def test_output_is_not_written_over_the_file_that_a_clip_lies_in(tmp_path: Path) -> None:
    from wmdeploy.errors import WmdeployError
    from wmdeploy.files import check_output

    write_npz(tmp_path / "a.npz", FRAMES, None)
    with pytest.raises(WmdeployError, match="is the input"):
        check_output(tmp_path / "a.npz", tmp_path / "a.npz" / "episode-00000")
