"""HDF5 files of data sets of this field: their episodes are clips, and nothing outside is read."""

import sys
from io import BytesIO
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from PIL import Image

from wmdeploy.clips import count_frames, find_clips, iter_frames, read_clip, split_clips
from wmdeploy.clips.footage import clip_digest, read_footage
from wmdeploy.clips.read import open_source
from wmdeploy.clips.source import ReadOptions
from wmdeploy.errors import ClipError, WmdeployError

RANDOM = np.random.default_rng(0)
FRAMES = RANDOM.integers(0, 256, (9, 40, 48, 3), dtype=np.uint8)
ACTIONS = RANDOM.integers(0, 4, 8)


def jpeg(frame: np.ndarray) -> np.ndarray:
    buffer = BytesIO()
    Image.fromarray(frame).save(buffer, format="JPEG")
    return np.frombuffer(buffer.getvalue(), np.uint8)


def minari(path: Path, encoded: bool, episodes: int = 12) -> Path:
    """As minari 0.5.4 writes them (dataset/_storages/hdf5_storage.py), in the order of strings."""
    with h5py.File(path, "w") as file:
        for number in range(episodes):
            group = file.create_group(f"episode_{number}")
            shifted = np.roll(FRAMES, number, axis=0)
            if encoded:
                data = np.empty(len(shifted), object)
                data[:] = [jpeg(frame) for frame in shifted]
                group.create_dataset("observations", data=data, dtype=h5py.vlen_dtype(np.uint8))
            else:
                group.create_dataset("observations", data=shifted, chunks=True)
            group.create_dataset("actions", data=ACTIONS, chunks=True, maxshape=(None,))
            for name in ("rewards", "terminations", "truncations"):
                group.create_dataset(name, data=np.zeros(8))
    return path


def robomimic(path: Path, cameras: tuple[str, ...] = ("agentview_image",)) -> Path:
    with h5py.File(path, "w") as file:
        for number in range(11):
            demo = file.create_group(f"data/demo_{number}")
            demo["actions"] = RANDOM.normal(size=(9, 7)).astype(np.float32)
            demo["dones"] = np.arange(9) == 8
            for camera in cameras:
                demo[f"obs/{camera}"] = np.roll(FRAMES, number, axis=0)
                demo[f"next_obs/{camera}"] = FRAMES
            demo["obs/robot0_eef_pos"] = np.zeros((9, 3))
        file["mask/train"] = np.array([b"demo_0"])
    return path


