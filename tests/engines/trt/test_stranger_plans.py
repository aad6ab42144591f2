"""Building plans into a stranger's bundle: nothing is written outside of it, nothing hangs."""

import os
import shutil
from pathlib import Path

import onnx
import pytest

from tests.conftest import Bundles
from tests.engines.trt.test_trt import change_step
from wmdeploy.bundle import Bundle
from wmdeploy.engines.trt.plans import BuildOptions, build_plans
from wmdeploy.errors import BundleError, WmdeployError
from wmdeploy.files import sha256
from wmdeploy.locks import sole_writer
from wmdeploy.manifest import write_manifest

pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed: the extra rtx brings it")


@pytest.fixture
def copy(bundles: Bundles, tmp_path: Path) -> Path:
    shutil.copytree(bundles(precision="fp16").path, tmp_path / "bundle")
    return tmp_path / "bundle"


def order(bundle: Path) -> BuildOptions:
    return BuildOptions(
        bundle=bundle,
        flavour="tensorrt-rtx",
        architectures=("sm_89",),
        graphs=("step",),
        opt_level=0,
    )


def contents(place: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in (place, *place.rglob("*")) if path.is_file()}


def attack(model: onnx.ModelProto) -> None:
    """Lines for a shell, in whatever TensorRT's log tells of a graph."""
    model.producer_name = "y\ntouch OWNED #"
    model.doc_string = "z\ntouch OWNED #"
    for node in model.graph.node:
        node.name = f"{node.name}\ntouch OWNED #"


@pytest.mark.parametrize("name", ["plans/build.log", "plans", "manifest.json"])
def test_links_in_a_bundle_are_not_written_through(copy: Path, tmp_path: Path, name: str) -> None:
    change_step(copy, attack)
    mine = tmp_path / "mine"
    if name == "plans":
        mine.mkdir()
        (mine / "build.log").write_text("mine\n")
    elif name == "manifest.json":
        shutil.copy(copy / name, mine)
        (copy / name).unlink()
    else:
        (copy / "plans").mkdir()
        mine.write_text("mine\n")
    (copy / name).symlink_to(os.path.relpath(mine, (copy / name).parent))
    before = contents(mine)
    with pytest.raises(WmdeployError, match=f"{name}: is a link"):
        build_plans(order(copy))
    assert {
        path: path.read_bytes() for path in (mine, *mine.rglob("*")) if path.is_file()
    } == before
    assert not list(mine.glob("*.plan"))


def test_pipe_and_second_name_in_place_of_the_log_are_refused(copy: Path, tmp_path: Path) -> None:
    (copy / "plans").mkdir()
    os.mkfifo(copy / "plans" / "build.log")
    with pytest.raises(WmdeployError, match=r"build\.log: exists and is not a regular file"):
        build_plans(order(copy))
    (copy / "plans" / "build.log").unlink()
    (tmp_path / "mine").write_text("mine\n")
    (copy / "plans" / "build.log").hardlink_to(tmp_path / "mine")
    with pytest.raises(WmdeployError, match=r"build\.log: cannot be written \(has a second name"):
        build_plans(order(copy))
    assert (tmp_path / "mine").read_text() == "mine\n"


def test_log_holds_no_lines_of_a_graph_and_a_plan_that_is_none_is_told(copy: Path) -> None:
    change_step(copy, attack)
    ((record, _),) = build_plans(order(copy))
    lines = (copy / "plans" / "build.log").read_text().splitlines()
    assert lines and all(line.startswith("step ") and line.isprintable() for line in lines)
    plan = copy / record.file
    plan.write_bytes(b"x" * record.bytes)
    text = (copy / "manifest.json").read_text().replace(record.sha256, sha256(plan))
    (copy / "manifest.json").write_text(text)
    with pytest.raises(BundleError, match="is no plan of tensorrt-rtx, although its sha256 is"):
        build_plans(order(copy))


def test_second_build_into_the_same_bundle_is_refused(copy: Path) -> None:
    with sole_writer(copy), pytest.raises(WmdeployError, match="another process is writing into"):
        build_plans(order(copy))


def test_manifest_is_not_written_through_a_link(copy: Path, tmp_path: Path) -> None:
    manifest = Bundle.open(copy).manifest
    (copy / "manifest.json").rename(tmp_path / "mine")
    (copy / "manifest.json").symlink_to(tmp_path / "mine")
    before = (tmp_path / "mine").read_bytes()
    with pytest.raises(WmdeployError, match=r"manifest\.json: is a link.*cp -rL"):
        write_manifest(manifest, copy)
    assert (tmp_path / "mine").read_bytes() == before
