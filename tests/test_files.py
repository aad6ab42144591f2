import errno
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from wmdeploy.errors import WmdeployError
from wmdeploy.files import (
    DirectoryKind,
    check_output,
    check_output_directory,
    sha256,
    staged_directory,
    staged_file,
    write_document,
    write_text,
)

KIND = DirectoryKind("m.json", "parts", ("*.part",))
OURS = '{"schema": 1, "parts": []}'


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


def test_directory_replaces_its_own_kind(tmp_path: Path) -> None:
    target = tmp_path / "bundle"
    for name in ("first.part", "second.part"):
        with staged_directory(target, KIND) as partial:
            (partial / "m.json").write_text(OURS)
            (partial / name).touch()
    assert {p.name for p in target.iterdir()} == {"m.json", "second.part"}
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"x": ""}, "holds no m.json of ours"),
        ({"m.json": "{"}, "holds no m.json of ours"),
        ({"m.json": '{"manifest_version": 3}'}, "its m.json is not ours"),
        ({"m.json": OURS, "notes.txt": "mine"}, "holds notes.txt, which is not ours"),
    ],
)
def test_strangers_directory_is_left_alone(
    tmp_path: Path, files: dict[str, str], reason: str
) -> None:
    target = tmp_path / "other"
    target.mkdir()
    for name, text in files.items():
        (target / name).write_text(text)
    with pytest.raises(WmdeployError, match=f"{reason}.*not ours to replace"):
        with staged_directory(target, KIND):
            pytest.fail("must refuse before anything is written")
    assert {p.name: p.read_text() for p in target.iterdir()} == files


def test_link_is_followed_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with staged_directory(tmp_path / "link", KIND) as partial:
        (partial / "m.json").write_text(OURS)
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real" / "m.json").exists()
    (tmp_path / "report").symlink_to(tmp_path / "r.json")
    with staged_file(tmp_path / "report") as partial:
        partial.write_text("{}")
    assert (tmp_path / "report").is_symlink() and (tmp_path / "r.json").read_text() == "{}"


def test_output_that_would_do_harm_is_refused(tmp_path: Path) -> None:
    clip, bundle = tmp_path / "clip.npz", tmp_path / "bundle"
    clip.touch()
    bundle.mkdir()
    os.mkfifo(tmp_path / "pipe")
    for target, message in (
        (clip, "is the input"),
        (bundle / "manifest.json", "or inside it"),
        (bundle, "is not a regular file"),
        (tmp_path / "pipe", "is not a regular file"),
        (clip / "x.json", "or inside it"),
        (tmp_path / "pipe" / "x", "is not a writable directory"),
    ):
        with pytest.raises(WmdeployError, match=message):
            check_output(target, clip, bundle)
    for target in (bundle, tmp_path, bundle / "inner"):
        with pytest.raises(WmdeployError, match="overlaps with the input"):
            check_output_directory(target, bundle)
    check_output(tmp_path / "new" / "x.json", clip, bundle)
    check_output_directory(tmp_path / "bundle2", bundle)


def test_failing_swap_brings_the_old_directory_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "bundle"
    with staged_directory(target, KIND) as partial:
        (partial / "m.json").write_text(OURS)
    monkeypatch.setattr("wmdeploy.files.exchange", lambda left, right: False)
    replace = Path.replace

    def fail(self: Path, destination: Path) -> Path:
        if self.name.startswith(".bundle.partial"):
            raise OSError(5, "Input/output error")
        return replace(self, destination)

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(WmdeployError, match="Input/output error.*nothing was changed"):
        with staged_directory(target, KIND) as partial:
            (partial / "m.json").write_text("new")
    assert (target / "m.json").read_text() == OURS and list(tmp_path.iterdir()) == [target]


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
        "import sys, time; from pathlib import Path; from wmdeploy.files import *\n"
        "kind = DirectoryKind('config.json', 'config', ())\n"
        "with staged_directory(Path(sys.argv[1]), kind) as d:\n"
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
    with staged_directory(target, KIND) as partial:
        (partial / "m.json").write_text(OURS)
    assert list(tmp_path.iterdir()) == [target]


