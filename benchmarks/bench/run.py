"""`wmdeploy bench`: every backend in a process of its own, in turns, one report at the end."""

import dataclasses
import os
import subprocess
import sys
from typing import Any

import msgspec

from wmdeploy.benchmarks.bench.assemble import (
    Outcome,
    clock_warnings,
    noise_warning,
    rows_of,
    rows_without_times,
)
from wmdeploy.benchmarks.bench.interleave import Run, race
from wmdeploy.benchmarks.bench.machine import Ceilings, environment
from wmdeploy.benchmarks.bench.options import (
    BenchOptions,
    check,
    check_backends,
    clip_names,
    jobs,
    write_clips,
)
from wmdeploy.benchmarks.bench.roofline import floors, moved_bytes
from wmdeploy.benchmarks.bench.workers import Progress, Workers
from wmdeploy.benchmarks.parity.gate import Judgement, judge
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
    Swap,
    Swapped,
)
from wmdeploy.benchmarks.report import SCHEMA, STAGES, Pacing, Report, Row
from wmdeploy.benchmarks.worker.timing import Effort, Samples
from wmdeploy.bundle import Bundle
from wmdeploy.engines.base import GPU_ONLY
from wmdeploy.files import real_path, sha256
from wmdeploy.leftovers import scratch_directory
from wmdeploy.manifest import MANIFEST_FILE

SWAP_PAST_CONTEXT = 8  # frames with a window that slides
BATCH_STAGES = ("frame", "imagine")  # what is timed for more than one session


def bench(options: BenchOptions, progress: Progress = lambda backend, stage: None) -> Report:
    """Run every backend and compare it with the baseline.

    Raises:
        BackendError: an unknown backend, an option out of range, or the baseline cannot run.
        BundleError, ClipError: the bundle or a clip cannot be used.
    """
    check_backends(options.backends)
    bundle = Bundle.open(options.bundle)
    bundle.verify()
    described = environment()  # now: later the load average would be our own
    cpus = sorted(os.sched_getaffinity(0))
    horizon = check(options, bundle.manifest.wiring.context, len(cpus))
    names = clip_names(options.clips)
    with scratch_directory("wmdeploy-bench-") as scratch:
        remarks: list[str] = []
        clips = write_clips(options, bundle, horizon, scratch, remarks)
        with Workers(progress) as workers:
            baseline, *others = jobs(options, clips, horizon, scratch)
            _start(workers, baseline)  # alone, so that the ceilings' arrays find room
            before = _ceilings(workers.outcomes, options.settings.tf32, progress)
            for job in others:
                _start(workers, job)
            counted = _work(workers, options, bundle, horizon)
        outcomes = workers.outcomes
        after = _ceilings(outcomes, options.settings.tf32, progress)
        ceilings = {device: after[device].or_higher(before.get(device)) for device in after}
        judgements = _judged(outcomes, bundle, names, options.swap)
    rows = [
        row
        for outcome in outcomes
        for row in _rows(outcome, judgements, outcomes[0], bundle, ceilings, options)
    ]
    described |= {
        "affinity": cpus,
        "ceilings": {name: dataclasses.asdict(c) for name, c in ceilings.items()},
        "settings": dataclasses.asdict(options.settings),
        "effort": dataclasses.asdict(options.effort),
        "gpu_states": {o.backend: states for o in outcomes if (states := o.gpu_states)},
    }
    about = _describe_bundle(bundle) | {
        "clip": names[0],
        "clips": names,
        "context": options.context,
        "horizon": horizon,
        "refill": options.refill,
        "other_layout": None if counted is None else dataclasses.asdict(counted),
    }
    rows.sort(key=lambda row: STAGES.index(row.stage))  # stable: backends keep their order
    return Report(
        SCHEMA,
        described,
        about,
        rows,
        [*remarks, *_warnings(outcomes, rows)],
        [curve for judgement in judgements.values() for curve in judgement.curves],
        {o.backend: o.swapped.worst_db for o in outcomes if o.swapped and o.swapped.worst_db},
        [_pacing(o.backend, options.fps, o.paced) for o in outcomes if o.paced and options.fps],
        {backend: judgement.strip for backend, judgement in judgements.items()},
    )


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


