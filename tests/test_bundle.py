import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

from tests.conftest import Bundles
from wmdeploy.bundle import Bundle, external_data_files
from wmdeploy.errors import BundleError
from wmdeploy.files import sha256
from wmdeploy.manifest import TensorSpec


@pytest.fixture
def copy(bundles: Bundles, tmp_path: Path) -> Path:
    shutil.copytree(bundles().path, tmp_path / "copy")
    return tmp_path / "copy"


def edit_manifest(bundle: Path, change: Callable[[dict[str, Any]], object]) -> None:
    document = json.loads((bundle / "manifest.json").read_text())
    change(document)
    (bundle / "manifest.json").write_text(json.dumps(document))


def flip_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_copied_bundle_is_whole(copy: Path) -> None:
    bundle = Bundle.open(copy)
    bundle.verify()
    assert list(bundle.manifest.graphs) == ["encoder", "prefill", "step", "decoder"]
    assert all(bundle.checked_graph(name).is_file() for name in bundle.manifest.graphs)
    assert bundle.checked_model() == copy / "model"


@pytest.mark.parametrize("name", ["step.onnx", "decoder.onnx.data", "model/model.safetensors"])
def test_missing_file_is_named(copy: Path, name: str) -> None:
    (copy / name).unlink()
    with pytest.raises(BundleError, match=f"{name}: is missing"):
        Bundle.open(copy)


def test_truncated_file_is_named_with_both_sizes(copy: Path) -> None:
    os.truncate(copy / "encoder.onnx.data", 100)
    with pytest.raises(BundleError, match="encoder.onnx.data: got 100 bytes, expected"):
        Bundle.open(copy)


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("step.onnx", lambda b: b.checked_graph("step")),
        ("step.onnx.data", lambda b: b.checked_graph("step")),
        ("model/config.json", lambda b: b.checked_model()),
        ("model/model.safetensors", lambda b: b.checked_model()),
    ],
)
def test_altered_file_is_refused_before_it_is_read(
    copy: Path, name: str, read: Callable[[Bundle], object]
) -> None:
    flip_byte(copy / name)
    with pytest.raises(BundleError, match=f"{name}: sha256 is .*the file was altered"):
        read(Bundle.open(copy))


def test_newer_schema_asks_for_an_upgrade(copy: Path) -> None:
    edit_manifest(copy, lambda m: m.update(schema=2))
    with pytest.raises(BundleError, match="got schema 2, expected 1; upgrade wmdeploy"):
        Bundle.open(copy)


def test_wiring_that_this_version_lacks_is_refused(copy: Path) -> None:
    edit_manifest(copy, lambda m: m["wiring"].update(drift=None))  # as older versions wrote
    Bundle.open(copy)
    edit_manifest(copy, lambda m: m["wiring"].update(drift=["drift", "next_drift"]))
    with pytest.raises(BundleError, match='wiring names "drift".* no such wiring'):
        Bundle.open(copy)


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"schema": 1}', '{"schema": 1, "files": 3}'])
def test_damaged_manifest_is_explained(copy: Path, text: str) -> None:
    (copy / "manifest.json").write_text(text)
    with pytest.raises(BundleError, match="manifest.json"):
        Bundle.open(copy)


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a/../../secret", "a\\..\\b", ""])
def test_path_that_leaves_the_bundle_is_refused(copy: Path, name: str) -> None:
    (copy.parent / "secret").write_text("x")
    edit_manifest(copy, lambda m: m["files"].update({name: {"sha256": "0", "bytes": 1}}))
    with pytest.raises(BundleError, match="leaves the bundle; refused"):
        Bundle.open(copy)


def test_link_to_a_directory_is_refused(copy: Path) -> None:
    (copy / "model").rename(copy.parent / "outside")
    (copy / "model").symlink_to(copy.parent / "outside")
    with pytest.raises(BundleError, match="model: is a link to a directory"):
        Bundle.open(copy)


@pytest.mark.parametrize("location", ["../outside.data", "/etc/hostname", "model/../x"])
def test_graph_that_reads_weights_elsewhere_is_refused(copy: Path, location: str) -> None:
    path = copy / "step.onnx"
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    path.write_bytes(model.SerializeToString())
    record = {"sha256": sha256(path), "bytes": path.stat().st_size}
    edit_manifest(copy, lambda m: m["files"].update({"step.onnx": record}))
    with pytest.raises(BundleError, match=f"from '{location}', expected step.onnx.data; refused"):
        Bundle.open(copy).checked_graph("step")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda m: m["wiring"].update(window="nope"),
            'names "nope", which is no tensor of the',
        ),
        (lambda m: m["wiring"].update(cache=[["keys", "x"]]), 'names "x", .* of the step graph'),
        (lambda m: m["graphs"].pop("decoder"), "has no decoder graph"),
        (lambda m: m["wiring"].update(context=0), "prefill.tokens has the shape"),
        (lambda m: m["wiring"].update(context=10**12), "prefill.tokens has the shape"),
        (lambda m: m["graphs"]["step"]["inputs"][0].update(shape=["B", -3]), "sizes that no model"),
        (lambda m: m["graphs"]["step"]["inputs"][2].update(shape=[]), "next_keys has the shape"),
        (lambda m: m["graphs"]["encoder"]["inputs"][0].update(shape=[]), "encoder.frames has the"),
        (
            lambda m: m["graphs"]["encoder"]["inputs"][0].update(shape=["B", 10**7, 10**7, 3]),
            "sizes that no model has",
        ),
        (lambda m: m["recipe"].update(max_batch=0), "a batch below its least"),
        (lambda m: m["graphs"]["step"]["inputs"][0].update(shape=["B", "D"]), "Invalid enum|`int"),
    ],
)
def test_wiring_that_does_not_fit_the_graphs_is_refused(
    copy: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    edit_manifest(copy, change)
    with pytest.raises(BundleError, match=message):
        Bundle.open(copy)


def test_graph_with_a_file_outside_the_manifest_is_refused(copy: Path) -> None:
    edit_manifest(copy, lambda m: m["graphs"]["step"].update(file="other.onnx"))
    with pytest.raises(BundleError, match="other.onnx is not among the manifest's files"):
        Bundle.open(copy)


def test_not_a_bundle_says_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no manifest.json there; expected a bundle"):
        Bundle.open(tmp_path)


def test_unknown_graph_lists_the_graphs(bundles: Bundles) -> None:
    with pytest.raises(BundleError, match='no graph "decode"; it has encoder, prefill, step'):
        bundles().checked_graph("decode")


def test_weights_of_every_graph_are_beside_it(bundles: Bundles) -> None:
    bundle = bundles()
    for name in bundle.manifest.graphs:
        assert external_data_files(bundle.path / f"{name}.onnx") == {f"{name}.onnx.data"}


def test_tensor_bytes_count_the_batch() -> None:
    spec = TensorSpec("keys", "float16", (2, "B", 4, 8, 16))
    assert spec.bytes(3) == 2 * 2 * 3 * 4 * 8 * 16
    assert str(spec) == "float16 (2, B, 4, 8, 16)"
