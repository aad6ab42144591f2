"""What one backend's worker gave, as rows of the report, and the warnings that follow from it."""

import dataclasses
from typing import Any

from wmdeploy.benchmarks.bench.interleave import Run
from wmdeploy.benchmarks.bench.machine import Ceilings
from wmdeploy.benchmarks.bench.options import BenchOptions
from wmdeploy.benchmarks.bench.roofline import Floor, floors, moved_bytes
from wmdeploy.benchmarks.bench.workers import Outcome
from wmdeploy.benchmarks.parity.gate import Judgement, judge
from wmdeploy.benchmarks.protocol import Paced
from wmdeploy.benchmarks.report import Pacing, Row, Verdict
from wmdeploy.benchmarks.stages import NOT_FRAMES
from wmdeploy.benchmarks.stats import Ratio, percentile, ratio
from wmdeploy.bundle import Bundle
from wmdeploy.files import real_path, sha256
from wmdeploy.manifest import MANIFEST_FILE

CLOCK_TOLERANCE = 1.05  # highest over lowest SM clock of one backend's stages


def rows_of(
    outcome: Outcome,
    baseline: Outcome,
    floors: dict[int, dict[str, Floor]],
    judgement: Judgement,
    precision: float,
) -> list[Row]:
    """A row for each stage and batch that was timed.

    Args:
        floors: by batch and stage.
        precision: relative half-width of the speed-up's interval above which a row is noisy.
    """
    expected = {(run.stage, run.batch): run for run in baseline.runs}
    verdict: Verdict = "fail" if judgement.reason else "pass"
    return [
        _row(
            outcome,
            run,
            expected.get((run.stage, run.batch)),
            floors[run.batch].get(run.stage),
            judgement,
            verdict,
            precision,
        )
        for run in outcome.runs
    ]


def rows_without_times(outcome: Outcome) -> list[Row]:
    """Two rows that say why a backend has no others."""
    return [
        Row(outcome.backend, None, None, stage, 1, verdict=outcome.verdict, reason=outcome.reason)
        for stage in ("load", "frame")
    ]


def _row(
    outcome: Outcome,
    run: Run,
    base: Run | None,
    floor: Floor | None,
    judgement: Judgement,
    verdict: Verdict,
    precision: float,
) -> Row:
    """A row with all that follows from its raw samples."""
    assert outcome.loaded is not None
    samples, memory = run.samples, outcome.memory[run.batch]
    p50 = percentile(samples.wall, 50)
    speedup = None if base is None else percentile(base.samples.wall, 50) / p50
    interval: Ratio | None = None
    if base is not None and run.round_ms:
        interval = ratio(base.round_ms, run.round_ms)
        speedup = interval.value
    return Row(
        backend=outcome.backend,
        precision=outcome.loaded.precision,
        device=outcome.loaded.device,
        stage=run.stage,
        batch=run.batch,
        p50_ms=p50,
        p90_ms=percentile(samples.wall, 90),
        p99_ms=percentile(samples.wall, 99),
        frames_per_s=None if run.stage in NOT_FRAMES else run.batch * 1e3 / p50,
        speedup=speedup,
        speedup_low=None if interval is None else interval.low,
        speedup_high=None if interval is None else interval.high,
        floor_ms=None if floor is None else floor.ms,
        of_floor=None if floor is None else floor.ms / p50,
        bound=None if floor is None else floor.bound,
        device_p50_ms=percentile(samples.device, 50) if samples.device else None,
        memory_mb=memory.headline[0],
        memory=memory,
        parity=judgement.parity.get(run.stage) if run.batch == 1 else None,
        verdict=verdict,
        reason=judgement.reason or (judgement.note if run.stage == "frame" else None),
        threads=outcome.loaded.threads,
        warmup=run.warmup,
        noisy=interval is not None and interval.precision > precision,
        samples_ms=samples.wall,
        round_ms=run.round_ms,
        device_samples_ms=samples.device or [],
    )


def noise_warning(rows: list[Row]) -> str | None:
    """One line for one backend, naming the stages whose speed-up is not known as well as asked."""
    noisy = [row for row in rows if row.noisy and row.speedup and row.speedup_high]
    if not noisy:
        return None
    worst = max(
        ((row.speedup_high or 0) - (row.speedup_low or 0)) / 2 / (row.speedup or 1) for row in noisy
    )
    percent = f"{worst:.0%}" if worst >= 0.095 else f"{100 * worst:.2g}%"
    stages = [r.stage if r.batch == 1 else f"{r.stage} (batch {r.batch})" for r in noisy]
    return (
        f"{noisy[0].backend}: the machine was too noisy: speed-up known to "
        f"±{percent} only: {', '.join(stages)}"
    )


def clock_warnings(outcome: Outcome) -> list[str]:
    """Whether a GPU held its clock while a backend was timed; otherwise times do not compare."""
    states = [state for run in outcome.runs for state in run.gpu]
    clocks = [state.sm_clock_mhz for state in states]
    warnings = []
    if clocks and max(clocks) > CLOCK_TOLERANCE * min(clocks):
        warnings.append(
            f"{outcome.backend}: the GPU's clock moved from {min(clocks)} to {max(clocks)} MHz"
        )
    reasons = sorted({reason for state in states for reason in state.throttle_reasons})
    if reasons:
        warnings.append(f"{outcome.backend}: the GPU's clock was held down: {', '.join(reasons)}")
    return warnings


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


def _pacing(backend: str, fps: float, paced: Paced) -> Pacing:
    return Pacing(backend, fps, paced.frames, paced.misses, paced.jitter_ms, paced.latency_ms)


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
