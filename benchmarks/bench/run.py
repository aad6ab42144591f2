"""`wmdeploy bench`: every backend in a process of its own, in turns, one report at the end."""

import dataclasses
import os

from wmdeploy.benchmarks.bench.assemble import assemble, bundle_facts
from wmdeploy.benchmarks.bench.machine import ceilings_of, this_machine
from wmdeploy.benchmarks.bench.measure import measure, start
from wmdeploy.benchmarks.bench.options import (
    BenchOptions,
    check,
    check_backends,
    clip_names,
    jobs,
    write_clips,
)
from wmdeploy.benchmarks.bench.workers import Result, Workers
from wmdeploy.benchmarks.environment import Environment
from wmdeploy.benchmarks.parity.gate import ParityResult, check_parity
from wmdeploy.benchmarks.report import Report
from wmdeploy.bundle import Bundle
from wmdeploy.leftovers import scratch_directory
from wmdeploy.manifest import exactness
from wmdeploy.progress import Progress, silent


def bench(options: BenchOptions, progress: Progress = silent) -> Report:
    """Run every backend and compare it with the baseline.

    Raises:
        BackendError: an unknown backend, an option out of range, or the baseline cannot run.
        BundleError, ClipError: the bundle or a clip cannot be used.
        WmdeployError: the bundle has no such decoder.
    """
    check_backends(options.backends)
    bundle = Bundle.open(options.bundle).with_decoder(options.settings.decoder)
    bundle.verify()
    machine = this_machine()
    cpus = sorted(os.sched_getaffinity(0))
    programs = bundle.manifest.programs
    check(options, programs, len(cpus))
    names = clip_names(options.clips)
    tf32 = options.settings.tf32
    with scratch_directory("wmdeploy-bench-") as scratch:
        remarks: list[str] = []
        clips = write_clips(options, bundle, scratch, remarks)
        first, *others = jobs(options, clips, programs, scratch)
        with Workers(progress=progress) as workers:
            baseline = start(workers, first, has_gpu=True)
            assert baseline.loaded is not None
            # of the baseline's device alone now, so that the arrays find room
            before = ceilings_of([baseline.loaded.device], tf32, progress)
            for job in workers.each("load", others):
                start(workers, job, baseline.loaded.has_gpu)
            measure(workers, first.label, options, bundle.manifest)
        results = workers.results
        devices = [result.loaded.device for result in results.values() if result.loaded]
        after = ceilings_of(devices, tf32, progress)
        parity = {
            label: _parity(result, baseline, bundle, names)
            for label, result in results.items()
            if result is not baseline and result.verdict == "pass"
        }
    environment = Environment(
        **vars(machine),
        affinity=cpus,
        ceilings={device: after[device].or_higher(before.get(device)) for device in after},
        settings=options.settings,
        effort=options.effort,
        gpu_states={
            label: result.gpu_states for label, result in results.items() if result.gpu_states
        },
    )
    facts = bundle_facts(bundle, options, names)
    report = assemble(
        baseline=baseline,
        results=results,
        parity=parity,
        environment=environment,
        facts=facts,
        bundle=bundle,
        options=options,
    )
    return dataclasses.replace(report, warnings=[*remarks, *report.warnings])


def _parity(result: Result, baseline: Result, bundle: Bundle, clips: list[str]) -> ParityResult:
    """Of a backend that ran."""
    assert result.loaded is not None
    exact = exactness(result.loaded.precision, result.loaded.weights)
    directories = (result.directory, baseline.directory)
    return check_parity(result.label, exact, directories, bundle, clips, counts=result.codes)