def test_minari_episodes_are_clips_in_their_order(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    path = minari(tmp_path / "data" / "main_data.hdf5", encoded=False)
    (tmp_path / "data" / "metadata.json").write_text('{"data_format": "hdf5"}')
    clips = find_clips(tmp_path)
    assert clips == [path / f"episode_{number}" for number in range(12)]
    clip = read_clip(clips[2])
    np.testing.assert_array_equal(clip.frames, np.roll(FRAMES, 2, axis=0))
    np.testing.assert_array_equal(clip.actions, [*ACTIONS, ACTIONS[-1]])
    np.testing.assert_array_equal(clip.rewards, np.zeros(9, np.float32))
    assert clip.notes == (
        "frames are read from observations",
        "not read: terminations, truncations",
        "there is one action fewer than frames; the last one is repeated",
    )
    part = read_clip(clips[2], size=16, start=3, count=2)
    assert part.frames.shape == (2, 16, 16, 3) and count_frames(clips[2]) == 9
    with pytest.raises(ClipError, match="holds 12 clips .*name it: .*hdf5/episode_0"):
        read_clip(path)


def test_minari_pictures_are_decoded(tmp_path: Path) -> None:
    path = minari(tmp_path / "main_data.hdf5", encoded=True, episodes=2)
    expected = [np.array(Image.open(BytesIO(jpeg(frame).tobytes()))) for frame in FRAMES]
    np.testing.assert_array_equal(read_clip(path / "episode_0").frames, expected)


def test_robomimic_demonstrations_are_clips(tmp_path: Path) -> None:
    path = robomimic(tmp_path / "image.hdf5")
    clips = find_clips(path)
    assert clips == [path / "data" / f"demo_{number}" for number in range(11)]
    clip = read_clip(clips[10])
    np.testing.assert_array_equal(clip.frames, np.roll(FRAMES, 10, axis=0))
    with h5py.File(path) as file:
        np.testing.assert_array_equal(clip.actions, file["data/demo_10/actions"])
    assert clip.actions is not None and clip.actions.dtype == np.float32
    with pytest.raises(ClipError, match="train without actions"):
        open_source(clips[0]).integer_actions()


def test_one_camera_of_several_is_chosen(tmp_path: Path) -> None:
    path = robomimic(tmp_path / "image.hdf5", ("agentview_image", "wrist_image"))
    text = "holds 2 series of frames .obs/agentview_image, obs/wrist_image."
    with pytest.raises(ClipError, match=text):
        read_clip(path / "data" / "demo_1")
    clips = find_clips(tmp_path, "wrist")
    assert clips == [path / "data" / f"demo_{number}" for number in range(11)]
    clip = read_clip(clips[1], options=ReadOptions(series="wrist"))
    np.testing.assert_array_equal(clip.frames, np.roll(FRAMES, 1, axis=0))


def test_flat_file_is_cut_where_episodes_end(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        file["observations"] = FRAMES
        file["actions"] = np.arange(9) % 2
        file["terminals"] = np.arange(9) == 3
        file["timeouts"] = np.arange(9) == 8
    clips = find_clips(tmp_path / "a.hdf5")
    assert [clip.name for clip in clips] == ["episode-00000", "episode-00001"]
    np.testing.assert_array_equal(read_clip(clips[1]).frames, FRAMES[4:])
    np.testing.assert_array_equal(read_clip(clips[1]).actions, [0, 1, 0, 1, 0])
    footage = read_footage(clips, 16, True, [])
    assert footage.spans.lengths == (4, 5)
    assert footage.spans.names == ("a.hdf5/episode-00000", "a.hdf5/episode-00001")


def test_chunks_are_read_whole_and_once(tmp_path: Path, monkeypatch: Any) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("frames", data=FRAMES, chunks=(4, 40, 48, 3), compression="gzip")
    asked: list[Any] = []
    read = h5py.Dataset.__getitem__

    def spy(dataset: Any, key: Any) -> Any:
        asked.append(key)
        return read(dataset, key)

    monkeypatch.setattr(h5py.Dataset, "__getitem__", spy)
    found = list(iter_frames(tmp_path / "a.h5", start=3))
    np.testing.assert_array_equal(found, FRAMES[3:])
    assert [key[-1] for key in asked] == [slice(3, 4), slice(4, 8), slice(8, 9)]


def test_split_and_digests_tell_episodes_apart(tmp_path: Path) -> None:
    clips = find_clips(minari(tmp_path / "a.hdf5", encoded=False, episodes=4))
    training, validation = split_clips(clips, validation=0.25)
    assert len(training) == 3 and len(validation) == 1
    assert len({clip_digest(clip) for clip in clips}) == 4


def test_data_outside_of_the_file_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(FRAMES.tobytes())
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["frames"] = FRAMES
    with h5py.File(tmp_path / "external.h5", "w") as file:
        stored = [(str(tmp_path / "secret"), 0, FRAMES.nbytes)]
        file.create_dataset("frames", FRAMES.shape, np.uint8, external=stored)
    with h5py.File(tmp_path / "virtual.h5", "w") as file:
        layout = h5py.VirtualLayout(FRAMES.shape, np.uint8)
        layout[:] = h5py.VirtualSource(tmp_path / "other.h5", "frames", FRAMES.shape)
        file.create_virtual_dataset("frames", layout)
    with h5py.File(tmp_path / "link.h5", "w") as file:
        file["frames"] = h5py.ExternalLink(tmp_path / "other.h5", "frames")
        file["actions"] = np.zeros(9, np.int64)
    for name in ("external", "virtual"):
        with pytest.raises(ClipError, match="its data lie in other files, which are not read"):
            read_clip(tmp_path / f"{name}.h5")
    with pytest.raises(ClipError, match="holds actions int64"):
        read_clip(tmp_path / "link.h5")


def test_group_inside_itself_ends(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_group("a/b")
        file["a/b/again"] = file["a"]
        file["a/frames"] = FRAMES
    assert find_clips(tmp_path / "a.h5") == [tmp_path / "a.h5" / "a"]
    assert len(read_clip(tmp_path / "a.h5")) == 9


def test_file_of_states_and_of_nothing_and_no_file_are_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "states.h5", "w") as file:
        file["observations"], file["actions"] = np.zeros((9, 17)), np.zeros((9, 6))
    with pytest.raises(ClipError, match="observations is no series of pictures; .*render the st"):
        read_clip(tmp_path / "states.h5")
    with h5py.File(tmp_path / "weights.h5", "w") as file:
        file["layer/kernel"] = np.zeros((3, 3))
    with pytest.raises(ClipError, match="weights.h5: holds layer; expected data sets of frames"):
        read_clip(tmp_path / "weights.h5")
    (tmp_path / "text.h5").write_text("no data")
    with pytest.raises(ClipError, match="text.h5: cannot be read as HDF5") as caught:
        read_clip(tmp_path / "text.h5")
    assert "\n" not in str(caught.value)
    with pytest.raises(ClipError, match=r"states.h5: holds no nothing with an episode"):
        read_clip(tmp_path / "states.h5" / "nothing")


def test_damaged_file_is_one_line_or_frames(tmp_path: Path) -> None:
    good = minari(tmp_path / "good.hdf5", encoded=True, episodes=1).read_bytes()
    refused = 0
    for seed in range(60):
        damage = np.random.default_rng(seed)
        data = bytearray(good)
        for place in damage.integers(0, min(len(data), 8000), 20):
            data[place] ^= 1 << 5
        path = tmp_path / f"bad{seed}.hdf5"
        path.write_bytes(data[: int(len(data) * damage.uniform(0.3, 1.5))])
        try:
            read_clip(path)
        except ClipError as error:
            refused += 1
            assert "\n" not in str(error) and path.name in str(error)
    assert refused > 0


def test_missing_h5py_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    minari(tmp_path / "a.hdf5", encoded=False, episodes=1)
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(WmdeployError, match="reading HDF5 needs h5py"):
        read_clip(tmp_path / "a.hdf5")
