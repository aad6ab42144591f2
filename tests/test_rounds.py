import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.conftest import Bundles
from tests.made_reports import made_report
from wmdeploy.benchmarks.bench import interleave, workers
from wmdeploy.benchmarks.bench.assemble import noise_warning
from wmdeploy.benchmarks.bench.interleave import Run, race
from wmdeploy.benchmarks.bench.machine import Ceilings
from wmdeploy.benchmarks.bench.options import BenchOptions, Effort, clip_names, jobs, write_clips
from wmdeploy.benchmarks.bench.run import bench
from wmdeploy.benchmarks.protocol import Block, Command, Samples, Timed, Warm, Warmed
from wmdeploy.benchmarks.report import MOST_ROUNDS, Report, Row
from wmdeploy.benchmarks.stats import ratio
from wmdeploy.benchmarks.studies import false_alarms
from wmdeploy.benchmarks.worker.__main__ import Worker
from wmdeploy.benchmarks.worker.pacing import pace
from wmdeploy.benchmarks.worker.rollouts import Rollout
from wmdeploy.benchmarks.worker.timing import MOST_WARMUPS, warm_up
from wmdeploy.clips.read import SAMPLE_CLIP
from wmdeploy.engines.base import Settings, load_backend
from wmdeploy.engines.session import Session
from wmdeploy.errors import BackendError
from wmdeploy.files import write_document

ROOT = Path(__file__).parent.parent
DEFAULT = Effort()
QUICK = Effort(runs=3, seconds=0.05, block_ms=1)


