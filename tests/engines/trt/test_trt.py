"""Plans are built for real: TensorRT-RTX needs no GPU for it, only for running them."""

import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest

from tests.conftest import Bundles
from wmdeploy.bundle import Bundle, describe_files
from wmdeploy.clips.read import SAMPLE_CLIP
from wmdeploy.decompose import decompose_attention
from wmdeploy.engines.trt import plans
from wmdeploy.engines.trt.flavour import (
    Flavour,
    check_architectures,
    flavour_findings,
    load_flavour,
)
from wmdeploy.engines.trt.plans import BuildOptions, build_plans, find_plan
from wmdeploy.errors import BackendError, BundleError
from wmdeploy.exporters.export import ExportOptions, export_bundle
from wmdeploy.gpu import Gpu
from wmdeploy.manifest import write_manifest

pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed: the extra rtx brings it")
ARCHITECTURES = ("sm_86", "sm_89")


@pytest.fixture
def copy(bundles: Bundles, tmp_path: Path) -> Path:
    """A float16 bundle of the smallest model, to write to."""
    shutil.copytree(bundles(precision="fp16").path, tmp_path / "bundle")
    return tmp_path / "bundle"


@pytest.fixture
def built(copy: Path) -> Path:
    """The same with a plan of its step."""
    build_plans(order(copy, graphs=("step",)))
    return copy


def order(bundle: Path, **changes: object) -> BuildOptions:
    options = BuildOptions(bundle=bundle, architectures=ARCHITECTURES)
    return dataclasses.replace(options, **changes)  # type: ignore[arg-type]


def snapshot(directory: Path) -> dict[str, bytes]:
    """All files of a bundle but the log."""
    files = (path for path in directory.rglob("*") if path.is_file() and path.suffix != ".log")
    return {str(path.relative_to(directory)): path.read_bytes() for path in files}


def change_step(directory: Path, change: Callable[[onnx.ModelProto], object]) -> None:
    """Another step graph, and a manifest that says so."""
    manifest = Bundle.open(directory).manifest
    graph = onnx.load(directory / "step.onnx", load_external_data=False)
    change(graph)
    (directory / "step.onnx").write_bytes(graph.SerializeToString())
    files = describe_files(directory)
    files = {name: files[name] for name in manifest.files}  # plans are none of them
    write_manifest(dataclasses.replace(manifest, files=files), directory)


@pytest.mark.parametrize("layout", ["token", pytest.param("latent", marks=pytest.mark.slow)])
def test_plans_of_tiny_are_built_and_recorded(layout: str, tmp_path: Path) -> None:
    options = ExportOptions(
        source="tiny", output=tmp_path / "tiny", clip=SAMPLE_CLIP, layout=layout, precision="fp16"
    )
    export_bundle(options)
    progress: list[tuple[str, int, int]] = []

    def note(task: str, done: int, total: int, detail: str = "") -> None:
        progress.append((task, done, total))

    results = build_plans(order(tmp_path / "tiny"), note)
    assert [(record.graph, new) for record, new in results] == [
        (name, True) for name in ("encoder", "prefill", "step", "decoder")
    ]
    bundle = Bundle.open(tmp_path / "tiny")
    assert bundle.manifest.plans == tuple(record for record, _ in results)
    version = load_flavour("tensorrt-rtx").version
    for record in bundle.manifest.plans:
        graph = bundle.manifest.graphs[record.graph]
        assert (record.flavour, record.version) == ("tensorrt-rtx", version)
        assert record.architectures == ARCHITECTURES and record.precision == "fp16"
        assert record.batches == (1, 1, 8) and record.opt_level == 3
        assert record.onnx_sha256 == bundle.graph_digest(record.graph)
        assert len(bundle.checked_plan(record)) == record.bytes > graph.weight_bytes
        # float32 islands are stored as they are; a little is padding
        assert record.weight_bytes is not None and record.activation_bytes is not None
        assert 0.8 * graph.weight_bytes < record.weight_bytes < 1.5 * graph.weight_bytes
        assert record.activation_bytes > 0 and record.build_seconds > 0
        done = [done / total for task, done, total in progress if task == record.graph]
        assert len(set(done)) > 10 and done == sorted(done) and (done[0], done[-1]) == (0, 1)


