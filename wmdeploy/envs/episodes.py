"""Episodes: rows of a pool that start from real clips and go on by an agent's actions.

What the environments of this folder share. It knows what a step is worth and whether it ended an
episode; it does not know what is done then.
"""

from collections.abc import Callable, Sequence

import numpy as np
from gymnasium.spaces import Box, Discrete

from wmdeploy.clips.clip import Clip
from wmdeploy.errors import BackendError, ClipError
from wmdeploy.programs.contract import Programs
from wmdeploy.programs.engine import Backend
from wmdeploy.programs.pool import Pool

# frames (n, H, W, 3) uint8, the actions taken there (n, ...), the frames that they led to, as
# many: what each step is worth, n numbers
Reward = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


class Episodes:
    """As many episodes at a time as there are rows, in one world model.

    Args:
        backend: the engines of a bundle.
        clips: where episodes start: with any `context` frames in a row of any clip, each as likely
            as any other. Frames are of the model's size; actions are known.
        rows: episodes at a time.
        context: real frames that an episode starts from, at least the model's least.
        reward: in place of the model's own.
        action_range: of float actions, each number in them; default what each was in the clips.

    Attributes:
        observation_space: of one row: a frame, Box(0, 255, (H, W, 3), uint8).
        action_space: of one row: Discrete(num_actions), or Box(low, high, (n,), float32).

    Raises:
        BackendError: the model takes no actions, has no reward and none is given, or a number is
            out of range.
        ClipError: a clip is too short, of another size, or its actions are not the model's.
    """

    def __init__(
        self,
        backend: Backend,
        clips: Sequence[Clip],
        *,
        rows: int,
        context: int,
        reward: Reward | None,
        action_range: tuple[float, float] | None,
    ) -> None:
        programs = backend.programs
        if programs.action is None:
            raise BackendError("the model takes no actions, and an agent has nothing else to do")
        if not programs.render:
            raise BackendError("the model has no program to render with, and an agent sees frames")
        if context < max(programs.least, 1):
            raise BackendError(
                f"context: got {context} frames, expected at least {max(programs.least, 1)}, "
                "which this model needs"
            )
        self._reward, self._end = reward, _end_of(programs)
        if reward is None and "reward" not in _numbers(programs):
            raise BackendError(
                "the model predicts no reward; give reward=, a function of "
                "(frames, actions, next_frames) that returns one number per row"
            )
        self._context, self._clips = context, clips
        self._actions = _clip_actions(clips, context, backend)
        self._counts = np.array([len(clip) - context + 1 for clip in clips])
        size = backend.image_size
        self.observation_space = Box(0, 255, (size, size, 3), np.uint8)
        self.action_space: Discrete | Box = _action_space(programs, self._actions, action_range)
        self._pool = Pool(backend, rows)
        self._everyone = self._pool.add_all()
        self._frames = np.zeros((rows, size, size, 3), np.uint8)

    @property
    def frames(self) -> np.ndarray:
        """A copy of the newest frame of each row, (rows, H, W, 3) uint8, real or imagined."""
        return self._frames.copy()

    def start(self, rows: Sequence[int], randoms: Sequence[np.random.Generator]) -> None:
        """New episodes in some rows, with the last of their real frames as the newest.

        Args:
            randoms: one for each of `rows`: where it starts, and the noise of what follows.
        """
        points = [self._start_point(random) for random in randoms]
        frames = np.stack([self._clips[c].frames[t : t + self._context] for c, t in points])
        actions = np.stack([self._actions[c][t : t + self._context - 1] for c, t in points])
        streams = [int(random.integers(2**63)) for random in randoms]
        self._pool.reset(rows, frames, actions, streams)
        self._frames[rows] = frames[:, -1]

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Every row goes on by one imagined frame.

        Args:
            actions: (rows, ...), one of the action space for each.

        Returns:
            Rewards (rows,) float64, and whether the frame is the last of its episode (rows,) bool.

        Raises:
            BackendError: the actions do not fit, a row was not started, or rewards are not numbers.
        """
        actions = self._checked_actions(actions)
        before = self._frames
        self._frames = self._pool.step(self._everyone, actions)
        outputs = self._pool.outputs(self._everyone)
        if self._reward is None:
            rewards = outputs["reward"].reshape(-1).astype(np.float64)
        else:
            rewards = np.array(self._reward(before, actions, self.frames), np.float64)
        if rewards.shape != (len(before),) or not np.isfinite(rewards).all():
            raise BackendError(
                f"reward: got {rewards.shape}, expected ({len(before)},) finite numbers"
            )
        if self._end == "end":
            return rewards, outputs["end"].reshape(-1) != 0
        if self._end == "cont":
            return rewards, outputs["cont"].reshape(-1) < 0.5
        return rewards, np.zeros(len(before), bool)

    def close(self) -> None:
        """Give the rows' memory back to the backend, which stays the caller's."""
        self._pool.close()

    def _start_point(self, random: np.random.Generator) -> tuple[int, int]:
        """A clip's number, and the first frame in it."""
        point = int(random.integers(self._counts.sum()))
        clip = int(np.searchsorted(np.cumsum(self._counts), point, side="right"))
        return clip, point - int(self._counts[:clip].sum())

    def _checked_actions(self, actions: np.ndarray) -> np.ndarray:
        """What a pool does not refuse itself: one action for all rows, floats out of range."""
        values = np.asarray(actions)
        space = self.action_space
        one = space.shape if isinstance(space, Box) else ()
        shape = (len(self._frames), *one)
        if values.shape != shape:
            raise BackendError(f"actions: got shape {values.shape}, expected {shape}")
        if isinstance(space, Box) and np.issubdtype(values.dtype, np.number):
            values = values.astype(np.float32)
            if not ((values >= space.low) & (values <= space.high)).all():
                raise BackendError(
                    f"actions: got {values.min()} to {values.max()}, expected them in {space}; "
                    "give action_range= for a wider one"
                )
        return values


