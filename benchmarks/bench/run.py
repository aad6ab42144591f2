"""`wmdeploy bench`: every backend in a process of its own, in turns, one report at the end."""

import dataclasses
import os

from wmdeploy.benchmarks.bench.assemble import (
    _describe_bundle,
    _judged,
    _pacing,
    _rows,
    _warnings,
)
from wmdeploy.benchmarks.bench.machine import _ceilings, environment
from wmdeploy.benchmarks.bench.measure import _start, _work
from wmdeploy.benchmarks.bench.options import (
    BenchOptions,
    check,
    check_backends,
    clip_names,
    jobs,
    write_clips,
)
from wmdeploy.benchmarks.bench.workers import Workers
from wmdeploy.benchmarks.report import SCHEMA, Report
from wmdeploy.benchmarks.stages import STAGES
from wmdeploy.bundle import Bundle
from wmdeploy.leftovers import scratch_directory
from wmdeploy.progress import Progress, silent


def bench(options: BenchOptions, progress: Progress = silent) -> Report:
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
            for job in workers.each("load", others):
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
