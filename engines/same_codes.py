"""A backend that goes on from PyTorch's codes where its own tie with them.

Both then imagine from the same vectors, so that what differs is the fault of what follows the
encoder. Which codes tie is decided in `wmdeploy.families.reference.ties`.
"""

import dataclasses
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from torch import nn

from wmdeploy.codes import CodeCount, add_counts
from wmdeploy.families import family_of
from wmdeploy.manifest import Precision
from wmdeploy.programs.arrays import Array, Arrays
from wmdeploy.programs.contract import Programs, TensorSpec
from wmdeploy.programs.engine import Backend, Engine


@dataclass(frozen=True)
class Correction:
    """What becomes of one frame's encoding.

    Attributes:
        codes: (N,) int64, PyTorch's where the backend's tie, else the backend's.
        moved: by how much the encoder's other output moves with them, float32, by its name in each
            layout. What is moved keeps the backend's own rounding and faults.
    """

    codes: np.ndarray
    moved: Mapping[str, np.ndarray]


# A frame (H, W, 3) uint8 and the backend's codes of it (N,) -> what to correct, if anything.
Correct = Callable[[np.ndarray, np.ndarray], Correction | None]


def correction(
    model: nn.Module, expected: np.ndarray, got: np.ndarray, tied: np.ndarray
) -> Correction:
    """Of one frame's codes, (N,) each, `tied` bool."""
    # the same code on both sides where nothing ties, as the backend's code may be none
    there, here = (np.where(tied, codes, 0) for codes in (expected, got))
    codes = np.where(tied, expected, got).astype(np.int64)
    return Correction(codes, family_of(model).encoded_change(model, before=here, after=there))


class TieFinder:
    """Finds what to correct as frames come, where the model is at hand.

    Args:
        model: float32.
        precision: of the backend.
    """

    def __init__(self, model: nn.Module, precision: Precision) -> None:
        self._model, self._precision = model, precision
        self._codes = np.zeros((0, 0), np.int64)
        self._rows: dict[bytes, int] = {}
        self._corrections: dict[bytes, Correction] = {}
        self._counted: set[bytes] = set()
        self._count = CodeCount(codes=0)

    def expect(self, frames: np.ndarray, codes: np.ndarray) -> None:
        """PyTorch's codes (T, N) int of frames (T, H, W, 3) uint8; others are left as they are."""
        self._codes = codes.astype(np.int64)
        self._rows = {_digest(frame): row for row, frame in enumerate(frames)}

    @property
    def count(self) -> CodeCount:
        """Of all expected frames that came, equal ones once."""
        return self._count

    def __call__(self, frame: np.ndarray, codes: np.ndarray) -> Correction | None:
        name = _digest(frame)
        row = self._rows.get(name)
        if row is None:
            return None
        key = _digest(codes, name)
        if key not in self._counted:  # of 100,000 frames no more than the digest is kept
            self._counted.add(key)
            count, corrected = self._find(frame, self._codes[row], codes)
            self._count = add_counts([self._count, count])
            if corrected is not None:
                self._corrections[key] = corrected
        return self._corrections.get(key)

    def _find(
        self, frame: np.ndarray, expected: np.ndarray, got: np.ndarray
    ) -> tuple[CodeCount, Correction | None]:
        find_ties = family_of(self._model).find_ties
        ties = find_ties(self._model, frame[None], expected[None], got[None], self._precision)
        if not ties.tied.any():
            return ties.count, None
        return ties.count, correction(self._model, expected, got, ties.tied[0])


def _digest(array: np.ndarray, before: bytes = b"") -> bytes:
    return hashlib.sha256(before + array.tobytes()).digest()


class SameCodesEncoder:
    """A backend's encoder, corrected.

    Args:
        programs: they say which input takes frames, and which output has their codes.
    """

    def __init__(self, inner: Engine, programs: Programs, arrays: Arrays, correct: Correct) -> None:
        self.name = inner.name
        self.inputs: tuple[TensorSpec, ...] = inner.inputs
        self.outputs: tuple[TensorSpec, ...] = inner.outputs
        self._inner, self._arrays, self._correct = inner, arrays, correct
        self._frames, self._codes = programs.frame_input()[1], programs.codes_output()

    def run(
        self, feeds: Mapping[str, Array], into: Mapping[str, Array] | None = None
    ) -> dict[str, Array]:
        outputs = {n: self._arrays.host(v) for n, v in self._inner.run(feeds, into).items()}
        assert self._codes is not None, "only families with codes have ties"
        for row, frame in enumerate(self._arrays.host(feeds[self._frames])):
            fix = self._correct(frame, outputs[self._codes][row])
            if fix is not None:
                for name in fix.moved.keys() & outputs.keys():
                    moved = outputs[name][row].astype(np.float32) + fix.moved[name]
                    outputs[name][row] = moved.astype(outputs[name].dtype)
                outputs[self._codes][row] = fix.codes
        return {name: self._arrays.put(value) for name, value in outputs.items()}

    def synchronize(self) -> None:
        self._inner.synchronize()

    def close(self) -> None:
        self._inner.close()


def with_same_codes(backend: Backend, correct: Correct) -> Backend:
    """The same engines, with an encoder that is corrected."""
    programs = backend.programs
    graph, _ = programs.frame_input()
    encoder = SameCodesEncoder(backend.engines[graph], programs, backend.arrays, correct)
    return dataclasses.replace(backend, engines={**backend.engines, graph: encoder})
