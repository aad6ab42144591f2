"""Whether a backend is as close to the baseline as its precision must be: pass or fail, and why."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from wmdeploy.benchmarks.parity.metrics import (
    Recording,
    curve,
    frame_errors,
    horizons,
    rollout_parity,
    tensor_parity,
)
from wmdeploy.benchmarks.parity.worst_frame import picture
from wmdeploy.benchmarks.protocol import CASES_FILE, SAME_CODES, rollout_file
from wmdeploy.benchmarks.report import Curve, Parity
from wmdeploy.benchmarks.stages import GRAPH_STAGES, STAGES, StageName
from wmdeploy.bundle import Bundle
from wmdeploy.codes import CodeCount, add_counts
from wmdeploy.manifest import Precision
from wmdeploy.psnr import psnr

LOOSE_GRAPHS = ("encoder", "decoder")  # their codes and frames have gates of their own


@dataclass(frozen=True)
class Gate:
    """What a precision must reach to pass.

    `code_agreement` is the share of codes that are equal or tie, as `CodeCount.agreement` counts.
    """

    first_frame_db: float
    worst_frame_db: float
    code_agreement: float
    relative_error: float


GATES: dict[Precision, Gate] = {
    "fp32": Gate(60.0, 60.0, 0.999, 1e-3),
    "fp16": Gate(45.0, 38.0, 0.995, 3e-2),
}


@dataclass(frozen=True, kw_only=True)
class ParityResult:
    """How one backend compares with the baseline; empty for the baseline.

    Attributes:
        stages: parity by stage.
        worst_frame: of all clips, a PNG in base64.
        reason: what misses the gate; None: it passes.
        note: what was tied.
    """

    stages: Mapping[StageName, Parity] = field(default_factory=dict)
    curves: Sequence[Curve] = ()
    worst_frame: str = ""
    reason: str | None = None
    note: str | None = None


def check_parity(
    label: str,
    precision: Precision,
    directories: tuple[Path, Path],
    bundle: Bundle,
    clips: Sequence[str],
    *,
    counts: Sequence[CodeCount],
) -> ParityResult:
    """Compare what two workers recorded, and hold it against the gate of a precision.

    The gate looks at codes, and at free-running frames up to 2·S, where the context has left the
    window. Past that a model that amplifies whatever differs drowns in its own rounding, which is
    reported, and no backend's fault. Frames that follow true ones are reported, too: in those, one
    wrong code, as the gate on codes allows, is another picture. Where codes tie, frames are those
    that the backend made from the baseline's codes, and those from its own are reported.

    Args:
        directories: where the backend and the baseline recorded.
        clips: their names, in the order of their numbers; `counts` of their codes likewise.
    """
    own, baseline = directories
    same = own / SAME_CODES if (own / SAME_CODES).exists() else own
    got, expected = _recordings(same, len(clips)), _recordings(baseline, len(clips))
    pairs = [(a["free"], b["free"]) for a, b in zip(got, expected, strict=True)]
    errors = np.stack([frame_errors(*pair) for pair in pairs])  # (clips, T)
    curves = [curve(label, *each) for each in zip(clips, got, expected, strict=True)]
    if same != own:
        curves = _with_own_codes(curves, _recordings(own, len(clips)), expected)
    curves = [dataclasses.replace(c, codes=n) for c, n in zip(curves, counts, strict=True)]
    window, total = bundle.manifest.wiring.context, add_counts(counts)
    rollout = rollout_parity(pairs, errors, horizons(window, errors.shape[1]))
    stages, relative = _graph_parity(same, baseline, bundle)
    stages = _with_rollout(stages, rollout, total, curves)
    clip, frame = np.unravel_index(errors.argmax(), errors.shape)
    gate, note = GATES[precision], _note(total, curves)
    order = np.argsort(-errors.max(1))  # of several clips that miss it, the worst is named
    misses = [_rollout_miss(gate, errors[i, : 2 * window], window, counts[i]) for i in order]
    reasons = [f"{miss}, on {clips[i]}" for miss, i in zip(misses, order, strict=True) if miss]
    reason = next(iter([*reasons, *_graph_misses(gate, relative)]), None)
    return ParityResult(
        stages=stages,
        curves=curves,
        worst_frame=picture(expected[clip]["free"][frame], got[clip]["free"][frame]),
        reason=f"{reason}; {note}" if reason and note else reason,
        note=note,
    )


def _recordings(directory: Path, clips: int) -> list[Recording]:
    recordings: list[Recording] = []
    for number in range(clips):
        with np.load(directory / rollout_file(number)) as file:
            recordings.append(dict(file))
    return recordings


def _with_own_codes(
    curves: Sequence[Curve], own: Sequence[Recording], expected: Sequence[Recording]
) -> list[Curve]:
    """Curves of frames from the baseline's codes, with what comes from the backend's own."""
    alone = [curve(c.backend, c.clip, a, b) for c, a, b in zip(curves, own, expected, strict=True)]
    return [
        dataclasses.replace(c, code_agreement=mine.code_agreement, own_db=mine.free_db)
        for c, mine in zip(curves, alone, strict=True)
    ]


def _graph_parity(
    directory: Path, baseline: Path, bundle: Bundle
) -> tuple[dict[StageName, Parity], dict[StageName, float]]:
    """Parity of each graph alone, and the relative errors that the gate looks at."""
    parity: dict[StageName, Parity] = {}
    relative: dict[StageName, float] = {}
    with np.load(directory / CASES_FILE) as got, np.load(baseline / CASES_FILE) as expected:
        for stage, graph in GRAPH_STAGES.items():
            name = bundle.manifest.graphs[graph].outputs[0].name
            if f"{graph}/{name}" not in got:
                continue  # the backend runs graphs of its own, as the baseline does
            a, b = got[f"{graph}/{name}"], expected[f"{graph}/expected/{name}"]
            parity[stage] = tensor_parity(a, b)
            if graph not in LOOSE_GRAPHS:
                scale = float(np.abs(b).max()) or 1.0
                relative[stage] = (parity[stage].max_abs or 0.0) / scale
    return parity, relative


def _with_rollout(
    stages: Mapping[StageName, Parity], rollout: Parity, total: CodeCount, curves: Sequence[Curve]
) -> dict[StageName, Parity]:
    """The graphs' parity, with the codes at `encode` and the rollout's at each session's stage."""
    agreement = float(np.mean([c.code_agreement for c in curves]))

    def with_codes(parity: Parity) -> Parity:
        return dataclasses.replace(parity, code_agreement=agreement, codes=total)

    sessions = [stage.name for stage in STAGES.values() if stage.session]
    return {
        **stages,
        "encode": with_codes(stages.get("encode", Parity())),
        **dict.fromkeys(sessions, with_codes(rollout)),
    }


