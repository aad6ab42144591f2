"""Whether a backend is as close to the baseline as its exactness asks: pass or fail, and why."""

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
    judged_window,
    rollout_parity,
    tensor_parity,
)
from wmdeploy.benchmarks.parity.outputs import compare_outputs, first_draw
from wmdeploy.benchmarks.parity.worst_frame import picture
from wmdeploy.benchmarks.protocol import CASES_FILE, SAME_CODES, full_file, rollout_file
from wmdeploy.benchmarks.report import Curve, OutputParity, Parity
from wmdeploy.benchmarks.stages import COMMON, StageName
from wmdeploy.bundle import Bundle
from wmdeploy.codes import CodeCount, add_counts
from wmdeploy.manifest import Exactness, Manifest
from wmdeploy.programs.contract import Programs
from wmdeploy.psnr import psnr


@dataclass(frozen=True)
class Gate:
    """What a backend must reach to pass.

    `code_agreement` is the share of codes that are equal or tie, as `CodeCount.agreement` counts;
    `variation` the largest mean total variation of logits.
    """

    first_frame_db: float
    worst_frame_db: float
    code_agreement: float
    relative_error: float
    variation: float


GATES: dict[Exactness, Gate] = {
    "fp32": Gate(60.0, 60.0, 0.999, 1e-3, 1e-3),
    "fp16": Gate(45.0, 38.0, 0.995, 3e-2, 1e-3),
    "int8": Gate(45.0, 38.0, 0.995, 5e-2, 1e-2),
}


@dataclass(frozen=True, kw_only=True)
class ParityResult:
    """How one backend compares with the baseline; empty for the baseline.

    Attributes:
        stages: parity by stage.
        worst_frame: of all clips, a PNG in base64.
        reason: what misses the gate; None: it passes.
        note: what was tied; of a model that draws noise, what was judged.
    """

    stages: Mapping[StageName, Parity] = field(default_factory=dict)
    curves: Sequence[Curve] = ()
    worst_frame: str = ""
    reason: str | None = None
    note: str | None = None


def check_parity(
    label: str,
    exactness: Exactness,
    directories: tuple[Path, Path],
    bundle: Bundle,
    clips: Sequence[str],
    *,
    counts: Sequence[CodeCount],
) -> ParityResult:
    """Compare what two workers recorded, and hold it against the gate of an exactness.

    The gate looks at codes, and at free-running frames up to 2·S, where the context has left the
    window. Past that a model that amplifies whatever differs drowns in its own rounding, which is
    reported, and no backend's fault. Frames that follow true ones are reported, too: in those, one
    wrong code, as the gate on codes allows, is another picture. Where codes tie, frames are those
    that the backend made from the baseline's codes, and those from its own are reported.

    Of a model that draws noise the gate looks at frames that follow true ones, and at the logits
    that it draws from: a free rollout goes another way with the first draw that rounding changes.
    Both sides draw the same noise.

    Both sides render with the same decoder. Of a student's frames it is reported, and not judged,
    how far they are from the full decoder's.

    Args:
        directories: where the backend and the baseline recorded.
        clips: their names, in the order of their numbers; `counts` of their codes likewise, none of
            a model without codes.
    """
    own, baseline = directories
    programs = bundle.manifest.programs
    same = own / SAME_CODES if (own / SAME_CODES).exists() else own
    got, expected = _recordings(same, len(clips)), _recordings(baseline, len(clips))
    pairs = [(a["free"], b["free"]) for a, b in zip(got, expected, strict=True)]
    errors = np.stack([frame_errors(*pair) for pair in pairs])  # (clips, T)
    curves = [_curve(label, *each) for each in zip(clips, got, expected, strict=True)]
    if same != own:
        curves = _with_own_codes(curves, _recordings(own, len(clips)), expected)
    if counts:
        curves = [dataclasses.replace(c, codes=n) for c, n in zip(curves, counts, strict=True)]
    window, total = judged_window(programs), add_counts(counts) if counts else None
    full_worst, full_mean = _against_full([recording["free"] for recording in got], baseline)
    rollout = dataclasses.replace(
        rollout_parity(pairs, errors, horizons(window, errors.shape[1])),
        forced_worst_db=min((db for c in curves for db in c.forced_db), default=None),
        outputs=compare_outputs(got, expected),
        full_worst_db=full_worst,
        full_mean_db=full_mean,
    )
    stages, relative = _graph_parity(same, baseline, bundle.manifest)
    stages = _with_rollout(stages, rollout, total, curves, programs.frame_input()[0])
    clip, frame = np.unravel_index(errors.argmax(), errors.shape)
    gate, noise = GATES[exactness], bool(programs.noise)
    notes = [_codes_note(total, curves), _noise_note(rollout, curves) if noise else None]
    note = "; ".join(filter(None, notes)) or None
    order = np.argsort(-errors.max(1))  # of several clips that miss it, the worst is named
    misses = [_clip_miss(gate, curves[i], window, noise) for i in order]
    reasons = [f"{miss}, on {clips[i]}" for miss, i in zip(misses, order, strict=True) if miss]
    if noise:
        reasons += _logits_misses(gate, rollout.outputs)
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


def _against_full(
    frames: Sequence[np.ndarray], baseline: Path
) -> tuple[float, float] | tuple[None, None]:
    """How far frames (T, H, W, 3) of each clip are from the full decoder's, in dB of PSNR.

    Returns:
        Of the worst frame, and of the mean squared error of all; None where the full decoder made
        them.
    """
    if not (baseline / full_file(0)).exists():
        return None, None
    errors = []
    for number, made in enumerate(frames):
        with np.load(baseline / full_file(number)) as file:
            errors.append(frame_errors(made, file["free"]))
    each = np.concatenate(errors)
    return psnr(float(each.max())), psnr(float(each.mean()))


