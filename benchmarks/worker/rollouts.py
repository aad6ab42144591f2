"""Rollouts on a clip: what a worker times, and what it leaves for the parity."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from wmdeploy.programs.rollouts import Snapshot
from wmdeploy.programs.session import Session

Filled = tuple[list[Snapshot], int]  # a session whose window lacks one frame, and where it is


class Rollout:
    """A session on one clip, with the clip's actions where the model takes them.

    Args:
        context: frames given at a reset.
        filled: of another rollout on the same clip, which this one then need not find itself.
    """

    def __init__(
        self,
        session: Session,
        frames: np.ndarray,
        actions: np.ndarray | None,
        context: int,
        filled: Filled | None = None,
    ) -> None:
        self.session = session
        self.frames = frames
        self.context = context
        self.actions = actions if session.programs.action is not None else None
        self.now = context - 1
        self.filled = filled

    def reset(self, context: int | None = None) -> dict[str, np.ndarray]:
        """Start anew on the clip's first frames, as many as the context or as given.

        Returns:
            What encoding gives of each frame, such as codes (T, N), by name.
        """
        frames = self.frames[: context or self.context]
        self.now = len(frames) - 1
        actions = None if self.actions is None else self.actions[: self.now]
        outputs = self.session.reset(frames, actions)
        return {name: values[0] for name, values in outputs.items()}

    def nearly_full(self) -> list[Snapshot]:
        """Go to where the next step takes the window's last slot; made once, then restored.

        Where a prediction needs a full window, that is where it is full.
        """
        if self.filled is None:
            programs = self.session.programs
            slots = programs.context
            # at least one advance, so that the cache is filled and the next step is a step
            context = max(programs.least, min(self.context, slots - 2))
            self.reset(context)
            for _ in range(slots - context - 1):
                self.advance()
            self.filled = self.session.snapshot(), self.now
        snapshot, self.now = self.filled
        self.session.restore(snapshot)
        return snapshot

    def action(self) -> np.ndarray | None:
        """The action at the newest frame, past the clip's end its last one is held."""
        self.now += 1
        if self.actions is None:
            return None
        return np.asarray(self.actions[min(self.now, len(self.actions)) - 1])

    def step(self) -> np.ndarray:
        return self.session.step(self.action())

    def advance(self) -> None:
        self.session.advance(self.action())


def read_clip_file(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """Frames and actions, as the bench wrote them for its workers."""
    with np.load(path) as clip:
        return clip["frames"], clip["actions"] if "actions" in clip else None


def record(rollout: Rollout, horizon: int) -> dict[str, np.ndarray]:
    """What the parity of one clip is judged by.

    Returns:
        `free`: (horizon, H, W, 3), each frame from those imagined before it. `forced`: (T, H, W,
        3), each from the clip's own, as far as it goes after the context. Named outputs X:
        `free/X` (horizon, ...) of the imagined frames; `forced/X` (T, ...), what is given once the
        true frame is there. Of a model with codes, `codes`: (context + T, N) of the clip's frames;
        `imagined_codes`: (horizon, N) of the frames in `free`.
    """
    session, given = rollout.session, _Parts()
    rollout.reset()
    for _ in range(horizon):
        given.add("free", rollout.step())
        given.add_all("free/", session.outputs())
    # a clip may end where the context does
    given.add("forced", np.zeros_like(given["free"][0][:0]))
    given.add_all("", rollout.reset())
    for frame in rollout.frames[rollout.context : rollout.context + horizon]:
        given.add("forced", rollout.step())
        given.add_all("", session.observe(frame))
        given.add_all("forced/", session.outputs())
    for frame in np.concatenate(given["free"]):
        given.add_all("imagined_", session.observe(frame, rollout.action()))
    return {name: np.concatenate(parts) for name, parts in given.items()}


class _Parts(dict[str, list[np.ndarray]]):
    """Arrays to be joined along their first axis, by name."""

    def add(self, name: str, part: np.ndarray) -> None:
        self.setdefault(name, []).append(part)

    def add_all(self, prefix: str, parts: Mapping[str, np.ndarray]) -> None:
        for name, part in parts.items():
            self.add(f"{prefix}{name}", part)
