"""The report, from what the workers gave: rows, facts, and the warnings that follow from them."""

import dataclasses
from collections.abc import Mapping, Sequence

from wmdeploy.benchmarks.bench.interleave import Run
from wmdeploy.benchmarks.bench.options import BenchOptions, context_for
from wmdeploy.benchmarks.bench.roofline import Floor, floors, moved_bytes
from wmdeploy.benchmarks.bench.workers import Result
from wmdeploy.benchmarks.environment import Environment
from wmdeploy.benchmarks.parity.gate import ParityResult
from wmdeploy.benchmarks.parity.metrics import judged_window
from wmdeploy.benchmarks.report import SCHEMA, BundleFacts, FixedRate, GraphFacts, Report, Row
from wmdeploy.benchmarks.stages import Stage, find_stage, stages_of
from wmdeploy.benchmarks.stats import percentile, ratio
from wmdeploy.bundle import Bundle
from wmdeploy.exporters.quantise import layer_bytes
from wmdeploy.files import real_path, sha256
from wmdeploy.manifest import MANIFEST_FILE, exactness
from wmdeploy.programs.contract import Programs

CLOCK_TOLERANCE = 1.05  # highest over lowest SM clock of one backend's stages


def assemble(
    *,
    baseline: Result,
    results: Mapping[str, Result],
    parity: Mapping[str, ParityResult],
    environment: Environment,
    facts: BundleFacts,
    bundle: Bundle,
    options: BenchOptions,
) -> Report:
    """One report of all results.

    Args:
        results: by label, the baseline's among them.
        parity: by label, of the backends that ran, but the baseline.
    """
    rows: list[Row] = []
    for result in results.values():
        if result.verdict != "pass" or result.loaded is None:
            rows += rows_without_times(result)
            continue
        ceilings = environment.ceilings[result.loaded.device]
        least = {b: floors(bundle.manifest, ceilings, b, options.refill) for b in result.memory}
        given = parity.get(result.label, ParityResult())
        for run in result.runs:
            floor = least[run.batch].get(run.stage)
            row = row_of(
                result,
                run,
                baseline=baseline.runs,
                floor=floor,
                parity=given,
                options=options,
                programs=bundle.manifest.programs,
            )
            rows.append(row)
    order = list(stages_of(bundle.manifest.graphs))
    rows.sort(key=lambda row: order.index(row.stage))  # stable: backends keep their order
    return Report(
        schema=SCHEMA,
        baseline=baseline.label,
        environment=environment,
        bundle=facts,
        rows=rows,
        warnings=_warnings(results, rows),
        curves=[curve for given in parity.values() for curve in given.curves],
        substitutions={
            label: result.substituted.worst_db
            for label, result in results.items()
            if result.substituted and result.substituted.worst_db
        },
        fixed_rate=[
            FixedRate(
                backend=label,
                fps=options.fps,
                frames=result.fixed_rate.frames,
                misses=result.fixed_rate.misses,
                jitter_ms=result.fixed_rate.jitter_ms,
                latency_ms=result.fixed_rate.latency_ms,
            )
            for label, result in results.items()
            if result.fixed_rate and options.fps
        ],
        worst_frames={label: given.worst_frame for label, given in parity.items()},
    )


def rows_without_times(result: Result) -> list[Row]:
    """Two rows that say why a backend has no others."""
    row = Row(
        backend=result.label, stage="load", batch=1, verdict=result.verdict, reason=result.reason
    )
    return [row, dataclasses.replace(row, stage="frame")]


def row_of(
    result: Result,
    run: Run,
    *,
    baseline: Sequence[Run],
    floor: Floor | None,
    parity: ParityResult,
    options: BenchOptions,
    programs: Programs,
) -> Row:
    """A row with all that follows from its raw samples.

    Args:
        baseline: all runs of the baseline.
        programs: the bundle's.
    """
    assert result.loaded is not None
    wall, device, memory = run.samples.wall, run.samples.device, result.memory[run.batch]
    p50, frames = percentile(wall, 50), frames_of(find_stage(run.stage), programs)
    row = Row(
        backend=result.label,
        precision=exactness(result.loaded.precision, result.loaded.weights),
        device=result.loaded.device,
        stage=run.stage,
        batch=run.batch,
        p50_ms=p50,
        p90_ms=percentile(wall, 90),
        p99_ms=percentile(wall, 99),
        frames_per_s=run.batch * frames * 1e3 / p50 if frames else None,
        device_p50_ms=percentile(device, 50) if device else None,
        memory_mb=memory.headline[0],
        memory=memory,
        parity=parity.stages.get(run.stage) if run.batch == 1 else None,
        verdict="fail" if parity.reason else "pass",
        reason=parity.reason or (parity.note if run.stage == "frame" else None),
        threads=result.loaded.threads,
        warmup=run.warmup,
        samples_ms=wall,
        round_ms=run.round_ms,
        device_samples_ms=device or [],
    )
    if floor is not None:
        of_floor = floor.ms / p50
        row = dataclasses.replace(row, floor_ms=floor.ms, of_floor=of_floor, bound=floor.bound)
    same = (r for r in baseline if (r.stage, r.batch) == (run.stage, run.batch))
    base = next(same, None)
    if base is None:
        return row
    if not run.round_ms:
        return dataclasses.replace(row, speedup=percentile(base.samples.wall, 50) / p50)
    speedup = ratio(base.round_ms, run.round_ms)
    return dataclasses.replace(
        row,
        speedup=speedup.value,
        speedup_low=speedup.low,
        speedup_high=speedup.high,
        noisy=speedup.precision > options.effort.precision,
    )