def test_directory_retired_by_a_killed_process_is_brought_back(tmp_path: Path) -> None:
    process = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"],
                             capture_output=True, text=True)  # fmt: skip
    retired = tmp_path / f".retired.model.partial-{process.stdout.strip()}-abc.v2"
    retired.mkdir()
    (retired / "m.json").write_text(OURS)
    with pytest.raises(RuntimeError), staged_directory(tmp_path / "model.v2", KIND):
        raise RuntimeError  # the new one fails too: the old one must be there
    assert (tmp_path / "model.v2" / "m.json").read_text() == OURS
    assert len(list(tmp_path.iterdir())) == 1


def test_sha256_is_of_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc")
    assert sha256(tmp_path / "x").startswith("ba7816bf8f01cfea")


NEAR_255 = ["a" * 251 + ".gif", "ü" * 125 + ".json", "." + "b" * 254, "c." + "d" * 253]


@pytest.mark.parametrize("name", NEAR_255)
def test_names_of_255_bytes_are_written(tmp_path: Path, name: str) -> None:
    assert 254 <= len(os.fsencode(name)) <= 255
    check_output(tmp_path / name)
    with staged_file(tmp_path / name) as partial:
        partial.write_text("{}")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_directory_with_a_name_of_255_bytes_is_written_and_replaced(tmp_path: Path) -> None:
    for name in (NEAR_255[0], NEAR_255[0], "x" + NEAR_255[0][1:]):
        with staged_directory(tmp_path / name, KIND) as partial:
            (partial / "m.json").write_text(OURS)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_longer_name_is_refused_before_the_work(tmp_path: Path) -> None:
    for target in (tmp_path / ("ü" * 128), tmp_path / ("a" * 256) / "b.json"):
        for check in (check_output, check_output_directory):
            with pytest.raises(WmdeployError, match="a name of 256 bytes, .* choose a shorter one"):
                check(target)


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.ENAMETOOLONG, "Choose a shorter name"),
        (errno.EROFS, "The place is read-only: choose another"),
        (errno.ENOSPC, "Free some space"),
        (errno.EACCES, "Check the permissions"),
    ],
)
def test_advice_fits_what_went_wrong(tmp_path: Path, number: int, advice: str) -> None:
    with pytest.raises(WmdeployError, match=f"{os.strerror(number)}.*there. {advice}"):
        with staged_file(tmp_path / "a"):
            raise OSError(number, os.strerror(number))


def test_the_system_is_heard_behind_a_library(tmp_path: Path) -> None:
    with pytest.raises(WmdeployError, match="No space left on device.*Free some space"):
        with staged_file(tmp_path / "a"):
            try:
                try:
                    raise OSError(errno.ENOSPC, "No space left on device")
                except OSError:
                    raise RuntimeError("[enforce fail at inline_container.cc:672]") from None
            except RuntimeError as error:
                raise OSError(None, str(error)) from error


def test_messages_name_no_place_that_is_only_staged(tmp_path: Path) -> None:
    with pytest.raises(WmdeployError, match=f"^{tmp_path}/data.v2/clip.mkv: cannot be written"):
        with staged_directory(tmp_path / "data.v2", KIND) as partial:
            with staged_file(partial / "clip.mkv"):
                raise OSError(errno.ENOSPC, "No space left on device")


def test_a_name_that_is_no_utf8_does_not_stop_a_report(tmp_path: Path) -> None:
    write_document({"\udcff": ["clip \udcff.mkv", 1.5]}, tmp_path / "a.json")
    write_text("clip \udcff.mkv", tmp_path / "a.md")
    assert json.loads((tmp_path / "a.json").read_bytes()) == {"?": ["clip ?.mkv", 1.5]}
    assert (tmp_path / "a.md").read_text() == "clip ?.mkv"
