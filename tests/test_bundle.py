import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

from tests.conftest import Bundles
from wmdeploy.bundle import Bundle
from wmdeploy.errors import BundleError
from wmdeploy.files import sha256
from wmdeploy.graph_file import checked_weight_bytes
from wmdeploy.programs.contract import TensorSpec


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


@pytest.mark.parametrize("name", ["step.onnx", "weights.data", "model/model.safetensors"])
def test_missing_file_is_named(copy: Path, name: str) -> None:
    (copy / name).unlink()
    with pytest.raises(BundleError, match=f"{name}: is missing"):
        Bundle.open(copy)


def test_truncated_file_is_named_with_both_sizes(copy: Path) -> None:
    os.truncate(copy / "weights.data", 100)
    with pytest.raises(BundleError, match="weights.data: got 100 bytes, expected"):
        Bundle.open(copy)


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("step.onnx", lambda b: b.checked_graph("step")),
        ("weights.data", lambda b: b.checked_graph("step")),
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


@pytest.mark.parametrize("schema", [1, 3, None, "2"])
def test_other_schema_asks_for_an_export_or_an_upgrade(copy: Path, schema: object) -> None:
    edit_manifest(copy, lambda m: m.update(schema=schema))
    with pytest.raises(
        BundleError, match=f"got schema {schema}, expected 2; .* export the model again"
    ):
        Bundle.open(copy)


@pytest.mark.parametrize(
    "place",
    [
        lambda m: m["programs"],
        lambda m: m["programs"]["predict"][0],
        lambda m: m["programs"]["noise"]["z"],
        lambda m: m["programs"]["state"][0],
    ],
)
def test_field_of_the_programs_that_this_version_lacks_is_refused(
    copy: Path, place: Callable[[dict[str, Any]], dict[str, Any]]
) -> None:
    noise = {"z": {"kind": "normal", "shape": [4]}}
    edit_manifest(copy, lambda m: m["programs"].update(noise=noise))
    edit_manifest(copy, lambda m: place(m).update(masked=None, blended=False))  # not in use
    Bundle.open(copy)
    edit_manifest(copy, lambda m: place(m).update(masked="yes"))
    with pytest.raises(BundleError, match='the programs have "masked", which this version'):
        Bundle.open(copy)


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"schema": 2}', '{"schema": 2, "files": 3}'])
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


@pytest.mark.parametrize(
    ("keys", "fault"),
    [
        ({"location": "weights.data"}, "has the number ''"),
        ({"location": "weights.data", "length": "-4"}, "has the number '-4'"),
        ({"location": "weights.data", "length": "0"}, "have no length"),
        ({"location": "weights.data", "length": "4", "offset": "x"}, "has the number 'x'"),
        ({"location": "weights.data", "length": "4", "checksum": "0"}, "is said by"),
    ],
)
def test_weights_whose_place_is_not_said_in_full_are_refused(
    copy: Path, keys: dict[str, str], fault: str
) -> None:
    """Or a graph would read a file that no hash covers."""
    path = copy / "step.onnx"
    model = onnx.load(path, load_external_data=False)
    tensor = next(t for t in model.graph.initializer if t.external_data)
    del tensor.external_data[:]
    for key, value in keys.items():
        tensor.external_data.add(key=key, value=value)
    path.write_bytes(model.SerializeToString())
    with pytest.raises(BundleError, match=fault):
        checked_weight_bytes(path)


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
    with pytest.raises(BundleError, match=f"from '{location}', expected weights.data; refused"):
        Bundle.open(copy).checked_graph("step")


