"""Ties between a backend's codes and the baseline's: found in its worker, used in the backend's."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from wmdeploy.benchmarks.protocol import TIES_FILE, rollout_file
from wmdeploy.bundle import Bundle
from wmdeploy.codes import CodeCount
from wmdeploy.engines.pytorch.eager import bundled_model
from wmdeploy.engines.same_codes import Correct, Correction, correction
from wmdeploy.families import family_of
from wmdeploy.manifest import Precision

PLACE = ("clip", "frame", "got", "codes")  # of a correction; what else there is moves with it


def write_ties(
    bundle: Bundle,
    clips: Sequence[np.ndarray],
    baseline: Path,
    directory: Path,
    precision: Precision,
) -> list[CodeCount]:
    """Compare the codes of what two workers recorded; counts by clip, none without codes.

    Args:
        clips: frames (T, H, W, 3) uint8 of each.
        baseline, directory: where the baseline and the backend recorded. Where codes tie, the
            corrections go into `TIES_FILE` of the latter.
    """
    files = [rollout_file(number) for number in range(len(clips))]
    if not bundle.manifest.programs.codes_output():
        return []
    recorded = [(_codes(baseline / name), _codes(directory / name)) for name in files]
    if all(np.array_equal(*pair) for pair in recorded):
        return [CodeCount(codes=expected.size) for expected, _ in recorded]
    model = bundled_model(bundle)
    counts, rows = [], []
    for number, (expected, got) in enumerate(recorded):
        ties = family_of(model).find_ties(model, clips[number], expected, got, precision)
        counts.append(ties.count)
        for frame in np.flatnonzero(ties.tied.any(1)):
            corrected = correction(model, expected[frame], got[frame], ties.tied[frame])
            where = {"clip": number, "frame": frame, "got": got[frame], "codes": corrected.codes}
            rows.append({**where, **corrected.moved})
    if rows:
        arrays = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
        np.savez(directory / TIES_FILE, allow_pickle=False, **arrays)
    return counts


def _codes(path: Path) -> np.ndarray:
    with np.load(path) as arrays:
        return arrays["codes"]


def read_corrections(path: Path, clips: Sequence[np.ndarray]) -> Correct:
    """What to correct, by a frame and the codes that the backend had for it."""
    corrections: dict[tuple[bytes, bytes], Correction] = {}
    with np.load(path) as file:
        arrays = dict(file)
    for row, (clip, frame) in enumerate(zip(arrays["clip"], arrays["frame"], strict=True)):
        key = clips[clip][frame].tobytes(), arrays["got"][row].tobytes()
        moved = {name: rows[row] for name, rows in arrays.items() if name not in PLACE}
        corrections[key] = Correction(arrays["codes"][row], moved)
    return lambda frame, codes: corrections.get((frame.tobytes(), codes.tobytes()))
