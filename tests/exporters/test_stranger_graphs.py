"""Graphs of a stranger whose hashes fit: what no export of ours holds is refused before it runs."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import wmdeploy.engines.ort.cpu
from tests.conftest import Bundles
from tests.test_bundle import edit_manifest, flip_byte
from wmdeploy.bundle import Bundle
from wmdeploy.engines.base import load_backend
from wmdeploy.engines.checks import check_results
from wmdeploy.errors import BackendError, BundleError
from wmdeploy.files import sha256
from wmdeploy.graph_file import OPERATORS, checked_weight_bytes
from wmdeploy.locks import exchange

Change = Callable[[onnx.ModelProto], object]


@pytest.fixture
def copy(bundles: Bundles, tmp_path: Path) -> Path:
    shutil.copytree(bundles().path, tmp_path / "copy")
    return tmp_path / "copy"


def make_consistent(bundle: Path, *names: str) -> None:
    """The manifest says what is there, as a stranger's would."""
    for name in names:
        path = bundle / name
        record = {"sha256": sha256(path), "bytes": path.stat().st_size}

        def edit(manifest: dict[str, Any], name: str = name, record: object = record) -> None:
            manifest["files"][name] = record

        edit_manifest(bundle, edit)


def change_step(bundle: Path, change: Change) -> None:
    path = bundle / "step.onnx"
    model = onnx.load(path, load_external_data=False)
    change(model)
    path.write_bytes(model.SerializeToString())
    make_consistent(bundle, "step.onnx")


def add(model: onnx.ModelProto, operator: str, domain: str = "", **attributes: Any) -> None:
    node = helper.make_node(operator, [], ["stranger"], domain=domain, **attributes)
    model.graph.node.insert(0, node)


def inner(name: str = "inner") -> onnx.GraphProto:
    return helper.make_graph([], name, [], [])


def with_function(model: onnx.ModelProto) -> None:
    """A bomb: each calls the next twice."""
    opset = [helper.make_opsetid("", 23)]
    for i in range(26):
        nodes = [helper.make_node(f"f{i + 1}", ["x"], [y], domain="bomb") for y in ("y", "z")]
        model.functions.append(helper.make_function("bomb", f"f{i}", ["x"], ["y"], nodes, opset))


def with_sparse_weights(model: onnx.ModelProto) -> None:
    values = helper.make_tensor("sparse", TensorProto.FLOAT, [1], [1.0])
    indices = helper.make_tensor("indices", TensorProto.INT64, [1], [0])
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [6]))


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda m: add(m, "Loop", body=inner()), "'Loop'"),
        (lambda m: add(m, "If", then_branch=inner(), else_branch=inner()), "'If'"),
        (lambda m: add(m, "Scan", body=inner(), num_scan_inputs=1), "'Scan'"),
        (lambda m: add(m, "Identity", body=inner()), "a graph inside a node"),
        (lambda m: add(m, "Identity", bodies=[inner()]), "a graph inside a node"),
        (lambda m: add(m, "FusedMatMul", "com.microsoft"), "'com.microsoft::FusedMatMul'"),
        (lambda m: add(m, "MatMul", "com.microsoft"), "'com.microsoft::MatMul'"),
        (lambda m: add(m, "ConstantOfShape"), "'ConstantOfShape'"),
        (lambda m: add(m, "RandomNormal", shape=[1]), "'RandomNormal'"),
        (with_function, "functions"),
        (with_sparse_weights, "sparse weights"),
        (lambda m: m.training_info.add(), "a training graph"),
    ],
)
def test_what_no_export_writes_is_refused(copy: Path, change: Change, what: str) -> None:
    change_step(copy, change)
    with pytest.raises(BundleError, match=f"step.onnx: holds .*{what}, which no export of ours"):
        load_backend("ort-cpu", Bundle.open(copy))


def test_every_operator_of_ours_is_known_to_onnx() -> None:
    known = {schema.name for schema in onnx.defs.get_all_schemas() if schema.domain == ""}
    assert known >= OPERATORS and not {"If", "Loop", "Scan", "SequenceMap"} & OPERATORS


@pytest.mark.parametrize("location", ["*/_ORT_MEM_ADDR_/*", "step.onnx.data", "./weights.data"])
def test_weights_of_another_name_are_refused_although_the_manifest_has_them(
    copy: Path, location: str
) -> None:
    (copy / location).parent.mkdir(parents=True, exist_ok=True)
    if not (copy / location).exists():
        shutil.copy(copy / "weights.data", copy / location)
        make_consistent(copy, location)

    def move(model: onnx.ModelProto) -> None:
        for tensor in model.graph.initializer:
            for entry in tensor.external_data:
                entry.value = location if entry.key == "location" else entry.value

    change_step(copy, move)
    with pytest.raises(BundleError, match="reads weights from .*, expected weights.data"):
        load_backend("ort-cpu", Bundle.open(copy))


