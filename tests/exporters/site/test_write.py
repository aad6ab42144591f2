"""The folder of a site, and what is refused before there is one."""

import base64
import gzip
import hashlib
import json
import os
from dataclasses import asdict
from pathlib import Path

import onnx
import pytest

from tests.conftest import Bundles
from tests.exporters.site.conftest import written
from wmdeploy.engines.base import load_backend
from wmdeploy.errors import BackendError, ExportError, WmdeployError
from wmdeploy.exporters.site import runtime as npm
from wmdeploy.exporters.site.runtime import FILES, PACKAGE, WASM, WEBGPU, Build, copy_runtime
from wmdeploy.exporters.site.write import SITE_FILE, SiteOptions, write_site


def test_site_is_whole_and_names_its_files(bundles: Bundles, runtime: Path, tmp_path: Path) -> None:
    options = SiteOptions(
        bundle=bundles(actions=True).path, output=tmp_path / "site", fps=12, runtime=runtime
    )
    made = written(options)
    site = tmp_path / "site"
    assert made.worst_db >= 55
    assert made.bytes == sum(p.stat().st_size for p in site.rglob("*") if p.is_file())
    info = json.loads((site / "info").read_text())
    assert info["tab"] and info["fps"] == 12 and info["actions"] == 3
    model = json.loads((site / SITE_FILE).read_text())
    assert set(model["graphs"]) == {"prefill", "step", "decoder"}  # and no encoder
    assert len(model["starts"]) == len(info["starts"]) > 0
    weights = (site / "model" / "starts.bin").stat().st_size
    places = [
        p for start in model["starts"] for k in ("state", "window") for p in start[k].values()
    ]
    assert all(place["offset"] % 8 == 0 and place["offset"] < weights for place in places)
    page, worker = (site / "index.html").read_text(), (site / "sw.js").read_text()
    assert "Content-Security-Policy" in page and "VERSION" not in worker
    listed = json.loads(worker.split("const FILES = ")[1].split(";")[0])
    there = {p.relative_to(site).as_posix() for p in site.rglob("*") if p.is_file()}
    assert set(listed) == there - {"sw.js"} | {"./"}
    holds_build(site, WASM)
    written(options)  # our own folder is replaced


def holds_build(site: Path, build: Build) -> None:
    """The page is told of the one build that is there."""
    names = {build.module, build.loader, f"{build.binary}.packed"}
    assert {path.name for path in (site / "ort").iterdir()} == names
    packed = (site / "ort" / f"{build.binary}.packed").read_bytes()
    assert gzip.decompress(packed) == f"of {build.binary}".encode()
    assert json.loads((site / "info").read_text())["runtime"] == asdict(build)


def test_site_for_webgpu_has_its_build_and_graphs(
    bundles: Bundles, runtime: Path, tmp_path: Path
) -> None:
    options = SiteOptions(
        bundle=bundles().path, output=tmp_path / "site", runtime=runtime, webgpu=True
    )
    assert written(options).worst_db >= 55
    holds_build(tmp_path / "site", WEBGPU)
    decoder = onnx.load(tmp_path / "site" / "model" / "decoder.onnx", load_external_data=False)
    assert "ConvTranspose" not in {node.op_type for node in decoder.graph.node}


def test_integer_weights_are_refused(bundles: Bundles, runtime: Path, tmp_path: Path) -> None:
    path = bundles(weights="int8").path
    options = SiteOptions(bundle=path, output=tmp_path / "site", runtime=runtime)
    with pytest.raises(ExportError, match="int8 weights, and a site stores them as float16"):
        write_site(options, load_backend("eager", bundles()), [])  # any: it is not looked at
    assert not (tmp_path / "site").exists()


def test_folder_of_a_stranger_stays(bundles: Bundles, runtime: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    options = SiteOptions(bundle=bundles().path, output=tmp_path / "mine", runtime=runtime)
    with pytest.raises(WmdeployError, match="not ours to replace"):
        written(options)
    assert (tmp_path / "mine" / "letter.txt").read_text() == "dear"


def test_rollout_that_differs_leaves_nothing(
    bundles: Bundles, runtime: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wmdeploy.exporters.site.write.LEAST_DB", {"fp32": 130.0})
    options = SiteOptions(bundle=bundles().path, output=tmp_path / "site", runtime=runtime)
    with pytest.raises(ExportError, match="the worst of 64 frames is .* expected 130 dB"):
        written(options)
    assert not (tmp_path / "site").exists()


def test_model_with_vectors_as_actions_is_refused(
    bundles: Bundles, runtime: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object, **named: object) -> None:
        raise BackendError("the model's actions are vectors of numbers")

    monkeypatch.setattr("wmdeploy.exporters.site.write.find_world", refuse)
    options = SiteOptions(bundle=bundles().path, output=tmp_path / "site", runtime=runtime)
    with pytest.raises(BackendError, match="vectors"):
        written(options)


def test_runtime_that_lacks_a_file_is_named(runtime: Path, tmp_path: Path) -> None:
    (runtime / WEBGPU.module).unlink()
    with pytest.raises(ExportError, match=f"has no {WEBGPU.module}; give the folder dist"):
        copy_runtime(WEBGPU, tmp_path, runtime)
    copy_runtime(WASM, tmp_path, runtime)  # which does not need it


def test_without_npm_there_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(ExportError, match=f"needs {PACKAGE}, and there is no npm here"):
        copy_runtime(WASM, tmp_path, None)


def fake_npm(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.mkdir()
    (folder / "npm").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "npm").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def test_what_npm_gets_must_be_what_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_npm(tmp_path / "bin", 'echo other > "$3/package.tgz"', monkeypatch)
    with pytest.raises(ExportError, match="npm got another .* than the one that we know"):
        copy_runtime(WASM, tmp_path, None)
    digest = hashlib.sha512(b"other\n").digest()
    monkeypatch.setattr(npm, "INTEGRITY", base64.b64encode(digest).decode())
    with pytest.raises(Exception, match="not a gzip file|could not be opened"):
        copy_runtime(WASM, tmp_path, None)  # it was the hash that refused it


def test_npm_that_fails_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_npm(
        tmp_path / "bin",
        "printf 'npm error %s\\n' 'code E' 'no network' 'A log' >&2; exit 1",
        monkeypatch,
    )
    with pytest.raises(ExportError, match=r"npm cannot get .* \(no network\); check the network"):
        copy_runtime(WASM, tmp_path, None)
    assert not any((tmp_path / name).exists() for name in FILES)
