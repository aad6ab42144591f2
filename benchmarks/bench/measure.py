"""All that the workers are asked for, and in which order."""

from wmdeploy.benchmarks.bench.interleave import Run, race
from wmdeploy.benchmarks.bench.options import BenchOptions, Effort
from wmdeploy.benchmarks.bench.workers import Workers
from wmdeploy.benchmarks.protocol import (
    Count,
    Counted,
    FindTies,
    FoundTies,
    Held,
    Hold,
    Job,
    Pace,
    Paced,
    Record,
    Recorded,
    Samples,
    Swap,
    Swapped,
)
from wmdeploy.benchmarks.stages import BATCH_STAGES, STAGES
from wmdeploy.bundle import Bundle
from wmdeploy.engines.base import BACKENDS

SWAP_PAST_CONTEXT = 8  # frames with a window that slides


def _work(workers: Workers, options: BenchOptions, bundle: Bundle, horizon: int) -> Counted | None:
    """All that the workers are asked for; what needs little memory comes first."""
    _time(workers, options.effort)
    for label in workers.alive:
        workers.ask(label, Record(), Recorded, "parity")
    _time_batches(workers, options)
    if options.fps is not None:
        _pace(workers, options.fps, options.pace_seconds)
    if options.swap:
        _swap(workers, min(horizon, bundle.manifest.wiring.context + SWAP_PAST_CONTEXT))
    for label in workers.alive[1:]:
        _resolve_ties(workers, label)
    return workers.ask(workers.alive[0], Count(), Counted, "count the other layout")


def _resolve_ties(workers: Workers, label: str) -> None:
    """Where codes tie, let a backend record once more, from the baseline's."""
    outcome = workers.outcome(label)
    command = FindTies(str(outcome.directory), workers.loaded(label).precision)
    found = workers.ask(workers.alive[0], command, FoundTies, f"compare the codes of {label}")
    outcome.codes = found.counts if found is not None else []
    if any(count.tied for count in outcome.codes):
        workers.ask(label, Record(same_codes=True), Recorded, "parity from the same codes")


def _start(workers: Workers, job: Job) -> None:
    on_gpu = BACKENDS[job.backend].device == "cuda"
    if job.cases and on_gpu and not workers.gpu_found:
        workers.skip(job, "needs an NVIDIA GPU, and torch finds none here")
        return
    workers.start(job)
    outcome = workers.outcomes[-1]
    if outcome.loaded is not None:
        outcome.runs = [
            Run("load", 1, Samples([outcome.loaded.load_ms])),
            Run("first_call", 1, Samples([outcome.loaded.first_call_ms])),
        ]


def _time(workers: Workers, effort: Effort) -> None:
    """Every stage at batch 1, and the memory that this took."""
    stages = {label: workers.loaded(label).stages for label in workers.alive}
    entrants = {name: [label for label in stages if name in stages[label]] for name in STAGES}
    _race(workers, entrants, 1, effort)
    _hold(workers, workers.alive, 1)


def _time_batches(workers: Workers, options: BenchOptions) -> None:
    for batch in dict.fromkeys(options.batches):
        if batch == 1:
            continue
        takes = {label: workers.loaded(label).max_batch for label in workers.alive}
        labels = [label for label, most in takes.items() if most is None or batch <= most]
        _race(workers, dict.fromkeys(BATCH_STAGES, labels), batch, options.effort)
        _hold(workers, labels, batch)


def _race(workers: Workers, entrants: dict[str, list[str]], batch: int, effort: Effort) -> None:
    for label, run in race(workers.ask, entrants, batch, effort):
        workers.outcome(label).runs.append(run)


def _hold(workers: Workers, labels: list[str], batch: int) -> None:
    for label in labels:
        held = workers.ask(label, Hold(), Held, "memory")
        if held is not None:
            workers.outcome(label).memory[batch] = held.memory


def _pace(workers: Workers, fps: float, seconds: float) -> None:
    for label in workers.alive:
        paced = workers.ask(label, Pace(fps, seconds), Paced, f"{fps:g} frames per second")
        workers.outcome(label).paced = paced


def _swap(workers: Workers, frames: int) -> None:
    for label in workers.alive[1:]:
        swapped = workers.ask(label, Swap(frames), Swapped, "swap one graph at a time")
        workers.outcome(label).swapped = swapped
