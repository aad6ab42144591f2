"""A vector environment of gymnasium as one of Stable-Baselines3, which has its own kind.

PPO("CnnPolicy", VecMonitor(StableBaselinesEnv(env))).learn(100_000)
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv

from wmdeploy.errors import BackendError, require

require("stable_baselines3", extra="agents", purpose="wmdeploy.envs.stable_baselines")

from stable_baselines3.common.vec_env import VecEnv  # noqa: E402

Rows = int | Iterable[int] | None


class StableBaselinesEnv(VecEnv):
    """Any vector environment that resets in the same step, as `WorldModelVectorEnv`.

    `terminal_observation` and `TimeLimit.truncated` in the infos are as Stable-Baselines3 wants
    them: truncated episodes are valued by their last frame. Attributes and methods are asked of
    `env` as a whole: all rows have the same.

    Raises:
        BackendError: rows of `env` reset in the next step, or not by themselves.
    """

    def __init__(self, env: VectorEnv) -> None:
        mode = env.metadata.get("autoreset_mode")
        if mode != AutoresetMode.SAME_STEP:
            raise BackendError(f"env: got autoreset mode {mode}, expected AutoresetMode.SAME_STEP")
        self._env = env
        super().__init__(env.num_envs, env.single_observation_space, env.single_action_space)
        self.metadata = env.metadata

    def reset(self) -> np.ndarray:
        """First observations of all rows, by the seed that was last given to `seed`, once."""
        observations, _ = self._env.reset(seed=self._seeds[0])
        self._reset_seeds()
        return observations

    def step_async(self, actions: np.ndarray) -> None:
        self._actions = actions

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        """Observations, rewards (n,) float32, whether episodes ended (n,) bool, infos of each."""
        observations, rewards, ends, cuts, given = self._env.step(self._actions)
        infos: list[dict[str, Any]] = []
        for row in range(self.num_envs):
            infos.append({"TimeLimit.truncated": bool(cuts[row] and not ends[row])})
            if ends[row] or cuts[row]:
                infos[row]["terminal_observation"] = given["final_obs"][row]
        return observations, rewards.astype(np.float32), ends | cuts, infos

    def get_images(self) -> Sequence[np.ndarray]:
        """The newest frame of each row, (H, W, 3) uint8."""
        images: Sequence[np.ndarray] = self._env.render()  # type: ignore[assignment]
        return images

    def close(self) -> None:
        self._env.close()

    def get_attr(self, attr_name: str, indices: Rows = None) -> list[Any]:
        return [getattr(self._env, attr_name) for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Rows = None) -> None:
        setattr(self._env, attr_name, value)

    def env_method(
        self, method_name: str, *args: Any, indices: Rows = None, **kwargs: Any
    ) -> list[Any]:
        result = getattr(self._env, method_name)(*args, **kwargs)
        return [result for _ in self._get_indices(indices)]

    def env_is_wrapped(self, wrapper_class: type, indices: Rows = None) -> list[bool]:
        return [False for _ in self._get_indices(indices)]