def frames_of(stage: Stage, programs: Programs) -> float:
    """The part of a session's frame that one run of a stage makes or takes; 0: none, as a refresh.

    A graph that is called several times for a frame makes a part of it.
    """
    if stage.graph is None:
        return float(stage.frames)
    for calls in (programs.predict + programs.render, programs.encode):
        runs = sum(call.times for call in calls if call.graph == stage.graph)
        if runs:
            return 1 / runs
    return 0.0


def bundle_facts(bundle: Bundle, options: BenchOptions, clips: list[str]) -> BundleFacts:
    """What the report says of the bundle and of what was asked of it.

    Args:
        clips: their names.
    """
    manifest = bundle.manifest
    return BundleFacts(
        name=real_path(bundle.path).name,
        manifest_sha256=sha256(bundle.path / MANIFEST_FILE),
        recipe=manifest.recipe,
        model=manifest.model,
        context_length=manifest.programs.context,
        graphs={
            name: GraphFacts(
                flops=graph.flops,
                weight_bytes=graph.weight_bytes,
                moved_bytes=moved_bytes(graph, 1),
                other_layout_weight_bytes=manifest.other_layout_weight_bytes.get(name),
            )
            for name, graph in manifest.graphs.items()
        },
        bundle_bytes=sum(record.bytes for record in manifest.files.values()),
        clips=clips,
        context=context_for(options, manifest.programs),
        horizon=options.horizon_for(judged_window(manifest.programs)),
        refill=options.refill,
        other_layout=manifest.other_layout,
        layer_bytes=layer_bytes([bundle.checked_graph(name) for name in manifest.graphs]),
    )


def _warnings(results: Mapping[str, Result], rows: Sequence[Row]) -> list[str]:
    warnings = [warning for result in results.values() for warning in clock_warnings(result)]
    for label, result in results.items():
        if result.substituted is not None and result.substituted.skipped:
            warnings.append(f"{label}: no graph was substituted: it {result.substituted.skipped}")
        noisy = noise_warning([row for row in rows if row.backend == label])
        warnings += [noisy] if noisy else []
    return warnings


def noise_warning(rows: Sequence[Row]) -> str | None:
    """One line for one backend: the stages whose speed-up is less precise than was asked for."""
    noisy = [row for row in rows if row.noisy and row.speedup and row.speedup_high]
    if not noisy:
        return None
    worst = max(
        ((row.speedup_high or 0) - (row.speedup_low or 0)) / 2 / (row.speedup or 1) for row in noisy
    )
    percent = f"{worst:.0%}" if worst >= 0.095 else f"{100 * worst:.2g}%"
    stages = [r.stage if r.batch == 1 else f"{r.stage} (batch {r.batch})" for r in noisy]
    return (
        f"{noisy[0].backend}: the machine was too noisy: the speed-up is precise to ±{percent} "
        f"only: {', '.join(stages)}"
    )


def clock_warnings(result: Result) -> list[str]:
    """Whether a GPU held its clock while a backend was timed; otherwise times do not compare."""
    states = [state for run in result.runs for state in run.gpu]
    clocks = [state.sm_clock_mhz for state in states]
    warnings = []
    if clocks and max(clocks) > CLOCK_TOLERANCE * min(clocks):
        warnings.append(
            f"{result.label}: the GPU's clock moved from {min(clocks)} to {max(clocks)} MHz"
        )
    reasons = sorted({reason for state in states for reason in state.throttle_reasons})
    if reasons:
        warnings.append(f"{result.label}: the GPU's clock was held down: {', '.join(reasons)}")
    return warnings
