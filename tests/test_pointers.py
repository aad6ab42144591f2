"""A pointer of Git LFS, in whatever place a file is read, says to run `git lfs pull`."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import GOLDEN
from wmdeploy.benchmarks.report import read_json
from wmdeploy.clips import find_clips
from wmdeploy.clips.read import SAMPLE_CLIP, count_frames, read_clip
from wmdeploy.errors import CheckpointError, ClipError, WmdeployError
from wmdeploy.families import load_model, save_model
from wmdeploy.files import refuse_pointer

POINTER = (
    "version https://git-lfs.github.com/spec/v1\n"
    "oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n"
)

READERS: dict[str, Callable[[Path], object]] = {
    "x.pt": load_model,
    "x.ckpt": load_model,
    "x.safetensors": load_model,
    "x.mp4": count_frames,
    "x.npz": read_clip,
    "x.png": read_clip,
    "report.json": read_json,
}


@pytest.mark.parametrize("name", READERS)
def test_pointer_is_told(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text(POINTER)
    with pytest.raises(
        WmdeployError, match=f"{path}: is a pointer .*run git lfs pull in {tmp_path}"
    ):
        READERS[name](path)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_pointer_in_a_model_directory_is_told(tmp_path: Path, name: str) -> None:
    save_model(load_model(GOLDEN / "best.pt"), tmp_path / "model")
    (tmp_path / "model" / name).write_text(POINTER)
    with pytest.raises(CheckpointError, match=f"{name}: is a pointer of Git LFS"):
        load_model(tmp_path / "model")


@pytest.mark.parametrize(
    "name",
    ["model.safetensors", "pytorch_model.bin", "model.safetensors.index.json"],
)
def test_pointer_in_a_trainers_folder_is_told(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(POINTER)
    with pytest.raises(CheckpointError, match=f"{name}: is a pointer of Git LFS"):
        load_model(tmp_path)


@pytest.mark.parametrize("name", ["clips.json", "clip-00000.mkv", "clip-00000.actions.npy"])
def test_pointer_in_a_data_folder_is_told(tmp_path: Path, name: str) -> None:
    shutil.copytree(SAMPLE_CLIP.parent, tmp_path / "data")
    (tmp_path / "data" / name).write_text(POINTER)
    with pytest.raises(ClipError, match=f"{name}: is a pointer of Git LFS"):
        read_clip(find_clips(tmp_path / "data")[0])


def test_pointer_among_pictures_is_told(tmp_path: Path) -> None:
    (tmp_path / "0.png").write_text(POINTER)
    with pytest.raises(ClipError, match="0.png: is a pointer of Git LFS"):
        read_clip(tmp_path)


def test_other_files_are_left_to_their_readers(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("version https://example.org")
    for name in ("text", "gone", "."):
        refuse_pointer(tmp_path / name, WmdeployError)
