"""How far a backend's tensors, frames and codes are from the baseline's."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from wmdeploy.benchmarks.report import Curve, Parity
from wmdeploy.programs.contract import Programs
from wmdeploy.psnr import psnr

WITHOUT_WINDOW = 8
Recording = Mapping[str, np.ndarray]  # of one clip, see `record` in `worker/rollouts.py`


def judged_window(programs: Programs) -> int:
    """S, in multiples of which rollouts are judged; 8 of a model whose state says all."""
    return programs.context if programs.context > 1 else WITHOUT_WINDOW


def horizons(context: int, frames: int) -> list[int]:
    """1, 8, S, 2·S and 4·S, as far as there are frames, and the last frame."""
    wanted = (1, 8, context, 2 * context, 4 * context, frames)
    return sorted({h for h in wanted if h <= frames})


def frame_errors(got: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Mean squared error of each frame, (T, H, W, 3) uint8 -> (T,), frame by frame."""
    pairs = zip(got, expected, strict=True)
    return np.array([np.square(a.astype(np.float32) - b).mean() for a, b in pairs], np.float64)


def rollout_parity(
    clips: Sequence[tuple[np.ndarray, np.ndarray]], errors: np.ndarray, at: Sequence[int]
) -> Parity:
    """Rollouts of the same contexts.

    Args:
        clips: imagined frames of each clip, got and expected, (T, H, W, 3) uint8 each.
        errors: of each clip and frame, (clips, T), as `frame_errors` gives them; the worst frame
            is the worst of all clips.
        at: horizons.
    """
    frames = [tensor_parity(a, b) for pair in clips for a, b in zip(*pair, strict=True)]
    cosines = [frame.cosine for frame in frames if frame.cosine is not None]
    return Parity(
        max_abs=max(frame.max_abs or 0.0 for frame in frames),
        mean_abs=float(np.mean([frame.mean_abs for frame in frames])),
        cosine=min(cosines, default=None),
        psnr_db={str(h): psnr(float(errors[:, :h].mean())) for h in at},
        worst_frame_psnr_db={str(h): psnr(float(errors[:, :h].max())) for h in at},
    )


def curve(backend: str, clip: str, got: Recording, expected: Recording) -> Curve:
    """Two workers' recordings of one clip."""
    return Curve(
        backend=backend,
        clip=clip,
        free_db=[psnr(float(mse)) for mse in frame_errors(got["free"], expected["free"])],
        forced_db=[psnr(float(mse)) for mse in frame_errors(got["forced"], expected["forced"])],
        code_agreement=_agreement(got, expected, "codes"),
        imagined_agreement=_agreement(got, expected, "imagined_codes"),
        first_difference=first_difference(got, expected, ["imagined_codes"]),
    )


def _agreement(got: Recording, expected: Recording, name: str) -> float | None:
    return float((got[name] == expected[name]).mean()) if name in expected else None


def first_difference(got: Recording, expected: Recording, names: Iterable[str]) -> int | None:
    """The first horizon, from 1 on, at which one of these arrays (T, ...) differs."""
    differs = [
        np.flatnonzero((got[name] != expected[name]).reshape(len(expected[name]), -1).any(1))
        for name in names
        if name in expected
    ]
    return min((int(at[0]) + 1 for at in differs if len(at)), default=None)


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
