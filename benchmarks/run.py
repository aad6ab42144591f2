"""`wmdeploy bench`: every backend in its own process, the baseline first, one report at the end."""

import dataclasses
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from benchmarks.machine import Ceilings, environment
from benchmarks.outcome import Outcome, clock_warnings, rows_of
from benchmarks.report import SCHEMA, STAGES, Report
from benchmarks.timing import Effort
from benchmarks.worker import (
    EXPECTED_ERROR,
    RESULT_FILE,
    Job,
    Result,
)
from engines.base import BACKENDS, BASELINE, GPU_ONLY, Settings
from wmdeploy.bundle import Bundle
from wmdeploy.clips.read import count_frames, read_clip
from wmdeploy.errors import BackendError, ClipError
from wmdeploy.files import sha256
from wmdeploy.manifest import MANIFEST_FILE

LONGEST_HORIZON = 4096
LARGEST_BATCH = 1024
Progress = Callable[[str, str], None]  # backend, what it is doing


@dataclass(frozen=True)
class BenchOptions:
    """What to compare; `horizon` of None is 2·S. `refill` as in `Session`, the baseline too.

    Besides batch 1, whole frames and steps are timed for each of `batches` that a backend takes.
    """

    bundle: Path
    clip: Path
    backends: tuple[str, ...] = tuple(BACKENDS)
    context: int = 8
    horizon: int | None = None
    refill: int | None = None
    batches: tuple[int, ...] = (1,)
    settings: Settings = Settings()
    effort: Effort = dataclasses.field(default_factory=Effort)


def bench(options: BenchOptions, progress: Progress = lambda backend, stage: None) -> Report:
    """Run every backend and compare it with the baseline.

    Raises:
        BackendError: an unknown backend, an option out of range, or the baseline cannot run.
        BundleError, ClipError: the bundle or the clip cannot be used.
    """
    unknown = [name for name in options.backends if name not in BACKENDS]
    if unknown:
        raise BackendError(f"backend: got {unknown[0]!r}, expected one of {', '.join(BACKENDS)}")
    bundle = Bundle.open(options.bundle)
    bundle.verify()
    described = environment()  # now: later the load average would be our own
    context = bundle.manifest.wiring.context
    seconds, refill = options.effort.seconds, options.refill
    if not 0 <= seconds < float("inf") or not (refill is None or 1 <= refill < context):
        raise BackendError(
            f"bench: got {seconds} seconds and refill {refill}, expected finite seconds of 0 or "
            f"more and a refill of 1 to {context - 1}"
        )
    horizon = 2 * context if options.horizon is None else options.horizon
    if not 1 <= options.context <= context or not 1 <= horizon <= LONGEST_HORIZON:
        raise BackendError(
            f"bench: got context {options.context} and horizon {horizon}, expected a context of "
            f"1 to {context} and a horizon of 1 to {LONGEST_HORIZON}"
        )
    if not all(1 <= batch <= LARGEST_BATCH for batch in options.batches):
        told = ", ".join(map(str, options.batches))
        raise BackendError(f"--batch: got {told}, expected numbers of 1 to {LARGEST_BATCH}")
    with tempfile.TemporaryDirectory(prefix="wmdeploy-bench-") as scratch:
        clip = _clip_file(options, bundle, horizon, Path(scratch))
        outcomes: list[Outcome] = []
        for name in dict.fromkeys((BASELINE, *options.backends)):  # the baseline first
            if outcomes and name in GPU_ONLY and not outcomes[0].gpu_found:
                reason = "needs an NVIDIA GPU, and torch finds none here"
                outcomes.append(Outcome(name, Path(scratch), None, reason, "skipped"))
                continue
            cases = outcomes[0].directory if outcomes else None
            directory = Path(scratch) / name
            directory.mkdir()
            job = Job(
                options.bundle.resolve(), name, options.settings, clip, options.context, horizon,
                options.refill, options.batches, options.effort, directory, cases,
            )  # fmt: skip
            outcomes.append(_run_worker(job, progress))
            if outcomes[0].result is None:
                raise BackendError(f"the baseline cannot run: {outcomes[0].reason}")
        devices = {o.result.device.split(":")[0] for o in outcomes if o.result is not None}
        ceilings = {}
        for device in sorted(devices):
            progress(device, "bandwidth and matrix rate")
            ceilings[device] = _ceilings(device, options.settings.tf32)
        rows = [
            row
            for outcome in outcomes
            for row in rows_of(outcome, outcomes[0], bundle, ceilings, options.refill)
        ]
        warnings = [warning for outcome in outcomes for warning in clock_warnings(outcome)]
    described |= {"ceilings": {name: dataclasses.asdict(c) for name, c in ceilings.items()}}
    described |= {"settings": dataclasses.asdict(options.settings)}
    described |= {"gpu_states": {o.backend: states for o in outcomes if (states := o.gpu_states)}}
    about = _describe_bundle(bundle) | {
        "clip": options.clip.name,
        "context": options.context,
        "horizon": horizon,
        "refill": options.refill,
    }
    rows.sort(key=lambda row: STAGES.index(row.stage))  # stable: backends keep their order
    return Report(SCHEMA, described, about, rows, warnings)


