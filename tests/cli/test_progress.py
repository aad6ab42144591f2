"""Progress of a long task: a bar on a terminal, plain lines in a log."""

import io
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.test_cli import ROOT
from wmdeploy.cli import progress as shown
from wmdeploy.cli.console import Terminal


class Log:
    """Lines, and a clock that a test moves."""

    def __init__(self) -> None:
        self.now = 0.0
        self.lines: list[str] = []
        self.show = shown.Lines(self.lines.append, lambda: self.now)


def test_line_for_every_tenth_of_a_task() -> None:
    log = Log()
    for done in range(1, 101):
        log.now = 2.0 * done
        log.show("vqvae", done, 100, "loss 0.5")
    assert len(log.lines) == 10
    assert log.lines[0] == "vqvae: 10 of 100 (10%) after 0:00:18; loss 0.5"
    assert log.lines[-1].startswith("vqvae: 100 of 100 (100%)")


def test_line_for_every_thirty_seconds_of_a_slow_task() -> None:
    log = Log()
    for done in range(1, 101):
        log.now = float(done)
        log.show("encode", done, 10_000)
    assert log.lines == [
        "encode: 30 of 10000 (0%) after 0:00:29",
        "encode: 60 of 10000 (1%) after 0:00:59",
        "encode: 90 of 10000 (1%) after 0:01:29",
    ]


def test_quick_tasks_do_not_fill_a_log() -> None:
    log = Log()
    for task in range(8):
        for done in range(1, 11):
            log.now += 0.01
            log.show(f"task {task}", done, 10)
    assert log.lines == []
    log.now += 30
    log.show("task 8", 0, 10)
    assert log.lines == ["task 8: 0 of 10 (0%) after 0:00:00"]


def test_task_that_begins_again_is_counted_from_its_begin() -> None:
    log = Log()
    for begin in (0.0, 100.0):
        log.now = begin
        log.show("read", 1, 4)
        log.now = begin + 5
        log.show("read", 4, 4)
    assert log.lines[-1] == "read: 4 of 4 (100%) after 0:00:05"


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """Standard error as a terminal, and what is written there."""
    monkeypatch.setenv("TERM", "xterm")
    console = Terminal()
    console.file = io.StringIO()
    console._force_terminal = console.is_interactive = True
    monkeypatch.setattr(shown, "err", console)
    return console.file


def test_bar_shows_the_task_of_the_moment(terminal: io.StringIO) -> None:
    with shown.show_progress() as progress:
        assert not isinstance(progress, shown.Lines)
        progress("read", 3, 3, "[b]a\x1b[2Jb")
        progress("vqvae", 20, 600, "loss 0.1234")
        bar = progress._bar  # type: ignore[attr-defined]
        assert [task.description for task in bar.tasks if task.visible] == ["vqvae"]
        bar.refresh()
    text = terminal.getvalue()
    assert "20/600" in text and "loss 0.1234" in text and "\x1b[2Jb" not in text


def test_only_the_first_of_several_processes_shows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shown, "quiet", True)
    monkeypatch.setattr(shown.err, "print", pytest.fail)
    monkeypatch.setattr(shown, "LEAST_SECONDS", 0.0)
    with shown.show_progress() as progress:
        progress("vqvae", 1, 1)


@pytest.mark.slow
def test_training_in_a_log_says_how_far_it_is(squares: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "wmdeploy.cli", "train", "--data", str(squares)]
    command += ["-o", str(tmp_path / "model"), "--vqvae-steps", "40", "--temporal-steps", "40"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    lines = [line for line in result.stderr.splitlines() if line.startswith("vqvae: ")]
    assert 1 < len(lines) <= 10
    assert " of 40 (" in lines[0] and "; loss " in lines[0]
    assert "vqvae: 40 steps" in result.stdout