def _curve(label: str, clip: str, got: Recording, expected: Recording) -> Curve:
    return dataclasses.replace(
        curve(label, clip, got, expected),
        outputs=compare_outputs([got], [expected]),
        first_draw=first_draw(got, expected),
    )


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
    directory: Path, baseline: Path, manifest: Manifest
) -> tuple[dict[StageName, Parity], dict[StageName, float]]:
    """Parity of each graph alone, and the relative errors that the gate looks at.

    It is that of a graph's first output of floats, or of its first where none is of floats.
    """
    parity: dict[StageName, Parity] = {}
    relative: dict[StageName, float] = {}
    loose = _loose_graphs(manifest.programs)
    with np.load(directory / CASES_FILE) as got, np.load(baseline / CASES_FILE) as expected:
        for graph, record in manifest.graphs.items():
            floats = [spec for spec in record.outputs if spec.dtype.startswith("float")]
            name = (*floats, *record.outputs)[0].name
            if f"{graph}/{name}" not in got:
                continue  # the backend runs graphs of its own, as the baseline does
            a, b = got[f"{graph}/{name}"], expected[f"{graph}/expected/{name}"]
            parity[graph] = tensor_parity(a, b)
            if graph not in loose:
                scale = float(np.abs(b).max()) or 1.0
                relative[graph] = (parity[graph].max_abs or 0.0) / scale
    return parity, relative


def _loose_graphs(programs: Programs) -> set[str]:
    """Those that are judged by what comes of them: codes, frames, what noise decides."""
    return {
        call.graph
        for _, call in programs.calls()
        if {"out.codes", "frame"} & call.gives.keys()
        or any(source.startswith("noise.") for source in call.feeds.values())
    }


def _with_rollout(
    stages: Mapping[StageName, Parity],
    rollout: Parity,
    total: CodeCount | None,
    curves: Sequence[Curve],
    encoder: StageName,
) -> dict[StageName, Parity]:
    """The graphs' parity, and the rollout's at each session's stage; at both ends the codes.

    Args:
        encoder: the stage of the graph that takes frames.
    """
    sessions = [stage.name for stage in COMMON.values() if stage.session]
    if total is None:
        return {**stages, **dict.fromkeys(sessions, rollout)}
    agreement = float(np.mean([c.code_agreement for c in curves]))

    def with_codes(parity: Parity) -> Parity:
        return dataclasses.replace(parity, code_agreement=agreement, codes=total)

    return {
        **stages,
        encoder: with_codes(stages.get(encoder, Parity())),
        **dict.fromkeys(sessions, with_codes(rollout)),
    }


def _clip_miss(gate: Gate, curve: Curve, window: int, noise: bool) -> str | None:
    """The first figure of one clip that misses the gate, in words.

    Args:
        noise: whether the model draws any.
    """
    codes = curve.codes
    if codes is not None and codes.agreement < gate.code_agreement:
        return f"codes agree {codes.agreement:.2%}, expected {gate.code_agreement:.1%}"
    frames = curve.forced_db if noise else curve.free_db[: 2 * window]
    if not frames:
        return "no true frames after the context to judge by; give a longer clip"
    for horizon in horizons(window, len(frames)):
        worst = min(frames[:horizon])
        expected = gate.first_frame_db if horizon == 1 else gate.worst_frame_db
        if not worst >= expected:
            kind = f"forced frame of {horizon}:" if noise else "frame"
            at = "" if noise else f" at horizon {horizon}"
            return f"worst {kind} {worst:.1f} dB{at}, expected {expected:.0f} dB"
    return None


def _logits_misses(gate: Gate, outputs: Mapping[str, OutputParity]) -> list[str]:
    """Logits that miss the gate, in words."""
    return [
        f"{name}: mean total variation {output.variation:.1e}, expected {gate.variation:.0e}"
        for name, output in outputs.items()
        if output.variation is not None and not output.variation <= gate.variation
    ]


def _graph_misses(gate: Gate, relative: Mapping[StageName, float]) -> list[str]:
    """Graphs whose outputs miss the gate, in words."""
    return [
        f"{stage}: relative error {error:.1e}, expected {gate.relative_error:.0e}"
        for stage, error in relative.items()
        if not error <= gate.relative_error
    ]


def _codes_note(codes: CodeCount | None, curves: Sequence[Curve]) -> str | None:
    """What is to be said of codes that differ; None if none does."""
    if codes is None or not codes.tied and not codes.wrong:
        return None
    own = min((min(c.own_db) for c in curves if c.own_db), default=None)
    return str(codes) if own is None else f"{codes}; worst frame from its own {own:.1f} dB"


def _noise_note(rollout: Parity, curves: Sequence[Curve]) -> str:
    """What a model that draws noise was judged by, and how far its free frames go the same way."""
    found = [o.variation for o in rollout.outputs.values() if o.variation is not None]
    logits = f" and logits (mean total variation {max(found):.1e})" if found else ""
    forced = f"{rollout.forced_worst_db:.1f} dB" if rollout.forced_worst_db is not None else "none"
    draws = min((c.first_draw for c in curves if c.first_draw is not None), default=None)
    free = "draw the same" if draws is None else f"draw another value at horizon {draws}"
    return f"draws noise: judged by forced frames (worst {forced}){logits}; free frames {free}"
