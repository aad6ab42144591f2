"""Frames at other times than one after the other: variable rates, animations, resampling.

Knows when frames are shown, not what they show.
"""

from collections.abc import Generator
from contextlib import closing
from functools import cached_property

import numpy as np

from wmdeploy.clips.clip import Outcomes
from wmdeploy.clips.source import Source, Timeline, Wrapped
from wmdeploy.errors import ClipError

MOST_HELD = 100_000  # frames that the delays of one animation may come to
_ROUNDED = 1e-3  # seconds by which a stamp may come late: Matroska counts in milliseconds


def retimed(source: Source, fps: float | None) -> Source:
    """The same clip at `fps` frames per second; None: an animation with its delays kept.

    Raises:
        ClipError: nothing tells when its frames are shown, or the delays come to too many frames.
    """
    if fps is None and not source.is_animation:
        return source
    timeline = source.timeline
    if timeline is None:
        if fps is None:
            return source
        raise ClipError(f"{source.path}: has no timestamps; leave fps out")
    if fps is not None:
        return Retimed(source, at_rate(timeline, fps), fps)
    delays = np.diff(timeline.ticks)
    step = _step(delays)
    repeats = np.maximum(1, np.rint(delays / step).astype(np.int64))
    if repeats.sum() > MOST_HELD:
        raise ClipError(
            f"{source.path}: its {len(repeats)} frames are shown for {_span(timeline, delays)}, "
            f"which comes to {repeats.sum()} frames, expected at most {MOST_HELD}; "
            "choose a lower fps"
        )
    rate = float(1 / (step * timeline.tick))
    held = Retimed(source, np.repeat(np.arange(len(repeats)), repeats), rate)
    if repeats.max() > 1:
        held.notes.append(
            f"variable frame rate: frames are shown for {_span(timeline, delays)}; the longer ones "
            f"are repeated, {len(repeats)} become {repeats.sum()} at {rate:.4g} per second"
        )
    return held


def uneven(timeline: Timeline) -> str | None:
    """A note on a variable frame rate, with the smallest and the largest gap between frames."""
    gaps = np.diff(timeline.ticks[:-1])
    if not len(gaps):
        return None
    least, most = int(gaps.min()), int(gaps.max())
    rounding = 1 if least > 1 else 0  # where a frame is one tick, there is nothing to round
    if most <= 1.25 * least or most - least <= rounding:
        return None
    return (
        f"variable frame rate: frames are {_span(timeline, gaps)} apart, and are read as evenly "
        "spaced; with fps they are resampled by timestamp"
    )


def at_rate(timeline: Timeline, fps: float) -> np.ndarray:
    """Which frame is shown at 0, 1/fps, 2/fps ... seconds: (M,) int64, until the last one ends."""
    seconds = (timeline.ticks - timeline.ticks[0]) * float(timeline.tick)
    late = min(float(timeline.tick), _ROUNDED)
    count = max(1, int(np.ceil((seconds[-1] - late) * fps)))
    return np.searchsorted(seconds[:-1], np.arange(count) / fps + late, side="right") - 1


class Retimed(Wrapped):
    """Frames of another clip in their order, some of them left out and some repeated.

    Args:
        indices: (M,) int64, rising: which frame of `source` each frame is.
    """

    def __init__(self, source: Source, indices: np.ndarray, fps: float) -> None:
        super().__init__(source)
        self._indices = indices
        self._fps = fps

    @cached_property
    def timeline(self) -> None:
        return None  # its frames are evenly spaced

    def count(self) -> int:
        return len(self._indices)

    def fps(self) -> float:
        return self._fps

    def frames(self, start: int) -> Generator[np.ndarray, None, None]:
        wanted = self._indices[start:]
        if not len(wanted):
            return
        first = int(wanted[0])
        repeats = np.bincount(wanted - first).tolist()
        with closing(self._source.frames(first)) as frames:
            for index, times in enumerate(repeats):
                frame = next(frames, None)
                if frame is None:
                    raise ClipError(
                        f"{self.path}: frame {first + index} is missing; copy or record it again"
                    )
                for _ in range(times):
                    yield frame

    def actions(self) -> np.ndarray | None:
        actions = self._source.actions()
        if actions is not None and not np.array_equal(self._indices, np.arange(len(actions))):
            raise ClipError(
                f"{self.path}: has an action for each of its frames, which fps {self._fps:g} "
                "would take apart; leave fps out, or train without actions"
            )
        return actions

    def outcomes(self) -> Outcomes:
        """None where frames are left out or repeated: they are of each frame as it was."""
        same = np.array_equal(self._indices, np.arange(self._source.count()))
        return self._source.outcomes() if same else Outcomes()


def _step(delays: np.ndarray) -> float:
    """Ticks from one frame to the next, where no frame is held: the mean of the short delays."""
    short = delays[delays < 1.5 * max(1, delays.min())]
    return max(1.0, float(short.mean()))


def _span(timeline: Timeline, ticks: np.ndarray) -> str:
    """For a message: 33 to 233 ms."""
    least, most = (float(int(t) * timeline.tick * 1000) for t in (ticks.min(), ticks.max()))
    return f"{least:.4g} to {most:.4g} ms"
