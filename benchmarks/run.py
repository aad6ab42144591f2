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
from benchmarks.parity import (
    GATES,
    Parity,
    failure,
    frame_parity,
    horizons,
    tensor_parity,
)
from benchmarks.report import SCHEMA, STAGES, Report, Row, Verdict, timed_row
from benchmarks.timing import Effort, percentile
from benchmarks.worker import (
    CASES_FILE,
    ENGINE_STAGES,
    EXPECTED_ERROR,
    RESULT_FILE,
    ROLLOUT_FILE,
    Job,
    Result,
)
from engines.base import BACKENDS, BASELINE
from wmdeploy.bundle import Bundle
from wmdeploy.clips.read import count_frames, read_clip
from wmdeploy.errors import BackendError, ClipError
from wmdeploy.files import sha256
from wmdeploy.manifest import MANIFEST_FILE, GraphRecord

LONGEST_HORIZON = 4096
Progress = Callable[[str, str], None]  # backend, what it is doing


@dataclass(frozen=True)
class BenchOptions:
    """What to compare; `horizon` of None is 2·S. `refill` as in `Session`, the baseline too."""

    bundle: Path
    clip: Path
    backends: tuple[str, ...] = tuple(BACKENDS)
    context: int = 8
    horizon: int | None = None
    refill: int | None = None
    effort: Effort = dataclasses.field(default_factory=Effort)


@dataclass(frozen=True)
class Outcome:
    """What one backend's process left: its result, or why there is none.

    A backend that says what it lacks is skipped; one that breaks has failed.
    """

    backend: str
    directory: Path
    result: Result | None
    reason: str | None = None
    verdict: Verdict = "pass"


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
    with tempfile.TemporaryDirectory(prefix="wmdeploy-bench-") as scratch:
        clip = _clip_file(options, bundle, horizon, Path(scratch))
        progress("machine", "bandwidth and matrix rate")
        ceilings = _ceilings()
        outcomes: list[Outcome] = []
        for name in dict.fromkeys((BASELINE, *options.backends)):  # the baseline first
            cases = outcomes[0].directory if outcomes else None
            directory = Path(scratch) / name
            directory.mkdir()
            job = Job(
                options.bundle.resolve(), name, clip, options.context, horizon, options.refill,
                options.effort, directory, cases,
            )  # fmt: skip
            outcomes.append(_run_worker(job, progress))
            if outcomes[0].result is None:
                raise BackendError(f"the baseline cannot run: {outcomes[0].reason}")
        floors = _floors(bundle, ceilings, options.refill)
        rows = [row for outcome in outcomes for row in _rows(outcome, outcomes[0], bundle, floors)]
    described |= {"ceilings": dataclasses.asdict(ceilings)}
    about = _describe_bundle(bundle) | {
        "clip": options.clip.name,
        "context": options.context,
        "horizon": horizon,
        "refill": options.refill,
    }
    rows.sort(key=lambda row: STAGES.index(row.stage))  # stable: backends keep their order
    return Report(SCHEMA, described, about, rows)


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


def _ceilings() -> Ceilings:
    code = (
        "import msgspec, sys; from benchmarks.machine import measure_ceilings; "
        "sys.stdout.buffer.write(msgspec.json.encode(measure_ceilings()))"
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


def _rows(
    outcome: Outcome, baseline: Outcome, bundle: Bundle, floors: dict[str, float | None]
) -> list[Row]:
    result, reference = outcome.result, baseline.result
    if result is None or reference is None:
        return [
            Row(
                outcome.backend,
                None,
                None,
                stage,
                1,
                verdict=outcome.verdict,
                reason=outcome.reason,
            )
            for stage in STAGES
        ]
    parity: dict[str, Parity] = {}
    reason = None
    if outcome is not baseline:
        parity, errors = _compare(outcome, baseline, bundle)
        reason = failure(GATES[result.precision], parity["frame"], errors)
    verdict: Verdict = "fail" if reason else "pass"
    return [
        timed_row(
            outcome.backend,
            stage,
            result.samples_ms[stage],
            precision=result.precision,
            device=result.device,
            floor_ms=floors.get(stage),
            baseline_p50_ms=percentile(reference.samples_ms[stage], 50),
            memory_mb=result.memory_mb,
            parity=parity.get(stage),
            verdict=verdict,
            reason=reason,
        )
        for stage in STAGES
    ]


def _compare(
    outcome: Outcome, baseline: Outcome, bundle: Bundle
) -> tuple[dict[str, Parity], dict[str, float]]:
    """Parity of each stage, and the relative errors that the gate looks at."""
    parity: dict[str, Parity] = {}
    errors: dict[str, float] = {}
    with (
        np.load(outcome.directory / ROLLOUT_FILE) as got,
        np.load(baseline.directory / ROLLOUT_FILE) as expected,
    ):
        at = horizons(bundle.manifest.wiring.context, len(expected["frames"]))
        agreement = float((got["codes"] == expected["codes"]).mean())
        frames = frame_parity(got["frames"], expected["frames"], at)
        parity["frame"] = dataclasses.replace(frames, code_agreement=agreement)
    parity["imagine"] = parity["slide"] = parity["frame"]  # the same rollout, frame by frame
    with (
        np.load(outcome.directory / CASES_FILE) as got,
        np.load(baseline.directory / CASES_FILE) as expected,
    ):
        for stage, graph in ENGINE_STAGES.items():
            name = bundle.manifest.graphs[graph].outputs[0].name
            a, b = got[f"{graph}/{name}"], expected[f"{graph}/expected/{name}"]
            parity[stage] = tensor_parity(a, b)
            if graph in ("prefill", "step"):  # codes and frames have gates of their own
                scale = float(np.abs(b).max()) or 1.0
                errors[stage] = (parity[stage].max_abs or 0.0) / scale
    parity["encode"] = dataclasses.replace(parity["encode"], code_agreement=agreement)
    return parity, errors


def _floors(bundle: Bundle, ceilings: Ceilings, refill: int | None) -> dict[str, float | None]:
    """The least ms of each stage at batch 1 for the bundle's graphs, whatever runs them."""
    graphs = bundle.manifest.graphs

    def floor(graph: GraphRecord) -> float:
        moved = graph.weight_bytes + sum(t.bytes(1) for t in (*graph.inputs, *graph.outputs))
        by_bytes = moved / (ceilings.bandwidth_gb_s * 1e9)
        by_operations = graph.flops / (ceilings.gemm_gflop_s * 1e9)
        return 1e3 * max(by_bytes, by_operations)

    floors: dict[str, float | None] = {
        stage: floor(graphs[graph]) for stage, graph in ENGINE_STAGES.items()
    }
    floors["imagine"] = floors["step"]
    floors["slide"] = floors["step"] if refill else floors["prefill"]
    floors["frame"] = (floors["slide"] or 0.0) + (floors["decode"] or 0.0)
    return floors


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
