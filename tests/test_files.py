import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from wmdeploy.errors import WmdeployError
from wmdeploy.files import sha256, staged_directory, staged_file


def test_file_appears_whole(tmp_path: Path) -> None:
    target = tmp_path / "new" / "a.json"
    with staged_file(target) as partial:
        partial.write_text("{}")
        assert partial.suffix == ".json" and not target.exists()
    assert target.read_text() == "{}"
    assert list(target.parent.iterdir()) == [target]


def test_failure_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(RuntimeError), staged_file(target) as partial:
        partial.write_text("half")
        raise RuntimeError
    assert target.read_text() == "old" and list(tmp_path.iterdir()) == [target]


def test_directory_replaces_its_own_kind_only(tmp_path: Path) -> None:
    target = tmp_path / "bundle"
    for content in ("first", "second"):
        with staged_directory(target, "manifest.json") as partial:
            (partial / "manifest.json").write_text(content)
    assert (target / "manifest.json").read_text() == "second"
    assert list(tmp_path.iterdir()) == [target]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "x").touch()
    with pytest.raises(WmdeployError, match="holds no manifest.json"):
        with staged_directory(tmp_path / "other", "manifest.json"):
            pytest.fail("must refuse before anything is written")


def test_failing_swap_brings_the_old_directory_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "bundle"
    with staged_directory(target, "m") as partial:
        (partial / "m").write_text("old")
    replace = Path.replace

    def fail(self: Path, destination: Path) -> Path:
        if self.name.startswith(".bundle.partial"):
            raise OSError(5, "Input/output error")
        return replace(self, destination)

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(WmdeployError, match="Input/output error.*nothing was changed"):
        with staged_directory(target, "m") as partial:
            (partial / "m").write_text("new")
    assert (target / "m").read_text() == "old" and list(tmp_path.iterdir()) == [target]


def test_full_disk_is_one_clear_error(tmp_path: Path) -> None:
    target = tmp_path / "big"
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limit[1]))
    try:
        with pytest.raises(WmdeployError, match="cannot be written .*nothing was changed"):
            with staged_file(target) as partial:
                partial.write_bytes(b"x" * 10_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert list(tmp_path.iterdir()) == []


def test_killed_process_leaves_nothing_that_the_next_write_keeps(tmp_path: Path) -> None:
    target = tmp_path / "model.v2"
    code = (
        "import sys, time; from pathlib import Path; from wmdeploy.files import staged_directory\n"
        "with staged_directory(Path(sys.argv[1]), 'config.json') as d:\n"
        "    (d / 'config.json').touch(); print('writing', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(target)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "writing\n"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    time.sleep(0.1)
    assert not target.exists()
    assert len(list(tmp_path.iterdir())) == 1  # the partial directory
    (tmp_path / f".retired.model.partial-{process.pid}.v2").mkdir()  # killed between two renames
    with staged_directory(target, "config.json") as partial:
        (partial / "config.json").touch()
    assert list(tmp_path.iterdir()) == [target]


def test_sha256_is_of_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc")
    assert sha256(tmp_path / "x").startswith("ba7816bf8f01cfea")
