"""What one backend's worker recorded, beside the baseline's: parity, curves, and the gate."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from wmdeploy.benchmarks.parity.metrics import curve, frame_parity, horizons, tensor_parity
from wmdeploy.benchmarks.parity.worst_frame import strip
from wmdeploy.benchmarks.protocol import CASES_FILE, SAME_CODES, rollout_file
from wmdeploy.benchmarks.report import Curve, Parity
from wmdeploy.benchmarks.stages import ENGINE_STAGES
from wmdeploy.bundle import Bundle
from wmdeploy.manifest import Precision
from wmdeploy.models.ties import CodeCount, add_counts


@dataclass(frozen=True)
class Judgement:
    """Parity by stage, curves by clip, the worst frame's strip, and what misses the gate, if any.

    `note` says what was tied, where the gate is passed. Empty for the baseline.
    """

    parity: dict[str, Parity] = field(default_factory=dict)
    curves: list[Curve] = field(default_factory=list)
    strip: str = ""
    reason: str | None = None
    note: str | None = None


def judge(
    backend: str,
    precision: Precision,
    directory: Path,
    baseline: Path,
    bundle: Bundle,
    clips: Sequence[str],
    counts: Sequence[CodeCount],
) -> Judgement:
    """Compare what two workers left in their directories.

    The gate looks at codes, and at free-running frames up to 2·S, where the context has left the
    window. Past that a model that amplifies whatever differs drowns in its own rounding, which is
    told, and no backend's fault. Frames that follow true ones are told, too: in those, one code
    that is wrong, as the gate on codes allows, is another picture. Where codes tie, frames are
    those that the backend made from the baseline's codes, and those from its own are told.

    Args:
        precision: which gate the backend must pass.
        clips: their names, in the order of their numbers.
        counts: of their codes, in that order.
    """
    same = directory / SAME_CODES if (directory / SAME_CODES).exists() else directory
    parity, errors = _stages(same, baseline, bundle)
    pairs: list[tuple[np.ndarray, np.ndarray]] = []
    curves: list[Curve] = []
    for number, (clip, count) in enumerate(zip(clips, counts, strict=True)):
        with (
            np.load(same / rollout_file(number)) as got,
            np.load(directory / rollout_file(number)) as own,
            np.load(baseline / rollout_file(number)) as expected,
        ):
            alone = curve(backend, clip, own, expected)
            found = curve(backend, clip, got, expected)
            found = dataclasses.replace(found, code_agreement=alone.code_agreement, codes=count)
            if same != directory:
                found = dataclasses.replace(found, own_db=alone.free_db)
            curves.append(found)
            pairs.append((got["free"], expected["free"]))
    context = bundle.manifest.wiring.context
    at = horizons(context, len(pairs[0][0]))
    gated = [horizon for horizon in at if horizon <= 2 * context]
    codes = float(np.mean([found.code_agreement for found in curves]))
    total = add_counts(counts)
    frame = dataclasses.replace(frame_parity(pairs, at), code_agreement=codes, codes=total)
    parity |= {stage: frame for stage in ("frame", "imagine", "slide")}  # the same rollouts
    encode = parity.get("encode", Parity())
    parity["encode"] = dataclasses.replace(encode, code_agreement=codes, codes=total)
    # the clip that is furthest off comes first: it is the one to be told of
    ordered = sorted(zip(curves, pairs, strict=True), key=lambda both: min(both[0].free_db))
    (worst, (got_frames, expected_frames)), *_ = ordered
    at_worst = worst.worst_frame - 1
    shown = strip(expected_frames[at_worst], got_frames[at_worst])
    reason = failure(GATES[precision], Parity(), errors)
    for found, pair in reversed(ordered):
        one = dataclasses.replace(
            frame_parity([pair], gated), code_agreement=found.code_agreement, codes=found.codes
        )
        missed = failure(GATES[precision], one, {})
        reason = f"{missed}, on {found.clip}" if missed else reason
    note = _note(total, curves)
    reason = f"{reason}; {note}" if reason and note else reason
    return Judgement(parity, curves, shown, reason, note)


def _note(codes: CodeCount, curves: Sequence[Curve]) -> str | None:
    """What is to be told of codes that differ; None if none does."""
    if not codes.tied and not codes.wrong:
        return None
    own = min((min(found.own_db) for found in curves if found.own_db), default=None)
    return str(codes) if own is None else f"{codes}; worst frame from its own {own:.1f} dB"


def _stages(
    directory: Path, baseline: Path, bundle: Bundle
) -> tuple[dict[str, Parity], dict[str, float]]:
    """Parity of each graph alone, and the relative errors that the gate looks at."""
    parity: dict[str, Parity] = {}
    errors: dict[str, float] = {}
    with np.load(directory / CASES_FILE) as got, np.load(baseline / CASES_FILE) as expected:
        for stage, graph in ENGINE_STAGES.items():
            name = bundle.manifest.graphs[graph].outputs[0].name
            if f"{graph}/{name}" not in got:
                continue  # the backend runs graphs of its own, as the baseline does
            a, b = got[f"{graph}/{name}"], expected[f"{graph}/expected/{name}"]
            parity[stage] = tensor_parity(a, b)
            if graph in ("prefill", "step"):  # codes and frames have gates of their own
                scale = float(np.abs(b).max()) or 1.0
                errors[stage] = (parity[stage].max_abs or 0.0) / scale
    return parity, errors


@dataclass(frozen=True)
class Gate:
    """What a precision must reach to pass.

    `code_agreement` is the share of codes that are equal or tie, as `CodeCount.agreement` counts.
    """

    first_frame_db: float
    worst_frame_db: float
    code_agreement: float
    relative_error: float


GATES = {
    "fp32": Gate(60.0, 60.0, 0.999, 1e-3),
    "fp16": Gate(45.0, 38.0, 0.995, 3e-2),
}


def failure(gate: Gate, rollout: Parity, stages: dict[str, float]) -> str | None:
    """The first figure that misses the gate, in words; None if all pass.

    Args:
        stages: relative error (max_abs over the largest expected value) of each stage's output.
    """
    worst = rollout.worst_frame_psnr_db or {}
    agreement = rollout.code_agreement if rollout.codes is None else rollout.codes.agreement
    if agreement is not None and agreement < gate.code_agreement:
        return f"codes agree {agreement:.2%}, expected {gate.code_agreement:.1%}"
    for horizon, value in worst.items():
        needed = gate.first_frame_db if horizon == "1" else gate.worst_frame_db
        if not value >= needed:
            return f"worst frame {value:.1f} dB at horizon {horizon}, expected {needed:.0f} dB"
    for stage, error in stages.items():
        if not error <= gate.relative_error:
            return f"{stage}: relative error {error:.1e}, expected {gate.relative_error:.0e}"
    return None