def test_second_build_does_nothing_and_a_changed_graph_is_built_alone(copy: Path) -> None:
    build_plans(order(copy))
    before = snapshot(copy)
    assert [new for _, new in build_plans(order(copy))] == [False] * 4
    assert snapshot(copy) == before
    change_step(copy, lambda graph: setattr(graph, "doc_string", "changed"))
    with pytest.raises(BackendError, match="built from another ONNX graph than the bundle has now"):
        find_plan(Bundle.open(copy), load_flavour("tensorrt-rtx"), "step", "sm_89")
    assert [(r.graph, new) for r, new in build_plans(order(copy)) if new] == [("step", True)]
    assert len(list((copy / "plans").glob("*.plan"))) == 4  # the older one is gone


@pytest.mark.parametrize(
    "change", [{"architectures": ("sm_120",)}, {"opt_level": 0}, {"max_batch": 2}]
)
def test_other_options_build_again(built: Path, change: dict[str, object]) -> None:
    again = build_plans(order(built, graphs=("step",), **change))
    assert [new for _, new in again] == [True]


def test_plans_for_other_gpus_are_kept(built: Path) -> None:
    build_plans(order(built, graphs=("step",), architectures=("sm_120",)))
    bundle, flavour = Bundle.open(built), load_flavour("tensorrt-rtx")
    assert find_plan(bundle, flavour, "step", "sm_120").architectures == ("sm_120",)
    assert find_plan(bundle, flavour, "step", "sm_86").architectures == ARCHITECTURES


def find(bundle: Path, architecture: str = "sm_89", version: str | None = None) -> bytes:
    """What a backend does before it deserialises."""
    flavour = load_flavour("tensorrt-rtx")
    if version:
        flavour = Flavour(flavour.name, SimpleNamespace(__version__=version))  # type: ignore
    opened = Bundle.open(bundle)
    return opened.checked_plan(find_plan(opened, flavour, "step", architecture))


def swap(bundle: Path) -> None:
    """Another graph's plan under the step's name."""
    build_plans(order(bundle, graphs=("prefill",)))
    step, other = (next((bundle / "plans").glob(f"{name}*.plan")) for name in ("step", "prefill"))
    step.write_bytes(other.read_bytes())


def flip(bundle: Path) -> None:
    path = next((bundle / "plans").glob("*.plan"))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def link(bundle: Path) -> None:
    path = next((bundle / "plans").glob("*.plan"))
    path.rename(bundle.parent / "elsewhere")
    path.symlink_to(bundle.parent / "elsewhere")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda b: os.truncate(next((b / "plans").glob("*.plan")), 99), "got 99 bytes, expected"),
        (flip, "its sha256 is not the manifest's; the plan was altered or swapped"),
        (swap, "bytes, expected [0-9]+; the plan was cut short or swapped"),
        (link, "the plan is missing, or not a regular file"),
        (lambda b: shutil.rmtree(b / "plans"), "the plan is missing, or not a regular file"),
    ],
)
def test_damaged_plan_is_refused_with_the_command_that_rebuilds(
    built: Path, damage: Callable[[Path], object], message: str
) -> None:
    assert find(built)
    damage(built)
    with pytest.raises(BundleError, match=f"{message}.*build the plan of step again"):
        find(built)


@pytest.mark.parametrize(
    ("machine", "message"),
    [
        ({"architecture": "sm_90"}, "built for sm_86, sm_89, this GPU is sm_90"),
        ({"version": "9.9"}, r"built by tensorrt-rtx 1\.\d+[\d.]*, here is 9\.9"),
    ],
)
def test_foreign_plan_is_refused_before_it_is_read(
    built: Path, machine: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Flavour, "architectures", ("sm_89", "sm_90"))
    command = f"build it again: wmdeploy build-engine {built} --flavour tensorrt-rtx --arch sm_"
    with pytest.raises(BackendError, match=f"{message}; {command}"):
        find(built, **machine)


