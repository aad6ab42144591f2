"""How far a backend is from the baseline, and how far it may be."""

from dataclasses import dataclass

import numpy as np

IDENTICAL_DB = 120.0  # reported for equal frames: above any PSNR of unequal uint8 frames of 256x256


@dataclass(frozen=True)
class Parity:
    """Errors against the baseline. None does not apply to the stage.

    `max_abs` and `mean_abs` are in the tensor's own unit (levels of 255 for frames). `psnr_db` is
    of the mean squared error over the first h frames imagined, `worst_frame_psnr_db` of the worst
    of them; keys are h. `code_agreement` is the share of equal codes.
    """

    max_abs: float | None = None
    mean_abs: float | None = None
    cosine: float | None = None
    psnr_db: dict[str, float] | None = None
    worst_frame_psnr_db: dict[str, float] | None = None
    code_agreement: float | None = None


@dataclass(frozen=True)
class Gate:
    """What a precision must reach to pass."""

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
    """1, 8, S and 2·S, as far as there are frames, and the last frame."""
    return sorted({h for h in (1, 8, context, 2 * context, frames) if h <= frames})


def frame_parity(got: np.ndarray, expected: np.ndarray, at: list[int]) -> Parity:
    """Two rollouts of the same context, (T, H, W, 3) uint8 each."""
    errors = tensor_parity(got, expected)
    difference = got.astype(np.float32) - expected.astype(np.float32)
    mse = np.square(difference).mean(axis=(1, 2, 3))  # (T,)
    return Parity(
        errors.max_abs,
        errors.mean_abs,
        errors.cosine,
        psnr_db={str(h): psnr(float(mse[:h].mean())) for h in at},
        worst_frame_psnr_db={str(h): psnr(float(mse[:h].max())) for h in at},
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
    if rollout.code_agreement is not None and rollout.code_agreement < gate.code_agreement:
        return f"codes agree {rollout.code_agreement:.2%}, expected {gate.code_agreement:.1%}"
    for horizon, value in worst.items():
        needed = gate.first_frame_db if horizon == "1" else gate.worst_frame_db
        if not value >= needed:
            return f"worst frame {value:.1f} dB at horizon {horizon}, expected {needed:.0f} dB"
    for stage, error in stages.items():
        if not error <= gate.relative_error:
            return f"{stage}: relative error {error:.1e}, expected {gate.relative_error:.0e}"
    return None
