"""The workers' processes, as the bench sees them: started, asked, and ended with it.

A worker that dies is left out from then on; without the baseline there is nothing to go on for.
"""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TypeVar

import msgspec

from wmdeploy.benchmarks.bench.interleave import Run
from wmdeploy.benchmarks.environment import GpuSample
from wmdeploy.benchmarks.protocol import (
    ANSWER,
    MISSING,
    REFUSED,
    Command,
    FixedRateTimes,
    Job,
    Loaded,
    Substituted,
)
from wmdeploy.benchmarks.report import Memory, Verdict
from wmdeploy.codes import CodeCount
from wmdeploy.errors import BackendError
from wmdeploy.progress import Progress, silent
from wmdeploy.text import one_line

# The module that is started; tests start one that is slow, or wrong.
WORKER = "wmdeploy.benchmarks.worker"
Kind = TypeVar("Kind")


@dataclass(kw_only=True)
class Result:
    """What one worker has given so far, or why it gives no more.

    A backend for which this machine lacks something is skipped; one that refuses the bundle, or
    breaks, has failed.

    Attributes:
        label: of the backend in the report, with its number of threads where these are swept.
        memory: by batch.
        codes: by clip.
    """

    label: str
    directory: Path
    loaded: Loaded | None = None
    runs: list[Run] = field(default_factory=list)
    memory: dict[int, Memory] = field(default_factory=dict)
    fixed_rate: FixedRateTimes | None = None
    substituted: Substituted | None = None
    codes: list[CodeCount] = field(default_factory=list)
    reason: str | None = None
    verdict: Verdict = "pass"

    @property
    def gpu_states(self) -> list[GpuSample]:
        """Of each stage where its clock was lowest."""
        states = [
            GpuSample(run.stage, run.batch, lowest)
            for run in self.runs
            if (lowest := min(run.gpu, key=lambda state: state.sm_clock_mhz, default=None))
        ]
        if self.fixed_rate is not None and self.fixed_rate.gpu is not None:
            states.append(GpuSample("fixed rate", 1, self.fixed_rate.gpu))
        return states


@dataclass(frozen=True)
class Process:
    """One worker; `result` collects what it gave."""

    job: Job
    popen: "subprocess.Popen[str]"
    result: Result

    def send(self, command: Command) -> None:
        assert self.popen.stdin is not None
        try:
            self.popen.stdin.write(f"{msgspec.json.encode(command).decode()}\n")
            self.popen.stdin.flush()
        except BrokenPipeError:
            pass  # there will be no answer either

    def receive(self, kind: type[Kind]) -> Kind | None:
        """The next answer; None if the process ended instead."""
        assert self.popen.stdout is not None
        for line in self.popen.stdout:
            _, mark, answer = line.partition(ANSWER)
            if mark:
                return msgspec.json.decode(answer, type=kind)
        return None

    def last_words(self) -> tuple[str, bool]:
        """Why it ended, and whether because this machine lacks something."""
        code = self.popen.wait()
        log = (self.job.directory / "stderr.txt").read_text(encoding="utf-8", errors="replace")
        lines = [line for line in log.splitlines() if line.strip()]
        last = lines[-1] if lines else "no message"
        if code > 0 and last.startswith((MISSING, REFUSED)):
            return last.removeprefix(MISSING).removeprefix(REFUSED), last.startswith(MISSING)
        died = f"killed by signal {-code}, perhaps out of memory: " if code < 0 else ""
        return died + one_line(last), False


@dataclass(kw_only=True)
class Workers:
    """All processes by label, in the order in which they were started.

    A context manager: at the end of the block, however it ends, no process is left. `progress` is
    called before a worker is started or asked, with the `task` of the moment.
    """

    progress: Progress = silent
    task: str = "bench"
    done: int = 0
    total: int = 1
    results: dict[str, Result] = field(default_factory=dict)
    _alive: dict[str, Process] = field(default_factory=dict)

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def alive(self) -> list[str]:
        return list(self._alive)

    def loaded(self, label: str) -> Loaded:
        loaded = self._alive[label].result.loaded
        assert loaded is not None
        return loaded

    def start(self, job: Job) -> None:
        """Start a worker and wait until it has loaded.

        Raises:
            BackendError: it is the baseline, and cannot.
        """
        self._show(job.label)
        job.directory.mkdir()
        file = job.directory / "job.json"
        file.write_bytes(msgspec.json.encode(job, enc_hook=str))
        with (job.directory / "stderr.txt").open("w") as log:
            popen = subprocess.Popen(
                [sys.executable, "-P", "-m", WORKER, str(file)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                encoding="utf-8",
                errors="surrogateescape",
                env=_environment(job),
            )
        result = self.results[job.label] = Result(label=job.label, directory=job.directory)
        process = self._alive[job.label] = Process(job, popen, result)
        result.loaded = process.receive(Loaded)
        if result.loaded is None:
            self._bury(process)

    def skip(self, job: Job, reason: str) -> None:
        """Note why a backend is not even started."""
        self.results[job.label] = Result(
            label=job.label, directory=job.directory, reason=reason, verdict="skipped"
        )

    def ask(self, label: str, command: Command, kind: type[Kind], doing: str) -> Kind | None:
        """A worker's answer; None if it is dead, or dies of the command.

        Raises:
            BackendError: it is the baseline, and dies.
        """
        process = self._alive.get(label)
        if process is None:
            return None
        self._show(f"{label}: {doing}")
        process.send(command)
        answer = process.receive(kind)
        if answer is None:
            self._bury(process)
        return answer

    def each(self, task: str, items: Sequence[Kind]) -> Iterator[Kind]:
        """The items one by one, each a part of a task that is shown."""
        self.task, self.total = task, max(1, len(items))
        for self.done, item in enumerate(items):
            yield item

    def reach(self, task: str, share: float) -> None:
        """Note how much of a task is done, from 0 to 1."""
        self.task, self.done, self.total = task, round(100 * share), 100

    def _show(self, detail: str) -> None:
        self.progress(self.task, self.done, self.total, detail)

    def close(self) -> None:
        """End every process."""
        for process in self._alive.values():
            process.popen.kill()  # none has anything left to write
        for process in self._alive.values():
            process.popen.wait()
            _close(process.popen.stdin)
            _close(process.popen.stdout)
        self._alive.clear()

    def _bury(self, process: Process) -> None:
        result = process.result
        result.reason, missing = process.last_words()
        # what it lacks shows while it loads; afterwards it broke
        result.verdict = "skipped" if missing and result.loaded is None else "fail"
        del self._alive[result.label]
        _close(process.popen.stdin)
        _close(process.popen.stdout)
        if process.job.is_baseline:
            raise BackendError(f"the baseline cannot run: {result.reason}")


def _environment(job: Job) -> dict[str, str]:
    """OpenMP reads its number of threads when it is loaded, long before anybody could set it.

    What workers and the bench tell each other is UTF-8, whatever the user's terminal shows.
    """
    threads = job.settings.threads
    openmp = {} if threads is None else {"OMP_NUM_THREADS": str(threads)}
    return os.environ | {"PYTHONIOENCODING": "utf-8:surrogateescape"} | openmp


def _close(pipe: IO[str] | None) -> None:
    try:
        if pipe is not None:
            pipe.close()
    except BrokenPipeError:
        pass  # a command that was never read
