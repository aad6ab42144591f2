"""Worker processes: what they die of, and that none is left."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.benchmarks.bench.quick import run
from tests.conftest import Bundles
from wmdeploy.benchmarks.bench import workers
from wmdeploy.benchmarks.bench.options import BenchOptions, jobs, write_clips
from wmdeploy.clips.read import SAMPLE_CLIP
from wmdeploy.engines.base import Settings
from wmdeploy.errors import BackendError

ROOT = Path(__file__).parents[3]


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setattr(workers, "WORKER", "tests.benchmarks.bench.faulty_worker")
    path = os.environ.get("PYTHONPATH")
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{path}" if path else str(ROOT))
    return monkeypatch


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("raised", "RuntimeError: a planted fault"),
        ("killed", "killed by signal 9, perhaps out of memory: no message"),
    ],
)
def test_backend_that_dies_fails_and_the_others_go_on(
    bundles: Bundles, faulty: pytest.MonkeyPatch, how: str, reason: str
) -> None:
    faulty.setenv("FAULTY", "ort-cpu")
    faulty.setenv("HOW", how)
    report = run(bundles(), "ort-cpu")
    mine = [row for row in report.rows if row.backend == "ort-cpu"]
    assert [(row.stage, row.verdict, row.reason) for row in mine] == [
        (stage, "fail", reason) for stage in ("load", "frame")
    ]
    others = [row for row in report.rows if row.backend == "eager"]
    assert len(others) == 9 and all(row.verdict == "pass" for row in others)


@pytest.mark.parametrize(("how", "verdict"), [("refuses", "fail"), ("lacks", "skipped")])
def test_backend_that_refuses_fails_and_what_is_missing_is_skipped(
    bundles: Bundles, faulty: pytest.MonkeyPatch, how: str, verdict: str
) -> None:
    faulty.setenv("FAULTY", "ort-cpu")
    faulty.setenv("HOW", how)
    mine = [row for row in run(bundles(), "ort-cpu").rows if row.backend == "ort-cpu"]
    assert {(row.verdict, row.reason) for row in mine} == {(verdict, "a planted reason")}


def test_baseline_that_dies_ends_the_bench(bundles: Bundles, faulty: pytest.MonkeyPatch) -> None:
    faulty.setenv("FAULTY", "eager")
    faulty.setenv("HOW", "raised")
    with pytest.raises(BackendError, match="the baseline cannot run: RuntimeError: a planted"):
        run(bundles(), "ort-cpu")


def test_threads_are_what_the_worker_has(bundles: Bundles, tmp_path: Path) -> None:
    options = BenchOptions(
        bundle=bundles().path,
        clips=(SAMPLE_CLIP,),
        backends=("ort-cpu",),
        horizon=4,
        threads=(1,),
        settings=Settings("cpu"),
    )
    clips = write_clips(options, bundles(), tmp_path, [])
    eager, ort = jobs(options, clips, bundles().manifest.programs, tmp_path)
    with workers.Workers() as running:
        running.start(eager)
        running.start(ort)
        for job in (eager, ort):
            assert running.loaded(job.label).threads == 1
        pinned = [worker.cpu_affinity() for worker in psutil.Process().children()]
    assert pinned == [sorted(os.sched_getaffinity(0))[:1]] * 2


def test_ended_bench_ends_its_workers(bundles: Bundles) -> None:
    arguments = ["-m", "wmdeploy.cli", "bench", str(bundles().path), "--seconds", "99"]
    arguments += ["--context", "4", "--backend", "ort-cpu"]
    parent = psutil.Popen(
        [sys.executable, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 60
    while len(parent.children()) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    workers = parent.children()
    assert len(workers) == 2
    parent.send_signal(signal.SIGTERM)
    assert parent.wait(30) == 128 + signal.SIGTERM
    psutil.wait_procs(workers, timeout=10)
    assert not any(worker.is_running() for worker in workers)
