"""Rollouts on a clip: what a worker times, and what it leaves for the parity."""

from pathlib import Path

import numpy as np
import torch

from wmdeploy.engines.session import Session, Snapshot

Filled = tuple[Snapshot, int]  # a session whose window lacks one token, and the frame it is at


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
        self.actions = actions if session.wiring.window_actions else None
        self.now = context - 1
        self.filled = filled

    def reset(self, context: int | None = None) -> np.ndarray:
        """Start anew on the clip's first frames, as many as the context or as given; their codes"""
        frames = self.frames[: context or self.context]
        self.now = len(frames) - 1
        actions = None if self.actions is None else self.actions[: self.now]
        return self.session.reset(frames, actions)[0]

    def nearly_full(self) -> Snapshot:
        """Go to where the next step takes the window's last slot; made once, then restored."""
        if self.filled is None:
            slots = self.session.wiring.context
            # at least one advance, so that the cache is filled and the next step is a step
            context = max(1, min(self.context, slots - 2))
            self.reset(context)
            for _ in range(slots - context - 1):
                self.advance()
            self.filled = self.session.snapshot(), self.now
        snapshot, self.now = self.filled
        self.session.restore(snapshot)
        return snapshot

    def action(self) -> int | None:
        """The action at the newest frame, past the clip's end its last one is held."""
        self.now += 1
        if self.actions is None:
            return None
        return int(self.actions[min(self.now, len(self.actions)) - 1])

    def step(self) -> np.ndarray:
        return self.session.step(self.action())

    def advance(self) -> None:
        self.session.advance(self.action())


def read_clip_file(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """Frames and actions, as the bench wrote them for its workers."""
    with np.load(path) as clip:
        return clip["frames"], clip["actions"] if "actions" in clip else None


@torch.inference_mode()  # as the session's tensors: torch.compile compiles again for others
def record(rollout: Rollout, horizon: int) -> dict[str, np.ndarray]:
    """What the parity of one clip is judged by.

    Returns:
        `free`: (horizon, H, W, 3), each frame from those imagined before it. `forced`: (T, H, W,
        3), each from the clip's own, as far as it goes after the context. `codes`: (context + T, N)
        of the clip's frames. `imagined_codes`: (horizon, N) of the frames in `free`.
    """
    rollout.reset()
    free = np.concatenate([rollout.step() for _ in range(horizon)])
    codes = [rollout.reset()]
    forced = [np.zeros((0, *free.shape[1:]), np.uint8)]  # a clip may end where the context does
    for frame in rollout.frames[rollout.context : rollout.context + horizon]:
        forced.append(rollout.step())
        codes.append(rollout.session.observe(frame))
    backend = rollout.session.backend
    encoder, wiring = backend.engines["encoder"], backend.wiring
    imagined = []
    for frame in free:
        feeds = {wiring.frames: torch.tensor(frame[None], device=backend.device)}
        imagined.append(encoder.run(feeds)[wiring.codes].cpu().numpy())
    return {
        "free": free,
        "forced": np.concatenate(forced),
        "codes": np.concatenate(codes),
        "imagined_codes": np.concatenate(imagined),
    }
