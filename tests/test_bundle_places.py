"""Bundles where people find them: in git, in the cache of a download, packed, or one file of them.

And what one graph tells of itself where there is no manifest.
"""

import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from tests.conftest import Bundles
from wmdeploy import __version__
from wmdeploy.bundle import Bundle
from wmdeploy.clips.clip import Clip
from wmdeploy.engines.base import load_backend
from wmdeploy.engines.ort.cpu import cpu_session
from wmdeploy.engines.rollout import open_source, rollout
from wmdeploy.engines.trt.plans import BuildOptions, build_plans
from wmdeploy.errors import BackendError, BundleError, CheckpointError, WmdeployError
from wmdeploy.exporters.to_onnx import write_onnx
from wmdeploy.families import Graph, load_model
from wmdeploy.files import sha256
from wmdeploy.manifest import write_manifest
from wmdeploy.programs.contract import TensorSpec

POINTER = (
    "version https://git-lfs.github.com/spec/v1\n"
    "oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n"
)


@pytest.fixture
def copy(bundles: Bundles, tmp_path: Path) -> Path:
    shutil.copytree(bundles().path, tmp_path / "copy")
    return tmp_path / "copy"


def git(*arguments: str, where: Path) -> None:
    identity = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    subprocess.run(["git", *identity, *arguments], cwd=where, check=True, capture_output=True)


def clone(copy: Path, attributes: bool) -> Path:
    """What git for Windows checks out of a repository that holds the bundle."""
    if not attributes:
        (copy / ".gitattributes").unlink()
    git("init", where=copy)
    git("add", "-A", where=copy)
    git("commit", "-m", "a bundle", where=copy)
    git("-c", "core.autocrlf=true", "clone", str(copy), "clone", where=copy.parent)
    return copy.parent / "clone"


def test_clone_that_changes_line_ends_is_whole(copy: Path) -> None:
    Bundle.open(clone(copy, attributes=True)).verify()


def test_changed_line_ends_are_told(copy: Path) -> None:
    with pytest.raises(BundleError, match=r"config.json: git changed its line ends .*autocrlf=fal"):
        Bundle.open(clone(copy, attributes=False))


def snapshot(bundle: Path, cache: Path) -> Path:
    """A bundle as huggingface_hub keeps it: names that link to files named by their hash."""
    (cache / "blobs").mkdir(parents=True)
    for file in (path for path in bundle.rglob("*") if path.is_file()):
        blob = cache / "blobs" / sha256(file)
        shutil.copy(file, blob)
        link = cache / "snapshots" / "main" / file.relative_to(bundle)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))
    return cache / "snapshots" / "main"


def test_snapshot_of_a_download_cache_runs(bundles: Bundles, tmp_path: Path, clip: Clip) -> None:
    path = snapshot(bundles().path, tmp_path / "cache")
    Bundle.open(path).verify()
    load_model(Bundle.open(path).checked_model())
    frames = rollout(open_source(str(path), None), clip, context=2, horizon=2)
    expected = rollout(load_backend("ort-cpu", bundles()), clip, context=2, horizon=2)
    assert np.array_equal(list(frames), list(expected))


def test_altered_file_behind_a_link_is_refused(bundles: Bundles, tmp_path: Path) -> None:
    path = snapshot(bundles().path, tmp_path / "cache")
    blob = (path / "weights.data").resolve()
    data = bytearray(blob.read_bytes())
    data[0] ^= 1
    blob.write_bytes(data)
    with pytest.raises(BundleError, match="weights.data: sha256 is .* the file was altered"):
        Bundle.open(path).checked_graph("step")


def test_nothing_is_written_through_a_link(bundles: Bundles, tmp_path: Path) -> None:
    path = snapshot(bundles().path, tmp_path / "cache")
    before = {file: sha256(file) for file in (tmp_path / "cache").rglob("*") if file.is_file()}
    with pytest.raises(WmdeployError, match="manifest.json: is a link.*cp -rL"):
        write_manifest(Bundle.open(path).manifest, path)
    with pytest.raises(WmdeployError, match="manifest.json: is a link.*cp -rL"):
        build_plans(BuildOptions(bundle=path))
    after = {file: sha256(file) for file in (tmp_path / "cache").rglob("*") if file.is_file()}
    assert before == after and not (path / "plans").exists()


