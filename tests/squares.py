"""Clips that a model of a thousand parameters can learn: a square that actions move."""

from pathlib import Path
from typing import Any

import numpy as np

from wmdeploy.clips import write_npz


def square_clip(length: int, seed: int, actions: bool = True) -> tuple[np.ndarray, Any]:
    """A square of 4 pixels that action 1 moves right and action 0 left, around a ring of 16."""
    chosen = np.random.default_rng(seed).integers(0, 2, length)
    x = np.cumsum(np.r_[seed, 4 * chosen[:-1] - 2]) % 16
    frames = np.full((length, 16, 16, 3), (20, 40, 90), np.uint8)
    for t, left in enumerate(x):
        columns = (left + np.arange(4)) % 16
        frames[t][6:10, columns] = (240, 220, 60)
    return frames, chosen.astype(np.int64) if actions else None


def write_squares(folder: Path, clips: int = 5) -> Path:
    """Clips of 48 frames, each an episode."""
    for index in range(clips):
        write_npz(folder / f"clip-{index}.npz", *square_clip(48, index))
    return folder
