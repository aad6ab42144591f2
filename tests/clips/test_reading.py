"""Files that are none, and files that are too large: one line, at once, and no memory taken."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from wmdeploy import cli
from wmdeploy.files import (
    LARGEST_DOCUMENT,
    append_regular,
    check_output,
    open_regular,
    read_document,
    sha256,
    staged_file,
)


@pytest.fixture(autouse=True)
def no_waiting() -> Iterator[None]:
    """What would wait for ever fails after a minute."""

    def late(number: int, frame: object) -> None:
        raise AssertionError("waited for a minute")

    old = signal.signal(signal.SIGALRM, late)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, old)


def pipe(path: Path) -> None:
    os.mkfifo(path)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def loop(path: Path) -> None:
    path.symlink_to(path)


def directory(path: Path) -> None:
    path.mkdir()


def sparse(path: Path) -> None:
    path.touch()
    os.truncate(path, 6_000_000_000)


NO_FILES = (pipe, device, loop, directory)
Make = Callable[[Path], None]


@pytest.mark.parametrize("make", NO_FILES)
@pytest.mark.parametrize("read", [read_document, sha256, open_regular, append_regular])
def test_what_is_no_file_is_refused_at_once(
    tmp_path: Path, make: Make, read: Callable[[Path], object]
) -> None:
    make(tmp_path / "x.json")
    with pytest.raises(OSError):
        read(tmp_path / "x.json")


def test_large_file_is_not_read_whole(tmp_path: Path) -> None:
    sparse(tmp_path / "x.json")
    with pytest.raises(OSError, match="holds more than 16 MiB"):
        read_document(tmp_path / "x.json")
    os.truncate(tmp_path / "x.json", 100)
    with pytest.raises(OSError, match="holds more than"):
        read_document(tmp_path / "x.json", most=99)
    assert read_document(tmp_path / "x.json", most=100) == bytes(100)
    assert LARGEST_DOCUMENT == 16 * 2**20


def test_link_to_a_regular_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "blob").write_bytes(b"{}")
    (tmp_path / "x.json").symlink_to(tmp_path / "blob")
    assert read_document(tmp_path / "x.json") == b"{}"


def test_text_is_added_to_a_regular_file_alone(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.write_text("mine\n")
    log = tmp_path / "build.log"
    for make, message in ((log.symlink_to, "symbolic"), (log.hardlink_to, "second name")):
        make(mine)
        with pytest.raises(OSError, match=message):
            append_regular(log)
        log.unlink()
    assert mine.read_text() == "mine\n"
    for word in ("one\n", "two\n"):
        with append_regular(log) as file:
            file.write(word)
    assert log.read_text() == "one\ntwo\n"


def test_output_that_is_a_link_to_itself_is_no_traceback(tmp_path: Path) -> None:
    loop(tmp_path / "x.json")
    check_output(tmp_path / "x.json", tmp_path / "y")
    check_output(tmp_path / "y.json", tmp_path / "x.json")
    with staged_file(tmp_path / "x.json") as partial:
        partial.write_text("{}")
    assert (tmp_path / "x.json").read_text() == "{}"


def documents(bundle: Path, model: Path, data: Path) -> list[tuple[Path, list[str]]]:
    """Each JSON file, and a command that reads it."""
    report = data.parent / "report.json"
    report.write_text("{}")
    return [
        (bundle / "manifest.json", ["inspect", str(bundle)]),
        (model / "config.json", ["inspect", str(model)]),
        (data / "clips.json", ["evaluate", str(model), "--data", str(data)]),
        (report, ["report", str(report), "--html", str(data.parent / "page.html")]),
    ]


@pytest.mark.parametrize("number", range(4), ids=["manifest", "config", "clips", "report"])
@pytest.mark.parametrize("make", [pipe, device, loop, sparse])
def test_commands_end_with_a_line(
    tmp_path: Path,
    make: Make,
    number: int,
    micro_model: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in ("bundle", "data"):
        (tmp_path / name).mkdir()
    document, command = documents(tmp_path / "bundle", micro_model, tmp_path / "data")[number]
    document.unlink(missing_ok=True)
    make(document)
    with pytest.raises(SystemExit) as ended:
        cli.main(command)
    assert ended.value.code == 1
    told = capsys.readouterr().err
    assert told.startswith("error: ") and len(told.splitlines()) == 1


def test_reports_are_not_written_through_links_in_a_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine").write_text("mine")
    for name, verb in (("milestone.md", "milestone"), ("token-fp32.json", "sweep")):
        folder = tmp_path / verb
        folder.mkdir()
        (folder / name).symlink_to(tmp_path / "mine")
        with pytest.raises(SystemExit):
            cli.main([verb, "tiny", "-o", str(folder)])
        assert f"{name}: is a link" in capsys.readouterr().err.replace("\n", "")
    assert (tmp_path / "mine").read_text() == "mine"
    assert not (tmp_path / "sweep" / "token-fp32").exists()
