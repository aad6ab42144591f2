"""What graphs are asked in a rollout, and what they answer: nothing is guessed of a family."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from wmdeploy.programs.arrays import Array, Arrays
from wmdeploy.programs.contract import Programs, TensorSpec
from wmdeploy.programs.engine import Backend, Engine
from wmdeploy.programs.pool import Pool

ROWS = 2  # at different points of their rollouts
DISTINCT = 4  # frames that are encoded, to fill any window with
FRAMES = 6  # that a model without a window is given


@dataclass(frozen=True)
class Case:
    """One run of one graph, on the host: what it took and what it gave, by name."""

    feeds: dict[str, np.ndarray]
    outputs: dict[str, np.ndarray]


class RecordingEngine:
    """An engine that hands on each run."""

    def __init__(
        self,
        inner: Engine,
        arrays: Arrays,
        tell: Callable[[str, Mapping[str, Array], Mapping[str, Array]], None],
    ) -> None:
        self.name = inner.name
        self.inputs: tuple[TensorSpec, ...] = inner.inputs
        self.outputs: tuple[TensorSpec, ...] = inner.outputs
        self._inner, self._arrays, self._tell = inner, arrays, tell

    def run(
        self, feeds: Mapping[str, Array], into: Mapping[str, Array] | None = None
    ) -> dict[str, Array]:
        given = {name: self._arrays.copy(value) for name, value in feeds.items()}
        outputs = self._inner.run(feeds, into)
        self._tell(self.name, given, outputs)
        return outputs

    def synchronize(self) -> None:
        self._inner.synchronize()

    def close(self) -> None:
        """The inner engine is its backend's to close."""


class EncodeOnce:
    """An encoder that knows the frames that it has seen: windows are filled with a few frames."""

    def __init__(self, inner: Engine, arrays: Arrays, frames: str) -> None:
        self.name = inner.name
        self.inputs: tuple[TensorSpec, ...] = inner.inputs
        self.outputs: tuple[TensorSpec, ...] = inner.outputs
        self._inner, self._arrays, self._frames = inner, arrays, frames
        self._seen: dict[bytes, dict[str, Array]] = {}

    def run(
        self, feeds: Mapping[str, Array], into: Mapping[str, Array] | None = None
    ) -> dict[str, Array]:
        names = [frame.tobytes() for frame in self._arrays.host(feeds[self._frames])]
        unseen = {name: row for row, name in enumerate(names) if name not in self._seen}
        if unseen:
            rows = list(unseen.values())
            outputs = self._inner.run({name: value[rows] for name, value in feeds.items()})
            for at, name in enumerate(unseen):
                self._seen[name] = {
                    n: self._arrays.copy(o[at : at + 1]) for n, o in outputs.items()
                }
        found = [self._seen[name] for name in names]
        return {
            spec.name: self._arrays.join([each[spec.name] for each in found], 0)
            for spec in self.outputs
        }

    def synchronize(self) -> None:
        self._inner.synchronize()

    def close(self) -> None:
        """The inner engine is its backend's to close."""


def encoding_once(backend: Backend) -> Backend:
    """The same backend, which encodes a frame that comes again no second time."""
    graph, frames = backend.programs.frame_input()
    encoder = EncodeOnce(backend.engines[graph], backend.arrays, frames)
    return dataclasses.replace(backend, engines={**backend.engines, graph: encoder})


def recording(
    backend: Backend, tell: Callable[[str, Mapping[str, Array], Mapping[str, Array]], None]
) -> Backend:
    """The same backend, which hands on each run of each graph: its name, feeds and outputs."""
    engines = {n: RecordingEngine(e, backend.arrays, tell) for n, e in backend.engines.items()}
    return dataclasses.replace(backend, engines=engines)


def record_cases(
    backend: Backend, frames: np.ndarray, actions: np.ndarray | None
) -> dict[str, list[Case]]:
    """What each graph is asked in rollouts of two rows at different points, and what it answers.

    One pair of rows has a window that is nearly full and one that is half full; the other pair has
    full windows, which are then cut.

    Args:
        frames: (T, H, W, 3) uint8, T >= 2; repeated as far as need be.
        actions: (T, ...) for a model with actions, else None.

    Returns:
        By graph: of each pair the first and the last run of at least two rows, or of one where
        there is no other.
    """
    found: dict[str, list[Case]] = {name: [] for name in backend.engines}
    calls: dict[tuple[str, bool], list[Case]] = {}  # the first and the last, by whether of rows

    def tell(name: str, feeds: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
        spec = backend.engines[name].outputs[0]
        several = outputs[spec.name].shape[spec.batch_axis] >= ROWS
        given, made = (
            {n: backend.arrays.host(array) for n, array in arrays.items()}
            for arrays in (feeds, outputs)
        )
        calls.setdefault((name, several), [])[1:] = [Case(given, made)]

    observed = encoding_once(recording(backend, tell))
    for decoder in backend.programs.decoders():
        programs = backend.programs.rendering(decoder)
        unseen = [name for name, cases in found.items() if not cases]
        for lengths in _lengths(programs):
            pool = Pool(dataclasses.replace(observed, programs=programs), ROWS)
            _roll(pool, lengths, frames[:DISTINCT], actions)
            for name in unseen:
                found[name] += calls.get((name, True)) or calls.get((name, False), [])
            calls.clear()
    return found


def _lengths(programs: Programs) -> list[tuple[int, int]]:
    """The contexts of both rows, pair by pair."""
    least, most = programs.least, programs.context
    if programs.absorb:
        most = max(most, least, FRAMES)
    nearly, half = max(least, most - 1), max(least, most // 2)
    return [(nearly, half), (most, most)]


def _roll(
    pool: Pool, lengths: tuple[int, int], frames: np.ndarray, actions: np.ndarray | None
) -> None:
    def acted(first: int, count: int) -> np.ndarray | None:
        return None if actions is None else actions[np.arange(first, first + count) % len(actions)]

    rows = []
    for row, length in enumerate(lengths):
        context = frames[np.arange(row, row + length) % len(frames)]
        rows.append(pool.add(context, acted(row, length - 1)))
    for at in range(3):
        pool.step(rows, acted(at, ROWS))
    pool.observe(rows, frames[np.arange(ROWS) % len(frames)])
    pool.step(rows, acted(0, ROWS))
    pool.close()