def test_plan_path_that_leaves_the_bundle_is_refused(built: Path) -> None:
    bundle = Bundle.open(built)
    away = dataclasses.replace(bundle.manifest.plans[0], file="../elsewhere.plan")
    write_manifest(dataclasses.replace(bundle.manifest, plans=(away,)), built)
    with pytest.raises(BundleError, match="leaves the bundle"):
        Bundle.open(built)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"architectures": ("sm_90",)},
            "architecture sm_90: tensorrt-rtx .* knows sm_75.*choose among",
        ),
        (
            {"architectures": ("current",)},
            "architecture current: there is no NVIDIA GPU or driver here",
        ),
        ({"architectures": ("current", "sm_89")}, "expected current alone, or names"),
        ({"graphs": ("decodr",)}, "graphs: got 'decodr', expected one of encoder, prefill"),
        ({"max_batch": 5}, "max_batch: got 5, expected 1 to 4, which the bundle was exported"),
        ({"max_batch": 0}, "max_batch: got 0, expected 1 to 4"),
        ({"opt_level": 6}, "opt_level: got 6, expected 0 to 5"),
        ({"workspace_gib": 0.0}, "workspace_gib: got 0.0, expected GiB above 0"),
        ({"flavour": "tensorrt"}, "no TensorRT here. tensorrt: not installed, pip install"),
        ({"flavour": "trt"}, "flavour: got 'trt', expected auto, tensorrt, tensorrt-rtx"),
    ],
)
def test_impossible_orders_are_refused_and_change_nothing(
    copy: Path, change: dict[str, object], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plans, "gpu", lambda: None)
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    before = snapshot(copy)
    with pytest.raises(BackendError, match=message):
        build_plans(order(copy, **change))
    assert snapshot(copy) == before


@pytest.mark.parametrize(
    "make", [lambda p: p.touch(), lambda p: p.symlink_to(p.parent, target_is_directory=True)]
)
def test_plans_that_are_no_directory_are_refused(
    copy: Path, make: Callable[[Path], object]
) -> None:
    make(copy / "plans")
    with pytest.raises(BundleError, match="plans: is a link or no directory"):
        build_plans(order(copy, graphs=("step",)))


def test_float32_bundle_is_refused_with_what_to_do(bundles: Bundles) -> None:
    with pytest.raises(BackendError, match="the bundle is fp32.*export .* in fp16"):
        build_plans(order(bundles().path))


def test_graph_that_tensorrt_refuses_leaves_the_bundle_as_it_was(copy: Path) -> None:
    change_step(copy, lambda graph: setattr(graph.graph.node[3], "op_type", "Where"))
    before = snapshot(copy)
    with pytest.raises(BackendError, match="step: tensorrt-rtx .* cannot parse .*Where.*log is"):
        build_plans(order(copy, graphs=("step",)))
    assert snapshot(copy) == before
    assert "Where" in (copy / "plans" / "build.log").read_text()


def test_interrupt_cancels_the_build_and_leaves_the_bundle(copy: Path) -> None:
    """As Ctrl-C does: the signal arrives while the builder is at work."""
    before = snapshot(copy)
    seen: list[str] = []

    def interrupt(task: str, done: int, total: int, detail: str = "") -> None:
        if not seen:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.2)  # the main thread has set the cancel flag by then
        seen.append(detail)

    # a shell lets what it starts in the background ignore the signal
    ours = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            build_plans(order(copy, graphs=("decoder",)), interrupt)
    finally:
        signal.signal(signal.SIGINT, ours)
    assert snapshot(copy) == before
    assert len(seen) < 40  # an undisturbed build tells more than 100 steps
    assert [new for _, new in build_plans(order(copy, graphs=("decoder",)))] == [True]


def test_killed_build_leaves_the_bundle_as_it_was(built: Path) -> None:
    before = snapshot(built)
    code = (
        "import os, signal, sys\nfrom pathlib import Path\n"
        "from wmdeploy.engines.trt import plans\n"
        "def die(*a): os.kill(os.getpid(), signal.SIGKILL)\n"
        "plans.write_manifest = die\n"  # the worst moment: the plan is there, its record is not
        "o = plans.BuildOptions(bundle=Path(sys.argv[1]),"
        " architectures=('sm_120',), graphs=('step',))\n"
        "plans.build_plans(o)"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(built)])
    assert killed.returncode == -signal.SIGKILL
    after = snapshot(built)
    assert before.items() <= after.items() and len(after) == len(before) + 1
    build_plans(order(built, graphs=("prefill",)))
    assert not any("sm_120" in name for name in snapshot(built))  # the orphan is swept up


@pytest.mark.slow
def test_export_again_with_nothing_changed_keeps_the_plans(
    bundles: Bundles, micro_model: Path, tmp_path: Path
) -> None:
    options = ExportOptions(
        source=str(micro_model),
        output=tmp_path / "b",
        clip=SAMPLE_CLIP,
        precision="fp16",
        max_batch=4,
    )
    export_bundle(options)
    build_plans(order(tmp_path / "b", graphs=("step",)))
    _, made = export_bundle(options)
    assert not made and len(Bundle.open(tmp_path / "b").manifest.plans) == 1


