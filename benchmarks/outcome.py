"""What one backend's process left, judged beside the baseline's: rows of the report, warnings."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.floor import floors
from benchmarks.machine import Ceilings
from benchmarks.parity import GATES, Parity, failure, frame_parity, horizons, tensor_parity
from benchmarks.report import Row, Verdict, timed_row
from benchmarks.timing import percentile
from benchmarks.worker import CASES_FILE, ENGINE_STAGES, ROLLOUT_FILE, Result, Run
from wmdeploy.bundle import Bundle

CLOCK_TOLERANCE = 1.05  # highest over lowest SM clock of one backend's stages


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

    @property
    def gpu_found(self) -> bool:
        return self.result is not None and self.result.gpu_found

    @property
    def gpu_states(self) -> list[dict[str, Any]]:
        """Clocks, temperature, power and throttle reasons right after each stage."""
        runs = self.result.runs if self.result else []
        return [
            {"stage": run.stage, "batch": run.batch, **dataclasses.asdict(run.gpu)}
            for run in runs
            if run.gpu is not None
        ]


def rows_of(
    outcome: Outcome,
    baseline: Outcome,
    bundle: Bundle,
    ceilings: dict[str, Ceilings],
    refill: int | None,
) -> list[Row]:
    """A row for each stage and batch that was timed; without a result, two that say why."""
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
            for stage in ("load", "frame")
        ]
    parity: dict[str, Parity] = {}
    reason = None
    if outcome is not baseline:
        parity, errors = _compare(outcome, baseline, bundle)
        reason = failure(GATES[result.precision], parity["frame"], errors)
    verdict: Verdict = "fail" if reason else "pass"
    machine = ceilings[result.device.split(":")[0]]
    expected = {(run.stage, run.batch): run.samples for run in reference.runs}

    def row(run: Run) -> Row:
        base = expected.get((run.stage, run.batch))
        return timed_row(
            outcome.backend,
            run.stage,
            run.samples,
            batch=run.batch,
            precision=result.precision,
            device=result.device,
            floor_ms=floors(bundle, machine, run.batch, refill).get(run.stage),
            baseline_p50_ms=percentile(base.wall, 50) if base else None,
            memory=result.memory[run.batch],
            parity=parity.get(run.stage) if run.batch == 1 else None,
            verdict=verdict,
            reason=reason,
        )

    return [row(run) for run in result.runs]


def clock_warnings(outcome: Outcome) -> list[str]:
    """Whether a GPU held its clock while a backend was timed; otherwise times do not compare."""
    runs = outcome.result.runs if outcome.result else []
    states = [run.gpu for run in runs if run.gpu is not None]
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
            if f"{graph}/{name}" not in got:
                continue  # the backend runs graphs of its own, as the baseline does
            a, b = got[f"{graph}/{name}"], expected[f"{graph}/expected/{name}"]
            parity[stage] = tensor_parity(a, b)
            if graph in ("prefill", "step"):  # codes and frames have gates of their own
                scale = float(np.abs(b).max()) or 1.0
                errors[stage] = (parity[stage].max_abs or 0.0) / scale
    encode = parity.get("encode", Parity())
    parity["encode"] = dataclasses.replace(encode, code_agreement=agreement)
    return parity, errors