def test_weights_of_a_constant_are_seen(copy: Path) -> None:
    hidden = onnx.TensorProto(name="w", data_type=1, dims=[1], data_location="EXTERNAL")
    hidden.external_data.add(key="location", value="../../secret")
    change_step(copy, lambda m: add(m, "Constant", value=hidden))
    with pytest.raises(BundleError, match="reads weights from '../../secret'"):
        checked_weight_bytes(copy / "step.onnx")


@pytest.mark.parametrize("kind", [TensorProto.DOUBLE, TensorProto.STRING])
def test_output_of_another_dtype_than_the_manifest_says_is_refused(copy: Path, kind: int) -> None:
    def retype(model: onnx.ModelProto) -> None:
        output = model.graph.output[0]
        for node in model.graph.node:
            for names in (node.input, node.output):
                names[:] = ["before" if name == output.name else name for name in names]
        model.graph.node.append(helper.make_node("Cast", ["before"], [output.name], to=kind))
        output.type.tensor_type.elem_type = kind

    change_step(copy, retype)
    with pytest.raises(BackendError, match="step.onnx: the tensor .* the manifest says float32"):
        load_backend("ort-cpu", Bundle.open(copy))


@pytest.mark.parametrize("change", [{"dtype": "float32"}, {"shape": ["B", 3]}])
def test_codes_of_another_dtype_or_shape_than_the_manifest_says_are_refused(
    copy: Path, change: dict[str, object]
) -> None:
    def edit(manifest: dict[str, Any]) -> None:
        outputs = manifest["graphs"]["encoder"]["outputs"]
        next(output for output in outputs if output["name"] == "codes").update(change)
        manifest["programs"]["outputs"][0].update(change)

    edit_manifest(copy, edit)
    with pytest.raises(BackendError, match=r'encoder.onnx: the tensor "codes" is int64'):
        load_backend("ort-cpu", Bundle.open(copy))


def test_first_result_is_compared_with_the_manifest(bundles: Bundles) -> None:
    specs = bundles().manifest.graphs["encoder"].outputs
    right = [
        np.zeros([2 if size == "B" else size for size in spec.shape], spec.dtype) for spec in specs
    ]
    check_results("encoder", specs, right, 2)
    wrong: Sequence[object] = (["a"], right[0][:0], right[0].astype("float64"), right[0][..., :1])
    for result in wrong:
        with pytest.raises(BackendError, match=f'its output "{specs[0].name}" is .*manifest says'):
            check_results("encoder", specs, [result, *right[1:]], 2)


def test_byte_that_is_no_text_in_the_manifest_is_one_line(copy: Path) -> None:
    text = (copy / "manifest.json").read_bytes()
    (copy / "manifest.json").write_bytes(text.replace(b'"recipe"', b'"rec\xffpe"', 1))
    with pytest.raises(BundleError, match="manifest.json: damaged"):
        Bundle.open(copy)


@pytest.fixture
def other(copy: Path, tmp_path: Path) -> Path:
    """A bundle of the same sizes, whole in itself, with other weights in its step."""
    shutil.copytree(copy, tmp_path / "other")
    flip_byte(tmp_path / "other" / "weights.data")
    make_consistent(tmp_path / "other", "weights.data")
    return tmp_path / "other"


@pytest.mark.parametrize("times", [1, 2])
def test_bundle_replaced_while_it_is_loaded_is_never_mixed(
    copy: Path, other: Path, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = wmdeploy.engines.ort.cpu.cpu_session

    def replaced(path: Path, *settings: object, **more: object) -> object:
        if path.name == "step.onnx":
            assert exchange(copy, other)  # after hashing
            session = opened(path, *settings, **more)  # type: ignore[arg-type]
            if times == 2:
                assert exchange(copy, other)  # and back: the files are those that were hashed
            return session
        return opened(path, *settings, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(wmdeploy.engines.ort.cpu, "cpu_session", replaced)
    with pytest.raises(BundleError, match="was replaced while it was read; run the same"):
        load_backend("ort-cpu", Bundle.open(copy))


def test_file_that_vanishes_while_it_is_read_is_a_bundle_error(copy: Path) -> None:
    bundle = Bundle.open(copy)
    shutil.rmtree(copy)
    for read in (bundle.verify, bundle.checked_model, lambda: bundle.checked_graph("step")):
        with pytest.raises(BundleError):
            read()
    with pytest.raises(BundleError):
        Bundle.open(copy)


def test_model_replaced_while_it_is_loaded_is_refused(copy: Path, other: Path) -> None:
    with pytest.raises(BundleError, match="was replaced"):
        with Bundle.open(copy).model_to_load():
            exchange(copy, other)
