"""Evaluate a model of any family by its frames alone: each from the true ones before it; rollouts.

What runs the model is a session, PyTorch's first, others beside it. A model that draws is judged by
one draw of each future.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import numpy as np

from wmdeploy.clips.footage import Footage
from wmdeploy.programs.engine import Backend
from wmdeploy.programs.session import Session
from wmdeploy.progress import Progress, silent
from wmdeploy.quality.measure import (
    CONTEXT,
    PIECE_BYTES,
    changed_pixels,
    rollout_starts,
    similarity,
)
from wmdeploy.quality.report import HORIZONS, QualityReport
from wmdeploy.quality.tally import FrameTally


class SessionRunner:
    """A backend's sessions as a predictor of frames.

    Args:
        name: what to call it; None: as the backend.
    """

    def __init__(self, backend: Backend, name: str | None = None) -> None:
        self.name = name or backend.name
        self.least = backend.programs.least
        self._session = Session(backend)
        self._conditioned = backend.programs.action is not None

    def following(
        self, frames: Iterable[np.ndarray], actions: np.ndarray | None
    ) -> Iterator[np.ndarray]:
        """T frames (H, W, 3) uint8 -> T - `least` frames: each from the true ones before it."""
        coming = iter(frames)
        first = np.stack(list(islice(coming, self.least)))
        self._session.reset(first, self._taken(actions, len(first) - 1))
        for index, frame in enumerate(coming, start=len(first)):
            yield self._session.step(self._action(actions, index - 1))[0]
            self._session.observe(frame)

    def rollout(self, frames: np.ndarray, horizon: int, actions: np.ndarray | None) -> np.ndarray:
        """A context (C, H, W, 3) uint8, actions (C + horizon - 1, ...) -> (horizon, H, W, 3)."""
        given = len(frames) - 1
        self._session.reset(frames, self._taken(actions, given))
        steps = range(given, given + horizon)
        return np.stack([self._session.step(self._action(actions, step))[0] for step in steps])

    def _taken(self, actions: np.ndarray | None, count: int) -> np.ndarray | None:
        return None if actions is None or not self._conditioned else actions[:count]

    def _action(self, actions: np.ndarray | None, index: int) -> np.ndarray | None:
        return None if actions is None or not self._conditioned else actions[index]


def evaluate_frames(
    runners: Sequence[SessionRunner],
    footage: Footage,
    *,
    name: str,
    context: int = CONTEXT,
    skipped: Sequence[str] = (),
    progress: Progress = silent,
) -> QualityReport:
    """Evaluate a model of any family.

    Args:
        runners: the model in PyTorch, and whatever else runs it.
        footage: of more frames each than the model's `least`, with the actions that it takes.
        name: what to call the model.
        context: frames given to a rollout.
        skipped: clips that were left out, for the report.
    """
    context = max(context, runners[0].least)
    tallies: dict[str, FrameTally] = {}
    everything = FrameTally()
    for index, group in enumerate(footage.groups):
        both = [tallies.setdefault(group, FrameTally()), everything]
        for tally in both:
            tally.clips += 1
            tally.frames += footage.spans.lengths[index]
        _measure_following(runners, footage, index, both)
        _measure_rollouts(runners, footage, index, context, both)
        progress("evaluate", index + 1, len(footage.groups))
    groups = [tally.report(group) for group, tally in tallies.items()]
    return QualityReport(
        model=name,
        backend=runners[1].name if len(runners) > 1 else None,
        context=context,
        codebook_size=None,
        groups=(*groups, everything.report("all")),
        skipped=tuple(skipped),
    )


def _labels(runners: Sequence[SessionRunner]) -> list[str]:
    return ["model", *(runner.name for runner in runners[1:])]


def _measure_following(
    runners: Sequence[SessionRunner], footage: Footage, index: int, tallies: Sequence[FrameTally]
) -> None:
    """Every frame of a clip but the first few, some of them at a time."""
    actions, least = footage.clip_actions(index), runners[0].least
    predicted = [runner.following(footage.iter_clip(index), actions) for runner in runners]
    piece = max(2, PIECE_BYTES // (3 * footage.size**2))
    length = footage.spans.lengths[index]
    for first in range(least, length, piece):
        last = min(first + piece, length)
        frames = footage.clip(index, first - 1, last)
        changed = changed_pixels(frames)[1:]
        pictures = {"copy": frames[:-1]}
        for label, frame in zip(_labels(runners), predicted, strict=True):
            pictures[label] = np.stack(list(islice(frame, last - first)))
        for who, made in pictures.items():
            alike = similarity(made, frames[1:])
            for tally in tallies:
                tally.frame_sums(who).add(made, frames[1:], changed, alike)


def _measure_rollouts(
    runners: Sequence[SessionRunner],
    footage: Footage,
    index: int,
    context: int,
    tallies: Sequence[FrameTally],
) -> None:
    """Rollouts from places spread over the clip; none in a clip too short for one."""
    longest, where = max(HORIZONS), np.array(HORIZONS) - 1
    actions = footage.clip_actions(index)
    for start in rollout_starts(footage.spans.lengths[index], context + longest):
        frames = footage.clip(index, start, start + context + longest)
        taken = None if actions is None else actions[start : start + context + longest - 1]
        place = f"{footage.spans.names[index]} from frame {start} on"
        true = frames[context + where]
        copied = np.broadcast_to(frames[context - 1], true.shape)
        pictures = {"copy": copied}
        for label, runner in zip(_labels(runners), runners, strict=True):
            pictures[label] = runner.rollout(frames[:context], longest, taken)[where]
        for tally in tallies:
            for who, made in pictures.items():
                tally.add_rollout(who, made, true, place)