@pytest.mark.parametrize("name", ["step.onnx", "manifest.json", "model/config.json"])
@pytest.mark.parametrize("target", ["/dev/zero", "/nowhere", "."])
def test_link_to_no_regular_file_is_refused(copy: Path, name: str, target: str) -> None:
    (copy / name).unlink()
    (copy / name).symlink_to(target)
    with pytest.raises(BundleError, match=f"{name}: is missing|no manifest.json there"):
        Bundle.open(copy)


@pytest.mark.parametrize("name", ["step.onnx", "weights.data", "manifest.json"])
def test_one_file_of_a_bundle_asks_for_the_folder(copy: Path, name: str) -> None:
    for give in (lambda path: Bundle.open(path), lambda path: open_source(str(path), None)):
        with pytest.raises(WmdeployError, match=f"give the bundle's folder: {copy}$"):
            give(copy / name)


def test_packed_bundle_asks_for_the_folder(copy: Path, tmp_path: Path) -> None:
    shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path, "copy")
    with tarfile.open(tmp_path / "packed.tar.gz", "w:gz") as archive:
        archive.add(copy, "copy")
    for name in ("packed.zip", "packed.tar.gz"):
        with pytest.raises(BundleError, match="unpack it, and give the bundle's folder"):
            Bundle.open(tmp_path / name)
        with pytest.raises(CheckpointError, match="unpack it, and give the bundle's folder"):
            load_model(tmp_path / name)


def test_folder_around_a_bundle_names_the_bundle(copy: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=f"it holds a bundle, give that: {copy}$"):
        Bundle.open(tmp_path)
    with pytest.raises(CheckpointError, match=f"it holds a bundle, give that: {copy}$"):
        load_model(tmp_path)


@pytest.mark.parametrize("name", ["manifest.json", "weights.data", "model/model.safetensors"])
def test_pointer_of_git_lfs_is_told(copy: Path, name: str) -> None:
    (copy / name).write_text(POINTER)
    with pytest.raises(BundleError, match=f"{name}: is a pointer of Git LFS.*run git lfs pull in"):
        Bundle.open(copy)


def test_graph_explains_itself(bundles: Bundles) -> None:
    names = set()
    for layout, precision in (("token", "fp32"), ("latent", "fp32"), ("token", "fp16")):
        bundle = bundles(layout, precision)
        for name in bundle.manifest.graphs:
            path = str(bundle.path / f"{name}.onnx")
            told = onnxruntime.InferenceSession(path).get_modelmeta()
            assert told.graph_name == name and told.producer_name == "wmdeploy"
            assert told.description.startswith(f"{name} of a world model")
            assert told.custom_metadata_map == {
                "graph": name,
                "family": "VQ-VAE and causal transformer",
                "layout": layout,
                "precision": precision,
                "weights": bundle.manifest.recipe.source,
                "wmdeploy": __version__,
            }
            names.add((name, layout, precision))
    assert len(names) == 12


class Double(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2


def test_export_twice_gives_equal_files(tmp_path: Path) -> None:
    spec = TensorSpec("x", "float32", ("B", 4))
    graph = Graph(Double(), (spec,), (TensorSpec("y", "float32", ("B", 4)),))
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        about = {"layout": "token", "family": "f"}
        write_onnx(graph, tmp_path / folder / "g.onnx", opset=23, max_batch=4, about=about)
    assert sha256(tmp_path / "a" / "g.onnx") == sha256(tmp_path / "b" / "g.onnx")


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("opset", r"it is of opset 99, and this one knows opsets up to \d+; upgrade it \(pip ins"),
        ("format", r"it is of ONNX's format 99, and this one reads formats up to \d+; upgrade it"),
    ],
)
def test_graph_that_is_too_new_names_the_remedy(
    bundles: Bundles, tmp_path: Path, field: str, message: str
) -> None:
    for file in bundles().path.glob("step.onnx*"):
        shutil.copy(file, tmp_path)
    model = onnx.load(tmp_path / "step.onnx", load_external_data=False)
    if field == "opset":
        model.opset_import[0].version = 99
    else:
        model.ir_version = 99
    (tmp_path / "step.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(BackendError, match=message) as caught:
        cpu_session(tmp_path / "step.onnx")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400
