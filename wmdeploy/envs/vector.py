"""A world model as a `gymnasium.vector.VectorEnv`: many imagined episodes, one batch each step.

backend = load_backend("ort-cpu", Bundle.open(Path("bundles/game")))
env = WorldModelVectorEnv(backend, clips, num_envs=16, context=8, max_steps=200, seed=0)
frames, _ = env.reset()                                # (16, H, W, 3) uint8
frames, rewards, ends, cuts, infos = env.step(env.action_space.sample())
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from wmdeploy.clips.clip import Clip
from wmdeploy.envs.episodes import Episodes, Reward
from wmdeploy.errors import BackendError
from wmdeploy.programs.engine import Backend


class WorldModelVectorEnv(VectorEnv):
    """Episodes in a world model, each started from a real clip and imagined from there on.

    - An observation is a frame: the last real one of the context after a start, imagined ones
      after that.
    - A reward is the model's output `reward`, or what the function `reward` says.
    - An episode terminates with the frame at which the model's output `end` is not 0; or, of a
      model with `cont`, the probability that the episode goes on, where that is below 0.5. A model
      with neither never terminates.
    - It is truncated with its frame number `max_steps`, not counting the context.
    - Rows start anew in the same step, `AutoresetMode.SAME_STEP`: so every step is of the whole
      batch. The observation is then the new episode's first, and `infos["final_obs"][row]` the
      last frame of the old one, where `infos["_final_obs"][row]`.

    Row i of one seed has the same start points and the same noise, whatever the other rows do.

    Args:
        backend: the engines of a bundle, of any backend: `load_backend("ort-cpu", bundle)`. It may
            be shared with others, and is not closed here.
        clips: where episodes start: with any `context` frames in a row of any clip, each as likely
            as any other. Frames (T, H, W, 3) are of the model's size, and there are actions.
        num_envs: rows.
        context: real frames that an episode starts from, at least the model's least.
        max_steps: imagined frames of the longest episode; None: no end but the model's.
        seed: of start points and noise, for resets without one; None: another one each time.
        reward: in place of the model's: a function of frames (num_envs, H, W, 3) uint8, the actions
            taken there and the frames they led to, which returns num_envs finite numbers.
        action_range: lowest and highest number in float actions; default: of each number in an
            action, what it was in the clips.

    Attributes:
        single_observation_space: Box(0, 255, (H, W, 3), uint8).
        single_action_space: Discrete(num_actions), or Box(low, high, (n,), float32).
        observation_space, action_space: of all rows: (num_envs, H, W, 3) uint8; and (num_envs,)
            int64 or (num_envs, n) float32.

    Raises:
        BackendError: the model takes no actions, has no reward and none is given, or a number is
            out of range.
        ClipError: a clip is too short, of another size, or its actions are not the model's.
    """

    render_mode = "rgb_array"

    def __init__(
        self,
        backend: Backend,
        clips: Sequence[Clip],
        *,
        num_envs: int = 16,
        context: int = 8,
        max_steps: int | None = None,
        seed: int | None = None,
        reward: Reward | None = None,
        action_range: tuple[float, float] | None = None,
    ) -> None:
        self.closed = True  # so far: gymnasium closes also what was refused here
        if num_envs < 1:
            raise BackendError(f"num_envs: got {num_envs}, expected at least 1")
        if max_steps is not None and max_steps < 1:
            raise BackendError(f"max_steps: got {max_steps}, expected at least 1, or none")
        self._episodes = Episodes(
            backend,
            clips,
            rows=num_envs,
            context=context,
            reward=reward,
            action_range=action_range,
        )
        self.closed = False
        self.num_envs, self._max_steps = num_envs, max_steps
        self.single_observation_space = self._episodes.observation_space
        self.single_action_space = self._episodes.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.metadata = {
            "render_modes": ["rgb_array"],
            "render_fps": clips[0].fps,
            "autoreset_mode": AutoresetMode.SAME_STEP,
        }
        self._steps = np.zeros(num_envs, np.int64)
        self._seed(seed)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """A new episode in every row.

        Args:
            seed: makes all that follows repeatable; None: go on with the draws of the last one.
            options: none are known.

        Returns:
            The last real frames, (num_envs, H, W, 3) uint8, and no infos.

        Raises:
            BackendError: there are options.
        """
        if options:
            raise BackendError(f"options: got {', '.join(options)}, and none are known")
        if seed is not None:
            self._seed(seed)
        self._start(list(range(self.num_envs)))
        return self._episodes.frames, {}

    def step(
        self, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Imagine the next frame of every row; what has ended starts anew.

        Args:
            actions: one of the single action space for each row.

        Returns:
            - observations, (num_envs, H, W, 3) uint8
            - rewards, (num_envs,) float64
            - terminations and truncations, (num_envs,) bool; a last step may be both
            - infos: where rows have ended `final_obs`, (num_envs,) of frames (H, W, 3) or None, and
              `_final_obs`, (num_envs,) bool

        Raises:
            BackendError: the actions do not fit, or `reset` was not called.
        """
        rewards, terminations = self._episodes.step(actions)
        self._steps += 1
        truncations = np.zeros(self.num_envs, bool)
        if self._max_steps is not None:
            truncations = self._steps >= self._max_steps
        frames = self._episodes.frames
        infos: dict[str, Any] = {}
        ended = np.flatnonzero(terminations | truncations).tolist()
        if ended:
            for row in ended:
                infos = self._add_info(infos, {"final_obs": frames[row].copy()}, row)
            self._start(ended)
            frames = self._episodes.frames
        return frames, rewards, terminations, truncations, infos

    def render(self) -> tuple[np.ndarray, ...]:
        """The newest frame of each row, (H, W, 3) uint8."""
        return tuple(self._episodes.frames)

    def close_extras(self, **kwargs: Any) -> None:
        """Give the rows' memory back to the backend."""
        self._episodes.close()

    def _seed(self, seed: int | None) -> None:
        super().reset(seed=seed)
        self._randoms = self.np_random.spawn(self.num_envs)

    def _start(self, rows: list[int]) -> None:
        self._episodes.start(rows, [self._randoms[row] for row in rows])
        self._steps[rows] = 0
