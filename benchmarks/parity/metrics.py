"""How far a backend is from the baseline, and how far it may be."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from wmdeploy.models.ties import CodeCount

IDENTICAL_DB = 120.0  # reported for equal frames: above any PSNR of unequal uint8 frames of 256x256


@dataclass(frozen=True)
class Parity:
    """Errors against the baseline. None does not apply to the stage.

    `max_abs` and `mean_abs` are in the tensor's own unit (levels of 255 for frames). `psnr_db` is
    of the mean squared error over the first h frames imagined, `worst_frame_psnr_db` of the worst
    of them; keys are h. `code_agreement` is the share of equal codes, `codes` what the others are.
    """

    max_abs: float | None = None
    mean_abs: float | None = None
    cosine: float | None = None
    psnr_db: dict[str, float] | None = None
    worst_frame_psnr_db: dict[str, float] | None = None
    code_agreement: float | None = None
    codes: CodeCount | None = None


@dataclass(frozen=True)
class Curve:
    """One backend against the baseline on one clip, frame by frame.

    Where codes tie, frames are those from the baseline's codes, but for `own_db`.

    Attributes:
        clip: the clip's name, as given.
        free_db: PSNR of each imagined frame with the baseline's, from the context on; the first is
            horizon 1.
        forced_db: the same where each frame is predicted from the clip's true frames before it;
            as many as the clip has after the context.
        code_agreement: share of equal codes of the clip's own frames.
        imagined_agreement: share of equal codes when each backend encodes its own imagined frames.
        first_difference: the first horizon at which one of those codes differs; None if none does.
        codes: which of the clip's codes tie, and which are wrong; None in older reports.
        own_db: as `free_db`, from the backend's own codes; empty where no code of any clip ties.
    """

    backend: str
    clip: str
    free_db: list[float]
    forced_db: list[float]
    code_agreement: float
    imagined_agreement: float
    first_difference: int | None
    codes: CodeCount | None = None
    own_db: list[float] = field(default_factory=list)

    @property
    def worst_frame(self) -> int:
        """The horizon (1 is the first) of the imagined frame that is furthest off."""
        return int(np.argmin(self.free_db)) + 1


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


def psnr(mse: float) -> float:
    """10·log10(255² / MSE), at most `IDENTICAL_DB`."""
    if mse == 0:
        return IDENTICAL_DB
    return float(np.minimum(IDENTICAL_DB, 10 * np.log10(255.0**2 / mse)))  # NaN stays NaN


def horizons(context: int, frames: int) -> list[int]:
    """1, 8, S, 2·S and 4·S, as far as there are frames, and the last frame."""
    wanted = (1, 8, context, 2 * context, 4 * context, frames)
    return sorted({h for h in wanted if h <= frames})


def frame_errors(got: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Mean squared error of each frame, (T, H, W, 3) uint8 -> (T,), frame by frame."""
    pairs = zip(got, expected, strict=True)
    return np.array([np.square(a.astype(np.float32) - b).mean() for a, b in pairs], np.float64)


def frame_parity(clips: Sequence[tuple[np.ndarray, np.ndarray]], at: Sequence[int]) -> Parity:
    """Rollouts of the same contexts, one pair (got, expected) for each clip.

    Args:
        clips: (T, H, W, 3) uint8 each, of the same T; the worst frame is the worst of all clips.
        at: horizons.
    """
    mse = np.stack([frame_errors(got, expected) for got, expected in clips])  # (clips, T)
    one = [
        tensor_parity(a, b) for got, expected in clips for a, b in zip(got, expected, strict=True)
    ]
    cosines = [frame.cosine for frame in one if frame.cosine is not None]
    return Parity(
        max(frame.max_abs or 0.0 for frame in one),
        float(np.mean([frame.mean_abs for frame in one])),
        min(cosines, default=None),
        psnr_db={str(h): psnr(float(mse[:, :h].mean())) for h in at},
        worst_frame_psnr_db={str(h): psnr(float(mse[:, :h].max())) for h in at},
    )


def curve(
    backend: str, clip: str, got: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]
) -> Curve:
    """Two workers' records of one clip, see `wmdeploy.benchmarks.worker.rollouts.record`."""
    same = got["imagined_codes"] == expected["imagined_codes"]  # (T, N)
    differs = np.flatnonzero(~same.all(axis=1))
    return Curve(
        backend,
        clip,
        [psnr(float(mse)) for mse in frame_errors(got["free"], expected["free"])],
        [psnr(float(mse)) for mse in frame_errors(got["forced"], expected["forced"])],
        float((got["codes"] == expected["codes"]).mean()),
        float(same.mean()),
        int(differs[0]) + 1 if len(differs) else None,
    )


def tensor_parity(got: np.ndarray, expected: np.ndarray) -> Parity:
    """Two tensors of the same shape."""
    a, b = (x.astype(np.float64).ravel() for x in (got, expected))
    difference = np.abs(a - b)
    norms = float(np.linalg.norm(a) * np.linalg.norm(b))
    return Parity(
        max_abs=float(difference.max()),
        mean_abs=float(difference.mean()),
        cosine=float(a @ b) / norms if norms else None,
    )


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