def _judged(
    outcomes: list[Outcome], bundle: Bundle, clips: list[str], swapped: bool
) -> dict[str, Judgement]:
    """Those that ran, beside the baseline; where a gate was missed, with what would tell more."""
    found = {}
    for outcome in outcomes[1:]:
        if outcome.verdict == "pass" and outcome.loaded is not None:
            precision, baseline = outcome.loaded.precision, outcomes[0].directory
            judgement = judge(
                outcome.backend,
                precision,
                outcome.directory,
                baseline,
                bundle,
                clips,
                outcome.codes,
            )
            if judgement.reason and not swapped:
                hint = f"{judgement.reason}; --swap tells which graph"
                judgement = dataclasses.replace(judgement, reason=hint)
            found[outcome.backend] = judgement
    return found


def _rows(
    outcome: Outcome,
    judgements: dict[str, Judgement],
    baseline: Outcome,
    bundle: Bundle,
    ceilings: dict[str, Ceilings],
    options: BenchOptions,
) -> list[Row]:
    if outcome.verdict != "pass" or outcome.loaded is None:
        return rows_without_times(outcome)
    machine = ceilings[outcome.loaded.device.split(":")[0]]
    least = {batch: floors(bundle, machine, batch, options.refill) for batch in outcome.memory}
    judgement = judgements.get(outcome.backend, Judgement())
    return rows_of(outcome, baseline, least, judgement, options.effort.precision)


def _start(workers: Workers, job: Job) -> None:
    if job.cases and job.backend in GPU_ONLY and not workers.gpu_found:
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


def _pacing(backend: str, fps: float, paced: Paced) -> Pacing:
    return Pacing(backend, fps, paced.frames, paced.misses, paced.jitter_ms, paced.latency_ms)


def _swap(workers: Workers, frames: int) -> None:
    for label in workers.alive[1:]:
        swapped = workers.ask(label, Swap(frames), Swapped, "swap one graph at a time")
        workers.outcome(label).swapped = swapped


def _ceilings(outcomes: list[Outcome], tf32: bool, progress: Progress) -> dict[str, Ceilings]:
    """Of each device that a backend was loaded on."""
    devices = {o.loaded.device.split(":")[0] for o in outcomes if o.loaded is not None}
    found = {}
    for device in sorted(devices):
        progress(device, "bandwidth and rate of operations")
        found[device] = ceilings_of(device, tf32)
    return found


def ceilings_of(device: str, tf32: bool) -> Ceilings:
    """Measured in a process of its own, which alone needs torch."""
    code = (
        "import msgspec, sys; from wmdeploy.benchmarks.bench.machine import measure_ceilings; "
        f"sys.stdout.buffer.write(msgspec.json.encode(measure_ceilings({device!r}, {tf32})))"
    )
    process = subprocess.run([sys.executable, "-P", "-c", code], check=True, stdout=subprocess.PIPE)
    return msgspec.json.decode(process.stdout, type=Ceilings)


def _warnings(outcomes: list[Outcome], rows: list[Row]) -> list[str]:
    warnings = [warning for outcome in outcomes for warning in clock_warnings(outcome)]
    for outcome in outcomes:
        if outcome.swapped is not None and outcome.swapped.skipped:
            warnings.append(f"{outcome.backend}: no --swap: it {outcome.swapped.skipped}")
        noisy = noise_warning([row for row in rows if row.backend == outcome.backend])
        warnings += [noisy] if noisy else []
    return warnings


def _describe_bundle(bundle: Bundle) -> dict[str, Any]:
    manifest = bundle.manifest
    return {
        "name": real_path(bundle.path).name,
        "manifest_sha256": sha256(bundle.path / MANIFEST_FILE),
        "recipe": dataclasses.asdict(manifest.recipe),
        "model": manifest.model,
        "context_length": manifest.wiring.context,
        "graph_flops": {name: graph.flops for name, graph in manifest.graphs.items()},
        "graph_weight_bytes": {name: g.weight_bytes for name, g in manifest.graphs.items()},
        "graph_bytes": {name: moved_bytes(g, 1) for name, g in manifest.graphs.items()},
        "bundle_bytes": sum(record.bytes for record in manifest.files.values()),
    }