class Machine:
    """Answers as workers would, on a clock of its own that runs only while they work."""

    def __init__(self, times: Mapping[str, Sequence[float]]) -> None:
        self.times = times  # ms of each block in turn, by label; again and again
        self.now = 0.0
        self.asked: list[tuple[str, Command]] = []
        self.dead: set[str] = set()

    def __call__(self, label: str, command: Command, kind: type[Any], doing: str) -> Any:
        self.asked.append((label, command))
        if label in self.dead:
            return None
        if isinstance(command, Warm):
            return Warmed(3, self.times[label][0])
        assert isinstance(command, Block)
        done = sum(isinstance(c, Block) and who == label for who, c in self.asked) - 1
        ms = self.times[label][done % len(self.times[label])]
        self.now += ms * (command.runs + command.untimed) / 1e3
        return Timed(Samples([ms] * command.runs), None)

    def race(self, effort: Effort = DEFAULT) -> dict[str, Run]:
        return dict(race(self, {"frame": list(self.times)}, 1, effort, lambda: self.now))

    def blocks(self) -> list[str]:
        return [label for label, command in self.asked if isinstance(command, Block)]

    def stages(self) -> list[str]:
        return [command.stage for _, command in self.asked if isinstance(command, Block)]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pauses, and no measuring of a machine whose speed does not matter here."""
    monkeypatch.setattr(interleave, "SETTLE_SECONDS", 0)
    monkeypatch.setattr(
        "wmdeploy.benchmarks.bench.machine.ceilings_of", lambda device, tf32: Ceilings(10, 100, 1)
    )


def test_backends_take_turns_and_the_first_changes() -> None:
    machine = Machine({"a": [10.0], "b": [5.0], "c": [2.0]})
    machine.race(Effort(runs=4))
    assert "".join(machine.blocks()) == "abcbcacababc"


def test_stages_take_turns_until_each_is_known() -> None:
    """What a neighbour does for some seconds is in a few rounds of all, not in all of a few."""
    machine = Machine({"a": [10.0]})
    entrants = {"load": [], "encode": ["a"], "step": ["a"]}
    found = list(race(machine, entrants, 1, Effort(runs=3), lambda: machine.now))
    assert machine.stages() == ["encode", "step"] * 3
    assert [(label, run.stage) for label, run in found] == [("a", "encode"), ("a", "step")]


def test_stage_that_looks_known_goes_on_with_the_others() -> None:
    wild = np.random.default_rng(4).lognormal(2, 0.8, 400).tolist()
    machine = Machine({"a": [10.0], "b": wild})

    def ask(label: str, command: Command, kind: type[Any], doing: str) -> Any:
        noisy = machine(label, command, kind, doing)
        if isinstance(command, Block) and command.stage == "encode":
            return Timed(Samples([7.0]), None)
        return noisy

    entrants = {"encode": ["a", "b"], "step": ["a", "b"]}
    found = list(race(ask, entrants, 1, Effort(seconds=2), lambda: machine.now))
    rounds_of = {run.stage: len(run.round_ms) for _, run in found}
    assert DEFAULT.runs < rounds_of["step"] and abs(rounds_of["encode"] - rounds_of["step"]) < 10


def test_dear_stage_is_spread_over_the_time_of_all() -> None:
    wild = np.random.default_rng(4).lognormal(0, 0.3, 9999)  # never precise
    machine = Machine({"a": [10.0], "b": [10.0]})
    order: list[str] = []

    def ask(label: str, command: Command, kind: type[Any], doing: str) -> Any:
        if isinstance(command, Warm):
            return Warmed(3, 10.0)
        assert isinstance(command, Block)
        order.append(command.stage)
        ms = wild[len(order)] * (400 if command.stage == "frame" else 40)
        machine.now += ms / 1e3
        return Timed(Samples([ms]), None)

    entrants = {"frame": ["a", "b"], "step": ["a", "b"]}
    list(race(ask, entrants, 1, Effort(seconds=10), lambda: machine.now))
    half = len(order) // 2
    early, late = order[:half].count("frame"), order[half:].count("frame")
    assert early > 8 and abs(early - late) <= 4


def test_block_lasts_about_the_time_it_should() -> None:
    machine = Machine({"a": [15.0], "b": [400.0], "c": [0.1]})
    machine.race()
    blocks = {label: command for label, command in machine.asked if isinstance(command, Block)}
    assert {label: (b.runs, b.untimed) for label, b in blocks.items()} == {
        "a": (3, 1), "b": (1, 0), "c": (50, 1)
    }  # fmt: skip


def test_ratio_is_of_pairs_so_that_what_both_share_cancels() -> None:
    drift = [1.0, 3.0, 1.5, 2.0, 9.0, 1.1, 4.0, 2.5]
    found = Machine({"a": [10 * d for d in drift], "b": [5 * d for d in drift]}).race()
    both = ratio(found["a"].round_ms, found["b"].round_ms)
    assert (both.value, both.low, both.high) == pytest.approx((2, 2, 2))
    assert len(found["a"].round_ms) == DEFAULT.runs  # precise at once, for all the noise


def test_ratio_interval_holds_the_truth_nearly_as_often_as_it_says() -> None:
    random = np.random.default_rng(1)
    for count, least in ((DEFAULT.runs, 0.82), (60, 0.9)):  # of few rounds it is too narrow
        both = random.normal(10, 0.5, (200, 2, count)).tolist()
        found = [ratio(a, b) for a, b in both]
        assert least < np.mean([r.low <= 1 <= r.high for r in found]) < 0.99
    a, b = both[0]
    assert ratio(a, b) == ratio(a, b)  # the same samples give the same figures


def test_interval_is_wider_where_what_disturbs_lasts_for_some_rounds() -> None:
    noise = np.random.default_rng(3).normal(0, 0.05, 400)
    lasting = np.convolve(noise, np.ones(6) / np.sqrt(6), mode="same")  # as strong, but six long
    brief, long = (ratio(np.exp(kind).tolist(), [1.0] * 400) for kind in (noise, lasting))
    assert long.precision > 1.7 * brief.precision


def test_race_goes_on_until_precise() -> None:
    random = np.random.default_rng(2)
    times = {label: random.normal(10, 0.4, 400).tolist() for label in "ab"}
    found = Machine(times).race(Effort(seconds=1000))
    count = len(found["a"].round_ms)
    assert DEFAULT.runs < count < MOST_ROUNDS
    assert ratio(found["a"].round_ms, found["b"].round_ms).precision <= 0.015
    before = ratio(found["a"].round_ms[:-1], found["b"].round_ms[:-1])
    assert before.precision > 0.015


def test_race_ends_when_the_time_is_over() -> None:
    wild = np.random.default_rng(4).lognormal(2, 0.8, 400).tolist()  # never precise
    machine = Machine({"a": [10.0], "b": wild})
    found = machine.race(Effort(seconds=2))
    assert 4 <= machine.now < 4.5 and DEFAULT.runs < len(found["b"].round_ms) < MOST_ROUNDS


def test_slow_stage_needs_fewer_rounds() -> None:
    found = Machine({"a": [1500.0], "b": [900.0]}).race()
    assert len(found["a"].round_ms) == 5


def test_dead_backend_leaves_the_race_and_the_others_go_on() -> None:
    machine = Machine({"a": [10.0], "b": [5.0], "c": [2.0]})
    inner = machine.__call__

    def ask(label: str, command: Command, kind: type[Any], doing: str) -> Any:
        if label == "b" and machine.blocks().count("b") == 2:
            machine.dead.add("b")
        return inner(label, command, kind, doing)

    found = dict(race(ask, {"frame": list("abc")}, 1, Effort(), lambda: machine.now))
    assert list(found) == ["a", "c"]
    assert len(found["a"].round_ms) == len(found["c"].round_ms) == DEFAULT.runs


@pytest.mark.parametrize(
    ("times", "runs"),
    [
        ([5.0, 5.0, 5.0, 1.0], 3),
        ([900.0, 20.0, 10.0, 9.9, 9.9, 1.0], 5),  # 9.9 is no faster than 0.98 of 10
        ([6.0, 5.0, 4.0, 3.0, 2.0, 1.0, 1.0, 1.0, 0.1], 8),
        ([0.9**n for n in range(99)], MOST_WARMUPS),
        ([9000 * 0.9**n for n in range(99)], 3),  # more than 10 s are over
    ],
)
def test_warm_up_ends_when_it_gets_no_faster(times: list[float], runs: int) -> None:
    left = iter(times)
    assert warm_up(lambda: next(left)) == times[:runs]


class Clock:
    """Time that passes where somebody sleeps, looks, or works."""

    def __init__(self, work: Sequence[float]) -> None:
        self.now, self.work, self.begun = 0.0, iter(work), list[float]()

    def __call__(self) -> float:
        self.now += 1e-6
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def step(self) -> None:
        self.begun.append(self.now)
        self.now += next(self.work)


def test_pace_keeps_due_times_after_a_late_frame() -> None:
    clock = Clock([0.01, 0.15, 0.01, 0.01, 0.01])
    paced = pace(clock.step, 10, 0.5, clock, clock.sleep)
    assert (paced.frames, paced.misses) == (5, 1)
    # the third is held up by the second, the fourth begins when it is due
    assert clock.begun == pytest.approx([0, 0.1, 0.25, 0.3, 0.4], abs=1e-4)
    assert paced.latency_ms == pytest.approx([10, 150, 60, 10, 10], abs=0.1)
    assert paced.jitter_ms == pytest.approx(1e3 * np.std([0.24, 0.01, 0.05, 0.1]), abs=0.1)


def test_pace_counts_frames_that_never_came() -> None:
    clock = Clock([1.0] * 20)
    paced = pace(clock.step, 10, 2, clock, clock.sleep)
    assert (paced.frames, len(paced.latency_ms), paced.misses) == (20, 2, 20)


def test_noise_is_told_in_one_line() -> None:
    rows = [
        Row("x", "fp32", "cpu", stage, batch, speedup=2.0, speedup_low=2 - w, speedup_high=2 + w,
            noisy=noisy)
        for stage, batch, w, noisy in
        [("frame", 1, 0.08, True), ("step", 1, 0.01, False), ("frame", 8, 0.06, True)]
    ]  # fmt: skip
    assert noise_warning(rows) == (
        "x: the machine was too noisy: speed-up known to ±4% only: frame, frame (batch 8)"
    )
    assert noise_warning(rows[1:2]) is None


def planned(tmp_path: Path, **changes: Any) -> list[tuple[str, int | None, bool]]:
    options = BenchOptions(tmp_path, (SAMPLE_CLIP,), ("eager", "ort-cpu", "tensorrt"), **changes)
    return [
        (job.label, job.settings.threads, job.cases is None)
        for job in jobs(options, (), 8, tmp_path)
    ]


def test_threads_are_swept_by_backends_on_the_cpu(tmp_path: Path) -> None:
    cpu = Settings("cpu")
    assert planned(tmp_path, settings=cpu, threads=(1, 2)) == [
        ("eager (1 thread)", 1, True),
        ("eager (2 threads)", 2, False),
        ("ort-cpu (1 thread)", 1, False),
        ("ort-cpu (2 threads)", 2, False),
        ("tensorrt", None, False),
    ]
    one = planned(tmp_path, settings=cpu, threads=(2,))
    assert one == [("eager", 2, True), ("ort-cpu", 2, False), ("tensorrt", None, False)]
    assert [threads for _, threads, _ in planned(tmp_path, settings=cpu)] == [None] * 3


def test_clips_of_the_same_name_are_told_apart() -> None:
    assert clip_names((Path("a/x.mkv"), Path("y.mkv"))) == ["x.mkv", "y.mkv"]
    assert clip_names((Path("a/x.mkv"), Path("b/x.mkv"))) == ["a/x.mkv", "b/x.mkv"]


def run(bundles: Bundles, *backends: str, **changes: Any) -> Report:
    clips = (SAMPLE_CLIP,)
    return bench(BenchOptions(bundles().path, clips, backends, context=4, effort=QUICK, **changes))


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setattr(workers, "WORKER", "tests.faulty_worker")
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
    report = run(bundles, "ort-cpu")
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
    mine = [row for row in run(bundles, "ort-cpu").rows if row.backend == "ort-cpu"]
    assert {(row.verdict, row.reason) for row in mine} == {(verdict, "a planted reason")}


def test_baseline_that_dies_ends_the_bench(bundles: Bundles, faulty: pytest.MonkeyPatch) -> None:
    faulty.setenv("FAULTY", "eager")
    faulty.setenv("HOW", "raised")
    with pytest.raises(BackendError, match="the baseline cannot run: RuntimeError: a planted"):
        run(bundles, "ort-cpu")


def test_threads_are_what_the_worker_has(bundles: Bundles, tmp_path: Path) -> None:
    options = BenchOptions(
        bundles().path, (SAMPLE_CLIP,), ("ort-cpu",), threads=(1,), settings=Settings("cpu")
    )
    clips = write_clips(options, bundles(), 4, tmp_path, [])
    eager, ort = jobs(options, clips, 4, tmp_path)
    with workers.Workers() as running:
        running.start(eager)
        running.start(ort)
        for job in (eager, ort):
            loaded = running.loaded(job.label)
            assert loaded.threads == 1
            assert loaded.affinity == sorted(os.sched_getaffinity(0))[:1]


@pytest.mark.parametrize("threads", [1, 2])
def test_engines_compute_with_the_threads_asked_for(bundles: Bundles, threads: int) -> None:
    before = torch.get_num_threads()
    try:
        ort = load_backend("ort-cpu", bundles(), Settings("cpu", threads=threads))
        options = ort.engines["decoder"]._session.get_session_options()  # type: ignore[attr-defined]
        assert options.intra_op_num_threads == threads
        load_backend("eager", bundles(), Settings("cpu", threads=threads))
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


def test_a_block_is_of_its_stage_and_not_of_the_one_that_was_warmed_last(
    bundles: Bundles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bare engines and sessions take turns on one backend; the frames are those of a rollout."""
    options = BenchOptions(bundles().path, (SAMPLE_CLIP,), ("ort-cpu",), context=4)
    clips = write_clips(options, bundles(), 8, tmp_path, [])
    job = jobs(options, clips, 8, tmp_path)[1]
    worker = Worker(job)
    calls: list[str] = []
    for name, engine in worker.backend.engines.items():
        monkeypatch.setattr(
            engine,
            "run",
            lambda f, n=name, r=engine.run: (calls.append(n), r(f))[1],  # type: ignore[func-returns-value]
        )
    for stage in ("encode", "step", "frame", "imagine", "slide"):
        worker.answer(Warm(stage, 1))
    for stage, engines in (
        ("encode", ["encoder"]), ("frame", ["prefill", "decoder"]), ("step", ["step"]),
        ("slide", ["prefill"]), ("imagine", ["step", "step"]), ("frame", ["prefill", "decoder"]),
    ):  # fmt: skip
        calls.clear()
        worker.answer(Block(stage, runs=2, untimed=1))
        assert calls == engines * 3, stage
    fresh = worker.rollouts[0]
    fresh.reset()
    alone = [fresh.step() for _ in range(8)]
    other = Rollout(Session(worker.backend), fresh.frames, None, 4)
    other.reset()
    for expected in alone:
        worker.answer(Block("step", runs=1, untimed=0))
        np.testing.assert_array_equal(other.step(), expected)


def test_the_higher_of_two_ceilings_counts() -> None:
    first, second = Ceilings(40, 400, 2), Ceilings(60, 300, 2)
    assert first.or_higher(second) == Ceilings(60, 400, 2) and first.or_higher(None) is first
    halves = (Ceilings(1, 1, 1, 7), Ceilings(1, 1, 1, 9))
    assert halves[0].or_higher(halves[1]).half_gflop_s == 9


def test_reruns_tells_how_far_runs_lie_apart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [tmp_path / f"{seed}.json" for seed in range(3)]
    for seed, path in enumerate(paths):
        slower = {"decode": 1.5} if seed == 2 else None
        write_document(made_report(seed, slower=slower), path)
    false_alarms.main(paths)
    told = capsys.readouterr().out
    assert "2 of 6 ordered pairs are flagged" in told and "decode of compile: speed-up" in told
    assert "first_call" not in told and "eager" not in told