def _numbers(programs: Programs) -> set[str]:
    """The outputs of each prediction that are one number for each row."""
    given = {target for call in programs.predict for target in call.gives}
    return {
        spec.name
        for spec in programs.outputs
        if f"out.{spec.name}" in given and np.prod(spec.sizes(1)) == 1
    }


def _end_of(programs: Programs) -> str | None:
    """The output that says whether an episode ended."""
    return next((name for name in ("end", "cont") if name in _numbers(programs)), None)


def _clip_actions(clips: Sequence[Clip], context: int, backend: Backend) -> list[np.ndarray]:
    """The actions of each clip, once the clips are known to fit the model."""
    programs, size = backend.programs, backend.image_size
    if not clips:
        raise ClipError("clips: got none, expected at least one to start episodes from")
    found = []
    for clip in clips:
        if clip.frames.shape[1:] != (size, size, 3):
            raise ClipError(
                f"clip {clip.name}: got frames {clip.frames.shape[1:]}, expected "
                f"({size}, {size}, 3); read it with size={size}"
            )
        if len(clip) < context:
            raise ClipError(
                f"clip {clip.name}: has {len(clip)} frames, expected at least {context}, "
                "the context that episodes start from"
            )
        actions = clip.check_actions(programs.num_actions, programs.action_size)
        assert actions is not None  # the model takes some
        found.append(actions)
    return found


def _action_space(
    programs: Programs, actions: Sequence[np.ndarray], action_range: tuple[float, float] | None
) -> Discrete | Box:
    if programs.num_actions:
        if action_range is not None:
            raise BackendError("action_range: is for float actions, and the model takes integers")
        return Discrete(programs.num_actions)
    if action_range is None:
        every = np.concatenate(actions)
        return Box(every.min(0), every.max(0), dtype=np.float32)
    low, high = action_range
    if not low < high:
        raise BackendError(f"action_range: got {low} to {high}, expected a lower and a higher one")
    return Box(low, high, (programs.action_size,), np.float32)
