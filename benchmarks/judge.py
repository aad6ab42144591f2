"""What one backend's worker recorded, beside the baseline's: parity, curves, and the gate."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks.floor import ENGINE_STAGES
from benchmarks.parity import (
    GATES,
    Curve,
    Parity,
    curve,
    failure,
    frame_parity,
    horizons,
    tensor_parity,
)
from benchmarks.protocol import CASES_FILE, rollout_file
from benchmarks.strips import strip
from wmdeploy.bundle import Bundle
from wmdeploy.manifest import Precision


@dataclass(frozen=True)
class Judgement:
    """Parity by stage, curves by clip, the worst frame's strip, and what misses the gate, if any.

    Empty for the baseline.
    """

    parity: dict[str, Parity] = field(default_factory=dict)
    curves: list[Curve] = field(default_factory=list)
    strip: str = ""
    reason: str | None = None


def judge(
    backend: str,
    precision: Precision,
    directory: Path,
    baseline: Path,
    bundle: Bundle,
    clips: Sequence[str],
) -> Judgement:
    """Compare what two workers left in their directories.

    The gate looks at codes, and at free-running frames up to 2·S, where the context has left the
    window. Past that a model that amplifies whatever differs drowns in its own rounding, which is
    told, and no backend's fault. Frames that follow true ones are told, too: in those, one code
    that ties, as the gate on codes allows, is another picture.

    Args:
        precision: which gate the backend must pass.
        clips: their names, in the order of their numbers.
    """
    parity, errors = _stages(directory, baseline, bundle)
    pairs: list[tuple[np.ndarray, np.ndarray]] = []
    curves: list[Curve] = []
    for number, clip in enumerate(clips):
        with (
            np.load(directory / rollout_file(number)) as got,
            np.load(baseline / rollout_file(number)) as expected,
        ):
            curves.append(curve(backend, clip, got, expected))
            pairs.append((got["free"], expected["free"]))
    context = bundle.manifest.wiring.context
    at = horizons(context, len(pairs[0][0]))
    gated = [horizon for horizon in at if horizon <= 2 * context]
    codes = float(np.mean([found.code_agreement for found in curves]))
    frame = dataclasses.replace(frame_parity(pairs, at), code_agreement=codes)
    parity |= {stage: frame for stage in ("frame", "imagine", "slide")}  # the same rollouts
    encode = parity.get("encode", Parity())
    parity["encode"] = dataclasses.replace(encode, code_agreement=codes)
    # the clip that is furthest off comes first: it is the one to be told of
    ordered = sorted(zip(curves, pairs, strict=True), key=lambda both: min(both[0].free_db))
    (worst, (got_frames, expected_frames)), *_ = ordered
    at_worst = worst.worst_frame - 1
    shown = strip(expected_frames[at_worst], got_frames[at_worst])
    reason = failure(GATES[precision], Parity(), errors)
    for found, pair in reversed(ordered):
        one = dataclasses.replace(frame_parity([pair], gated), code_agreement=found.code_agreement)
        missed = failure(GATES[precision], one, {})
        reason = f"{missed}, on {found.clip}" if missed else reason
    return Judgement(parity, curves, shown, reason)


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
