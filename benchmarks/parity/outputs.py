"""Named outputs of two backends: logits, rewards, ends, and what was drawn."""

from collections.abc import Sequence

import numpy as np

from wmdeploy.benchmarks.parity.metrics import Recording, first_difference
from wmdeploy.benchmarks.report import OutputParity

FREE, FORCED = "free/", "forced/"  # what their names begin with in a recording


def compare_outputs(
    got: Sequence[Recording], expected: Sequence[Recording]
) -> dict[str, OutputParity]:
    """What follows true frames, of all clips together, by name."""
    names = [name for name in expected[0] if name.startswith(FORCED)]
    return {
        name.removeprefix(FORCED): _compare(
            name, *(np.concatenate([clip[name] for clip in side]) for side in (got, expected))
        )
        for name in names
    }


def first_draw(got: Recording, expected: Recording) -> int | None:
    """The first horizon of a free rollout at which an integer output differs."""
    drawn = [
        name
        for name, values in expected.items()
        if name.startswith(FREE) and np.issubdtype(values.dtype, np.integer)
    ]
    return first_difference(got, expected, drawn)


def total_variation(got: np.ndarray, expected: np.ndarray) -> float:
    """The mean total variation between the distributions of logits (..., K), from 0 to 1."""
    p, q = _softmax(got), _softmax(expected)
    return float(np.abs(p - q).sum(-1).mean() / 2)


def _softmax(logits: np.ndarray) -> np.ndarray:
    values = logits.astype(np.float64)
    powers = np.exp(values - values.max(-1, keepdims=True))
    shares: np.ndarray = powers / powers.sum(-1, keepdims=True)
    return shares


def _compare(name: str, got: np.ndarray, expected: np.ndarray) -> OutputParity:
    if np.issubdtype(expected.dtype, np.integer):
        return OutputParity(agreement=float((got == expected).mean()))
    a, b = got.astype(np.float64), expected.astype(np.float64)
    scale = float(np.abs(b).max()) or 1.0
    return OutputParity(
        relative=float(np.abs(a - b).max()) / scale,
        variation=total_variation(a, b) if name.endswith("logits") else None,
    )