def _clip_file(options: BenchOptions, bundle: Bundle, horizon: int, scratch: Path) -> Path:
    """The frames that the workers need, decoded and resized once."""
    size = int(bundle.manifest.graphs["encoder"].inputs[0].shape[1])
    have = count_frames(options.clip)
    if have < options.context:
        raise ClipError(
            f"{options.clip}: has {have} frames, expected at least the context, {options.context}"
        )
    clip = read_clip(options.clip, size=size, count=min(have, options.context + horizon))
    arrays = {"frames": clip.frames}
    if bundle.manifest.wiring.window_actions:
        if clip.actions is None:
            raise ClipError(f"{options.clip}: has no actions, and the model is conditioned on them")
        known = bundle.manifest.wiring.num_actions
        if clip.actions.max() >= known:
            raise ClipError(
                f"{options.clip}: has actions up to {clip.actions.max()}, the model knows {known}; "
                "give a clip of the model's game with --clip"
            )
        arrays["actions"] = clip.actions
    path = scratch / "clip.npz"
    np.savez(path, allow_pickle=False, **arrays)
    return path


def _ceilings(device: str, tf32: bool) -> Ceilings:
    code = (
        "import msgspec, sys; from benchmarks.machine import measure_ceilings; "
        f"sys.stdout.buffer.write(msgspec.json.encode(measure_ceilings({device!r}, {tf32})))"
    )
    output = subprocess.run(
        [sys.executable, "-P", "-c", code], check=True, stdout=subprocess.PIPE
    ).stdout
    return msgspec.json.decode(output, type=Ceilings)


def _run_worker(job: Job, progress: Progress) -> Outcome:
    progress(job.backend, "load")
    job_file = job.directory / "job.json"
    job_file.write_bytes(msgspec.json.encode(job, enc_hook=str))
    log = job.directory / "stderr.txt"
    with log.open("w") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "benchmarks.worker", str(job_file)],
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
        assert process.stdout is not None
        try:
            for line in process.stdout:
                if line.startswith("stage "):
                    progress(job.backend, line.removeprefix("stage ").strip())
            code = process.wait()
        finally:
            process.kill()
    if code == 0:
        result = msgspec.json.decode((job.directory / RESULT_FILE).read_bytes(), type=Result)
        return Outcome(job.backend, job.directory, result)
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    last = lines[-1] if lines else "no message"
    if last.startswith(EXPECTED_ERROR):
        reason = last.removeprefix(EXPECTED_ERROR)
        return Outcome(job.backend, job.directory, None, reason, "skipped")
    died = f"killed by signal {-code}, perhaps out of memory: " if code < 0 else ""
    return Outcome(job.backend, job.directory, None, died + last, "fail")


def _describe_bundle(bundle: Bundle) -> dict[str, Any]:
    manifest = bundle.manifest
    return {
        "name": bundle.path.resolve().name,
        "manifest_sha256": sha256(bundle.path / MANIFEST_FILE),
        "recipe": dataclasses.asdict(manifest.recipe),
        "model": manifest.model,
        "context_length": manifest.wiring.context,
        "graph_flops": {name: graph.flops for name, graph in manifest.graphs.items()},
        "graph_weight_bytes": {name: g.weight_bytes for name, g in manifest.graphs.items()},
        "bundle_bytes": sum(record.bytes for record in manifest.files.values()),
    }