def _rollout_miss(gate: Gate, errors: np.ndarray, window: int, codes: CodeCount) -> str | None:
    """The first figure of one clip that misses the gate, in words.

    Args:
        errors: of each frame that the gate looks at, (T,).
    """
    if codes.agreement < gate.code_agreement:
        return f"codes agree {codes.agreement:.2%}, expected {gate.code_agreement:.1%}"
    for horizon in horizons(window, len(errors)):
        worst = psnr(float(errors[:horizon].max()))
        expected = gate.first_frame_db if horizon == 1 else gate.worst_frame_db
        if not worst >= expected:
            return f"worst frame {worst:.1f} dB at horizon {horizon}, expected {expected:.0f} dB"
    return None


def _graph_misses(gate: Gate, relative: Mapping[StageName, float]) -> list[str]:
    """Graphs whose outputs miss the gate, in words."""
    return [
        f"{stage}: relative error {error:.1e}, expected {gate.relative_error:.0e}"
        for stage, error in relative.items()
        if not error <= gate.relative_error
    ]


def _note(codes: CodeCount, curves: Sequence[Curve]) -> str | None:
    """What is to be said of codes that differ; None if none does."""
    if not codes.tied and not codes.wrong:
        return None
    own = min((min(c.own_db) for c in curves if c.own_db), default=None)
    return str(codes) if own is None else f"{codes}; worst frame from its own {own:.1f} dB"
