"""What a process that was killed leaves, and who removes it."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.conftest import Bundles
from wmdeploy.benchmarks.bench.options import BenchOptions
from wmdeploy.benchmarks.bench.run import bench
from wmdeploy.clips.read import SAMPLE_CLIP
from wmdeploy.errors import ClipError
from wmdeploy.files import DirectoryKind, staged_directory, staged_file
from wmdeploy.leftovers import scratch_directory
from wmdeploy.locks import exchange

KIND = DirectoryKind("m.json", "parts", ("*.part",))
OURS = '{"schema": 1, "parts": []}'

# safetensors writes to a `.tmp` of its own; the kill comes as soon as that is there
KILLED_IN_SAVE_FILE = """
import os, sys, threading, signal, torch
from pathlib import Path
from safetensors.torch import save_file
from wmdeploy.files import staged_file

target = Path(sys.argv[1])

def watch():
    while not list(target.parent.rglob(".tmp*")):
        pass
    os.kill(os.getpid(), signal.SIGKILL)

threading.Thread(target=watch, daemon=True).start()
with staged_file(target) as staged:
    while True:
        save_file({"x": torch.zeros(2_000_000)}, staged)
"""


def dead_process() -> int:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pass
    return process.pid


def test_what_a_library_stages_is_swept_by_the_next_write(tmp_path: Path) -> None:
    target = tmp_path / "best.safetensors"
    killed = subprocess.run([sys.executable, "-c", KILLED_IN_SAVE_FILE, str(target)], timeout=120)
    assert killed.returncode == -signal.SIGKILL
    assert list(tmp_path.rglob(".tmp*")) and not target.exists()
    with staged_file(target) as staged:
        save_file({"x": torch.zeros(3)}, staged)
    assert list(tmp_path.iterdir()) == [target]


def test_link_named_like_a_leftover_is_removed_and_not_what_it_leads_to(tmp_path: Path) -> None:
    place, mine = tmp_path / "place", tmp_path / "mine"
    place.mkdir()
    mine.mkdir()
    (mine / "notes.txt").write_text("mine")
    dead = dead_process()
    (place / f".out.partial-{dead}-abc").symlink_to(mine)
    (place / f".retired.out.partial-{dead}-abc").symlink_to(mine)
    (place / f".r.partial-{dead}-abc.json").symlink_to(mine)
    with staged_directory(place / "out", KIND) as partial:
        (partial / "m.json").write_text(OURS)
    with staged_file(place / "r.json") as staged:
        staged.write_text("{}")
    assert {path.name for path in place.iterdir()} == {"out", "r.json"}
    assert not (place / "out").is_symlink() and (mine / "notes.txt").read_text() == "mine"


def test_scratch_of_dead_processes_of_ours_is_swept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    mine = tmp_path / "mine"
    mine.mkdir()
    (tmp_path / f"wmdeploy-x-{dead_process()}-ab").mkdir()
    (tmp_path / f"wmdeploy-x-{dead_process()}-cd").symlink_to(mine)  # a stranger's, in /tmp
    (tmp_path / f"wmdeploy-x-{os.getppid()}-ef").mkdir()  # lives
    with scratch_directory("wmdeploy-x-") as first, scratch_directory("wmdeploy-x-") as second:
        assert first != second and first.stat().st_mode & 0o777 == 0o700
        assert first.is_dir() and second.is_dir()
    names = {path.name.split("-")[-1] for path in tmp_path.iterdir()}
    assert names == {"mine", "cd", "ef"} and mine.is_dir()


def test_bench_sweeps_what_a_killed_one_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bundles: Bundles
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    left = tmp_path / f"wmdeploy-bench-{dead_process()}-ab"
    left.mkdir()
    (left / "clip-0.npz").write_bytes(bytes(1000))
    with pytest.raises(ClipError):  # soon after its scratch directory was made
        none = SAMPLE_CLIP.with_name("none.mkv")
        bench(BenchOptions(bundle=bundles().path, clips=(none,), context=4))
    assert list(tmp_path.glob("wmdeploy-*")) == []


def test_one_of_both_directories_is_there_at_every_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "bundle"
    seen = []

    def looked(left: Path, right: Path) -> bool:
        seen.append(target.is_dir())
        done = exchange(left, right)
        seen.append(target.is_dir() and (left / "old.part").exists())
        return done

    monkeypatch.setattr("wmdeploy.files.exchange", looked)
    for name in ("old.part", "new.part"):
        with staged_directory(target, KIND) as partial:
            (partial / "m.json").write_text(OURS)
            (partial / name).touch()
    assert seen == [True, True]
    assert {path.name for path in target.iterdir()} == {"m.json", "new.part"}
    assert list(tmp_path.iterdir()) == [target]


def test_exchange_says_whether_it_was_done(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    assert not exchange(tmp_path / "a", tmp_path / "missing")
    (tmp_path / "b").write_text("b")
    assert exchange(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "a").read_text() == "b" and (tmp_path / "b").is_dir()