def call(manifest: dict[str, Any], program: str) -> dict[str, Any]:
    found: dict[str, Any] = manifest["programs"][program][0]
    return found


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda m: call(m, "predict")["feeds"].update(token="newest.nope"),
            'predict: step is fed from "newest.nope", which there is not',
        ),
        (
            lambda m: call(m, "predict")["feeds"].update(token="frame"),
            'predict: step is fed from "frame"',
        ),
        (
            lambda m: call(m, "predict")["feeds"].update(token="new.token"),
            'predict: step is fed from "new.token"',  # nothing has made it yet
        ),
        (lambda m: call(m, "predict")["feeds"].update(token=""), 'step is fed from ""'),
        (
            lambda m: call(m, "predict")["feeds"].pop("keys"),
            'predict: step."keys" is fed by nothing',
        ),
        (
            lambda m: call(m, "predict")["feeds"].update(more="zero"),
            'step."more" is no input of the graph',
        ),
        (
            lambda m: call(m, "predict")["feeds"].update(token="state.shown", keys="newest.token"),
            r"step.keys is float32 \(2, B, 2, 6, 16\), and newest.token is float32 \(B, 32\)",
        ),
        (
            lambda m: call(m, "predict")["gives"].update({"state.nope": "hidden"}),
            'predict: step gives "state.nope", which nothing declares',
        ),
        (
            lambda m: call(m, "predict")["gives"].update({"frame": "hidden"}),
            'step gives "frame", which is no target there',
        ),
        (
            lambda m: call(m, "predict")["gives"].update({"state.keys": "x"}),
            'predict: "x" is no output of the graph step',
        ),
        (
            lambda m: call(m, "predict")["gives"].update({"state.keys": "hidden"}),
            "state.keys is float32 .* step gives float32",
        ),
        (lambda m: call(m, "predict")["gives"].pop("new.token"), 'predict gives no "new.token"'),
        (lambda m: call(m, "refresh")["gives"].pop("new.token"), 'refresh gives no "new.token"'),
        (
            lambda m: call(m, "predict").update(graph="nope"),
            'predict calls "nope", and there is no such graph',
        ),
        (lambda m: m["graphs"].pop("decoder"), 'render calls "decoder", and there is no such'),
        (lambda m: m["programs"].update(predict=[]), "no program predict"),
        (lambda m: m["programs"].update(encode=[]), "no program encode"),
        (
            lambda m: call(m, "encode")["feeds"].update(frames="zero"),
            "encode takes no frame",
        ),
        (lambda m: call(m, "render").update(gives={}), "render gives no frame"),
        (lambda m: call(m, "predict").update(times=10**9), "runs of graphs, expected 1 to"),
        (lambda m: call(m, "predict").update(times=0), "runs of graphs, expected 1 to"),
        (lambda m: call(m, "predict").update(times=-(10**9)), "runs of graphs, expected 1 to"),
        (lambda m: call(m, "predict").update(start=10**9), "runs of graphs, expected 1 to"),
        (
            lambda m: m["programs"]["noise"].update(z={"kind": "normal", "shape": [10**9, 64]}),
            "bytes for each row, expected at most",
        ),
        (
            lambda m: m["programs"]["noise"].update(z={"kind": "pink", "shape": [4]}),
            "damaged .Invalid enum value 'pink'",
        ),
        (lambda m: m["programs"].update(context=10**9), "a context of 1000000000 frames"),
        (lambda m: m["programs"].update(context=0), "a context of 0 frames"),
        (lambda m: m["programs"].update(context=2**16, keep=6), "prefill.tokens is float32"),
        (lambda m: m["programs"].update(keep=0), "keep 0 and least 1, expected 1 to the context 6"),
        (lambda m: m["programs"].update(least=7), "keep 6 and least 7, expected 1 to"),
        (
            lambda m: m["programs"]["state"][0].update(shape=["B", 10**10]),
            "bytes for each row, expected at most",
        ),
        (lambda m: m["programs"]["state"][0].update(shape=["B", -3]), "sizes that no tensor has"),
        (lambda m: m["programs"]["state"][0].update(shape=[3]), 'the state "keys" of shape'),
        (
            lambda m: m["programs"]["state"].append(m["programs"]["state"][0]),
            "a state that is there twice",
        ),
        (lambda m: m["programs"].update(num_actions=3), "a number of actions without an action"),
        (lambda m: m["programs"].update(undo=["nope"]), 'undo names "nope", which is no state'),
        (lambda m: m["programs"].update(refresh=[]), "a refresh that predicts, where"),
        (
            lambda m: m["graphs"].update(frame=m["graphs"].pop("step")),
            "the manifest names a graph 'frame'; export again",  # a benchmark's own word
        ),
        (
            lambda m: m["graphs"].update({"../step": m["graphs"].pop("step")}),
            "the manifest names a graph '../step'; export again",
        ),
        (lambda m: m["graphs"]["step"]["inputs"][0].update(shape=["B", -3]), "sizes that no model"),
        (
            lambda m: m["graphs"]["step"]["inputs"][2].update(shape=[]),
            r'"keys" has the shape \(\), expected one batch axis',
        ),
        (
            lambda m: m["graphs"]["encoder"]["inputs"][0].update(shape=["B", 10**7, 10**7, 3]),
            "sizes that no model has",
        ),
        (
            lambda m: m["graphs"]["encoder"]["inputs"][0].update(shape=["B", 32, 16, 3]),
            r"encoder.frames is uint8 \(B, 32, 16, 3\)",
        ),
        (lambda m: m["recipe"].update(max_batch=0), "a batch below 1"),
        (lambda m: m["graphs"]["step"]["inputs"][0].update(shape=["B", "D"]), "Invalid enum|`int"),
    ],
)
def test_programs_that_make_no_sense_are_refused_in_one_line(
    copy: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    edit_manifest(copy, change)
    with pytest.raises(BundleError, match=message) as caught:
        Bundle.open(copy)
    text = str(caught.value)
    assert "\n" not in text and "export" in text and len(text) < 500


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


def test_weights_of_all_graphs_are_in_one_file_each_once(bundles: Bundles) -> None:
    bundle = bundles()
    data = (bundle.path / "weights.data").read_bytes()
    places: dict[str, set[tuple[int, int]]] = {}
    for name, graph in bundle.manifest.graphs.items():
        model = onnx.load(bundle.path / graph.file, load_external_data=False)
        entries = [{e.key: e.value for e in t.external_data} for t in model.graph.initializer]
        places[name] = {(int(e["offset"]), int(e["length"])) for e in entries if e}
        assert {e["location"] for e in entries if e} == {"weights.data"}
        weight_bytes = checked_weight_bytes(bundle.path / graph.file)
        assert weight_bytes == graph.weight_bytes == sum(length for _, length in places[name]) > 0
    assert places["prefill"] == places["step"]
    every = set().union(*places.values())
    assert len({data[offset : offset + length] for offset, length in every}) == len(every)


def test_tensor_bytes_count_the_batch() -> None:
    spec = TensorSpec("keys", "float16", (2, "B", 4, 8, 16))
    assert spec.bytes(3) == 2 * 2 * 3 * 4 * 8 * 16
    assert str(spec) == "float16 (2, B, 4, 8, 16)"
