"""What a pool of rows costs beside sessions of their own: frames per second, latency, overhead.

    python -m wmdeploy.benchmarks.studies.pool_rows bundles/small --rows 16

Rows are at different depths of their rollouts. Everything is timed in turns in one process, and
medians of the turns are printed, as Markdown.
"""

import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from wmdeploy.benchmarks.studies import run_study
from wmdeploy.bundle import Bundle
from wmdeploy.clips.read import SAMPLE_CLIP, read_clip
from wmdeploy.engines.base import Settings, load_backend
from wmdeploy.programs.arrays import Array
from wmdeploy.programs.engine import Backend, Engine
from wmdeploy.programs.pool import Pool
from wmdeploy.programs.session import Session

OVERHEAD_STEPS = 300


class Answered:
    """An engine that gives its first answer again, in no time: what is left is the session's."""

    def __init__(self, inner: Engine) -> None:
        self.name, self.inputs, self.outputs = inner.name, inner.inputs, inner.outputs
        self._inner = inner
        self._answer: dict[str, Array] | None = None

    def run(
        self, feeds: Mapping[str, Array], into: Mapping[str, Array] | None = None
    ) -> dict[str, Array]:
        if self._answer is None:
            self._answer = self._inner.run(feeds)
        return self._answer

    def synchronize(self) -> None:
        """Nothing runs."""

    def close(self) -> None:
        """The inner engine is its backend's."""


def main(
    bundle: Annotated[Path, typer.Argument(help="A bundle.")],
    backend: str = "ort-cpu",
    rows: Annotated[int, typer.Option(min=2)] = 16,
    turns: Annotated[int, typer.Option(min=1)] = 15,
    chunk: Annotated[int, typer.Option(min=1, help="Rows that step together.")] = 8,
) -> None:
    loaded = load_backend(backend, Bundle.open(bundle), Settings("cpu"))
    spread = max(1, loaded.programs.context // rows)
    clip = read_clip(SAMPLE_CLIP, size=loaded.image_size, count=8)
    least = loaded.programs.least
    action = actions(loaded, 1)
    pool = Pool(loaded, rows)
    sessions = []
    for row in range(rows):
        context = clip.frames[: least + row % 4], actions(loaded, least + row % 4 - 1)
        pool.add(*context)
        session = Session(loaded)
        session.reset(*context)
        sessions.append(session)
        for _ in range(row * spread):
            pool.advance([row], action)
            session.advance(action)
    groups = [list(range(first, min(first + chunk, rows))) for first in range(0, rows, chunk)]

    def step_pool() -> None:
        for group in groups:
            pool.step(group, actions(loaded, len(group)))

    def step_sessions() -> None:
        for session in sessions:
            session.step(action)

    together, apart = in_turns(step_pool, step_sessions, turns)
    print(f"| {bundle.name} on {backend}, {rows} rows at different depths | frames per second |")
    print("|---|---:|")
    print(f"| pool, {chunk} rows at a time | {rows / together:.1f} |")
    print(f"| {rows} sessions, one after the other | {rows / apart:.1f} |")
    print(f"| ratio | {apart / together:.2f}x |")
    one, alone = in_turns(
        lambda: pool.step([0], action), lambda: sessions[0].step(action), 4 * turns
    )
    print(f"\none row beside {rows - 1} idle ones: {one / alone:.3f} of a session's time")
    print(f"overhead of a step: {overhead(loaded, clip.frames) * 1e6:.0f} µs")


def actions(backend: Backend, count: int) -> np.ndarray | None:
    """The first action, `count` times; None for a model without actions."""
    spec = backend.programs.action
    return None if spec is None else np.zeros((count, *spec.sizes(1)[1:]), spec.dtype)


def in_turns(
    first: Callable[[], object], second: Callable[[], object], turns: int
) -> tuple[float, float]:
    """The median seconds of both, run in turns; one turn more than is counted."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(turns + 1):
        for run, taken in zip((first, second), times, strict=True):
            start = time.perf_counter()
            run()
            taken.append(time.perf_counter() - start)
    return statistics.median(times[0][1:]), statistics.median(times[1][1:])


def overhead(backend: Backend, frames: np.ndarray) -> float:
    """Seconds of one step of a session with engines that take no time, its frame included."""
    engines = {name: Answered(engine) for name, engine in backend.engines.items()}
    session = Session(dataclasses.replace(backend, engines=engines))
    least, action = backend.programs.least, actions(backend, 1)
    session.reset(frames[:least], actions(backend, least - 1))
    for _ in range(backend.programs.context + 2):
        session.step(action)
    times = []
    for _ in range(OVERHEAD_STEPS):
        start = time.perf_counter()
        session.step(action)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


if __name__ == "__main__":
    run_study(main)