@pytest.mark.parametrize("graph", ["encoder", "prefill", "step", "decoder"])
def test_decomposed_attention_computes_the_same(bundles: Bundles, graph: str) -> None:
    """Causal, masked and plain."""
    types = onnx.load(bundles(precision="fp16").path / f"{graph}.onnx")
    assert decompose_attention(types) == 2
    onnx.checker.check_model(types, full_check=True)
    model = onnx.load(bundles().path / f"{graph}.onnx")  # float32, so that a slip shows
    rng, feeds = np.random.default_rng(0), {}
    for value in model.graph.input:
        shape = [dim.dim_value or 2 for dim in value.type.tensor_type.shape.dim]
        kind = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        integers = np.full(shape, 3) if kind == np.int64 else rng.integers(0, 256, shape)
        feeds[value.name] = (
            integers.astype(kind) if np.issubdtype(kind, np.integer) else rng.random(shape, "f")
        ).astype(kind)
    expected = onnxruntime.InferenceSession(model.SerializeToString()).run(None, feeds)
    assert decompose_attention(model) == 2
    assert not {"Attention"} & {node.op_type for node in model.graph.node}
    onnx.checker.check_model(model, full_check=True)
    got = onnxruntime.InferenceSession(model.SerializeToString()).run(None, feeds)
    for a, b in zip(got, expected, strict=True):
        assert np.isfinite(a).all()
        scale = np.abs(np.asarray(b, np.float64)).max()
        assert np.abs(a.astype(np.float64) - b).max() <= (
            1 if a.dtype == np.uint8 else 1e-5 * scale
        )


def test_attention_of_another_exporter_is_refused(bundles: Bundles) -> None:
    model = onnx.load(bundles(precision="fp16").path / "step.onnx", load_external_data=False)
    node = next(node for node in model.graph.node if node.op_type == "Attention")
    node.attribute.append(onnx.helper.make_attribute("softcap", 2.0))
    with pytest.raises(BackendError, match="Attention of a kind that wmdeploy does not export"):
        decompose_attention(model)


def test_tensorrt_builds_only_for_the_gpu_that_is_there() -> None:
    flavour = Flavour("tensorrt", SimpleNamespace(__version__="11.0"))  # type: ignore[arg-type]
    check_architectures(flavour, ("current",), "sm_90")
    with pytest.raises(BackendError, match="tensorrt builds on a GPU only"):
        check_architectures(flavour, ("current",), None)
    with pytest.raises(
        BackendError, match="architecture sm_89: tensorrt builds for the GPU that is"
    ):
        check_architectures(flavour, ("sm_89",), "sm_89")


def test_rtx_refuses_a_gpu_that_it_does_not_know() -> None:
    with pytest.raises(BackendError, match="this GPU is sm_90, and tensorrt-rtx .* knows sm_75"):
        check_architectures(load_flavour("tensorrt-rtx"), ("current",), "sm_90")


def test_strong_typing_is_asked_for_where_it_is_a_choice() -> None:
    named = SimpleNamespace(STRONGLY_TYPED=1)
    for flags, expected in ((named, 2), (SimpleNamespace(), 0)):
        trt = SimpleNamespace(NetworkDefinitionCreationFlag=flags)
        assert Flavour("tensorrt", trt).network_flags() == expected  # type: ignore[arg-type]


def test_doctor_says_what_a_flavour_can_do_here(monkeypatch: pytest.MonkeyPatch) -> None:
    from wmdeploy.engines.trt import flavour

    def doctor(architecture: str | None) -> dict[str, tuple[str, str]]:
        h200 = Gpu("H200", architecture, "580", 1.0, None) if architecture else None
        monkeypatch.setattr(flavour, "gpu", lambda: h200)
        return {f.what: (f.state, f.description) for f in flavour_findings()}

    monkeypatch.setitem(sys.modules, "tensorrt", None)
    assert doctor(None)["tensorrt"] == ("missing", "not installed")
    assert doctor("sm_89")["tensorrt-rtx"][0] == "ok"
    state, found = doctor("sm_90")["tensorrt-rtx"]
    assert state == "problem" and found.endswith("not for this GPU, sm_90")
