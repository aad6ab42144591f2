"""How far a backend is from the baseline, and how far it may be."""

from collections.abc import Mapping, Sequence

import numpy as np

from wmdeploy.benchmarks.report import Curve, Parity

IDENTICAL_DB = 120.0  # reported for equal frames: above any PSNR of unequal uint8 frames of 256x256


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
