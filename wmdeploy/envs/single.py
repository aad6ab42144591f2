"""A world model as a `gymnasium.Env`: one imagined episode at a time.

For what takes no vector of environments; `wmdeploy.envs.vector` is many times quicker.
"""

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np

from wmdeploy.clips.clip import Clip
from wmdeploy.envs.episodes import Episodes, Reward
from wmdeploy.errors import BackendError
from wmdeploy.programs.engine import Backend


class WorldModelEnv(gymnasium.Env):
    """Episodes in a world model, one after the other; see `WorldModelVectorEnv`.

    It is never truncated: `gymnasium.wrappers.TimeLimit` does that.

    Args:
        backend, clips, context, reward, action_range: as there; `reward` gets one row.

    Attributes:
        observation_space: Box(0, 255, (H, W, 3), uint8).
        action_space: Discrete(num_actions), or Box(low, high, (n,), float32).

    Raises:
        BackendError, ClipError: as there.
    """

    render_mode = "rgb_array"

    def __init__(
        self,
        backend: Backend,
        clips: Sequence[Clip],
        *,
        context: int = 8,
        reward: Reward | None = None,
        action_range: tuple[float, float] | None = None,
    ) -> None:
        self._episodes = Episodes(
            backend, clips, rows=1, context=context, reward=reward, action_range=action_range
        )
        self.observation_space = self._episodes.observation_space
        self.action_space = self._episodes.action_space
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": clips[0].fps}

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """A new episode.

        Args:
            seed: makes all that follows repeatable; None: go on with the draws of the last one.
            options: none are known.

        Returns:
            The last real frame, (H, W, 3) uint8, and no infos.

        Raises:
            BackendError: there are options.
        """
        super().reset(seed=seed)
        if options:
            raise BackendError(f"options: got {', '.join(options)}, and none are known")
        self._episodes.start([0], [self.np_random])
        return self._episodes.frames[0], {}

    def step(
        self, action: np.ndarray | int
    ) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Imagine the next frame.

        Args:
            action: one of the action space.

        Returns:
            The frame (H, W, 3) uint8, reward, whether it terminates the episode, False, no infos.

        Raises:
            BackendError: the action does not fit, or `reset` was not called.
        """
        rewards, ends = self._episodes.step(np.asarray(action)[None])
        return self._episodes.frames[0], float(rewards[0]), bool(ends[0]), False, {}

    def render(self) -> np.ndarray:
        """The newest frame, (H, W, 3) uint8."""
        return self._episodes.frames[0]

    def close(self) -> None:
        """Give the row's memory back to the backend."""
        self._episodes.close()
