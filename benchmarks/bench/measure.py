"""All that the workers are asked for, and in which order."""

from functools import partial

from wmdeploy.benchmarks.bench.interleave import Run, interleave
from wmdeploy.benchmarks.bench.options import BenchOptions
from wmdeploy.benchmarks.bench.workers import Result, Workers
from wmdeploy.benchmarks.environment import Effort
from wmdeploy.benchmarks.parity.metrics import judged_window
from wmdeploy.benchmarks.protocol import (
    CountedTies,
    CountTies,
    FixedRateTimes,
    Job,
    MeasuredMemory,
    MeasureMemory,
    Record,
    Recorded,
    RunAtRate,
    Samples,
    Substitute,
    Substituted,
)
from wmdeploy.benchmarks.stages import COMMON, StageName, stages_of
from wmdeploy.engines.base import BACKENDS
from wmdeploy.manifest import Manifest

SUBSTITUTED_PAST_CONTEXT = 8  # frames with a window that slides


def start(workers: Workers, job: Job, has_gpu: bool) -> Result:
    """Start a worker; skip it where its backend needs a GPU and torch finds none."""
    if BACKENDS[job.backend].device == "cuda" and not has_gpu:
        workers.skip(job, "needs an NVIDIA GPU, and torch finds none here")
        return workers.results[job.label]
    workers.start(job)
    result = workers.results[job.label]
    if result.loaded is not None:
        result.runs = [
            Run(stage="load", batch=1, samples=Samples([result.loaded.load_ms])),
            Run(stage="first_call", batch=1, samples=Samples([result.loaded.first_call_ms])),
        ]
    return result


def measure(workers: Workers, baseline: str, options: BenchOptions, manifest: Manifest) -> None:
    """Ask the workers for everything; what needs little memory comes first.

    Args:
        baseline: its label.
    """
    _time(workers, list(stages_of(manifest.graphs)), options.effort)
    for label in workers.each("parity", workers.alive):
        workers.ask(label, Record(), Recorded, "parity")
    _time_batches(workers, options)
    if options.fps is not None:
        for label in workers.each("fixed rate", workers.alive):
            command = RunAtRate(options.fps, options.rate_seconds)
            times = workers.ask(
                label, command, FixedRateTimes, f"{options.fps:g} frames per second"
            )
            workers.results[label].fixed_rate = times
    others = [label for label in workers.alive if label != baseline]
    if options.swap:
        window = judged_window(manifest.programs)
        frames = min(options.horizon_for(window), window + SUBSTITUTED_PAST_CONTEXT)
        for label in workers.each("substitution", others):
            substituted = workers.ask(
                label, Substitute(frames), Substituted, "swap one graph at a time"
            )
            workers.results[label].substituted = substituted
    for label in workers.each("codes", [label for label in others if label in workers.alive]):
        _resolve_ties(workers, baseline, label)


def _time(workers: Workers, names: list[StageName], effort: Effort) -> None:
    """Every stage at batch 1, and the memory that this took."""
    stages = {label: workers.loaded(label).stages for label in workers.alive}
    labels = {name: [label for label in stages if name in stages[label]] for name in names}
    _interleave(workers, labels, 1, effort)


def _time_batches(workers: Workers, options: BenchOptions) -> None:
    batched = [stage.name for stage in COMMON.values() if stage.batched]
    for batch in (batch for batch in dict.fromkeys(options.batches) if batch > 1):
        largest = {label: workers.loaded(label).max_batch for label in workers.alive}
        labels = [label for label, most in largest.items() if most is None or batch <= most]
        _interleave(workers, dict.fromkeys(batched, labels), batch, options.effort)


def _interleave(
    workers: Workers, labels: dict[StageName, list[str]], batch: int, effort: Effort
) -> None:
    """Time each stage on the labels that have it, then ask them for their memory."""
    task = "time" if batch == 1 else f"time batch {batch}"
    workers.reach(task, 0.0)
    progress = partial(workers.reach, task)
    for label, run in interleave(workers.ask, labels, batch, effort, progress=progress):
        workers.results[label].runs.append(run)
    timed = {label for stage in labels.values() for label in stage}
    task = "memory" if batch == 1 else f"memory batch {batch}"
    for label in workers.each(task, [label for label in workers.alive if label in timed]):
        held = workers.ask(label, MeasureMemory(), MeasuredMemory, "memory")
        if held is not None:
            workers.results[label].memory[batch] = held.memory


def _resolve_ties(workers: Workers, baseline: str, label: str) -> None:
    """Where codes tie, let a backend record once more, from the baseline's."""
    result = workers.results[label]
    command = CountTies(str(result.directory), workers.loaded(label).precision)
    ties = workers.ask(baseline, command, CountedTies, f"compare the codes of {label}")
    result.codes = ties.counts if ties is not None else []
    if any(count.tied for count in result.codes):
        workers.ask(label, Record(same_codes=True), Recorded, "parity from the same codes")
