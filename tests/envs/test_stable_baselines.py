"""Stable-Baselines3 trains in a world model."""

import numpy as np
import pytest
from gymnasium.vector import SyncVectorEnv
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import VecMonitor

from tests.envs.counting import ACTIONS, counted, counting, levels
from wmdeploy.envs.single import WorldModelEnv
from wmdeploy.envs.stable_baselines import StableBaselinesEnv
from wmdeploy.envs.vector import WorldModelVectorEnv
from wmdeploy.errors import BackendError

CLIPS = [counted(1, 6), counted(100, 3)]


def adapted(max_steps: int = 4) -> StableBaselinesEnv:
    env = WorldModelVectorEnv(counting(), CLIPS, num_envs=4, context=2, max_steps=max_steps, seed=0)
    return StableBaselinesEnv(env)


def test_infos_are_as_stable_baselines_wants_them() -> None:
    env = adapted()
    before = levels(np.asarray(env.reset()))
    cut = ended = 0
    for _ in range(40):
        frames, rewards, dones, infos = env.step(np.zeros(4, np.int64))
        after = before + 1
        assert rewards.dtype == np.float32 and frames in env._env.observation_space
        for row, info in enumerate(infos):
            assert ("terminal_observation" in info) == dones[row]
            if dones[row]:
                assert levels(info["terminal_observation"]) == after[row]
                assert info["TimeLimit.truncated"] == (after[row] % 7 != 0)
                cut += info["TimeLimit.truncated"]
                ended += not info["TimeLimit.truncated"]
        before = levels(np.asarray(frames))
    assert cut > 5 and ended > 5


def test_seed_makes_a_reset_repeatable() -> None:
    env = adapted()
    env.seed(5)
    first = env.reset()
    again = env.reset()
    env.seed(5)
    np.testing.assert_array_equal(env.reset(), first)
    assert (again != first).any()


def test_rest_of_the_interface() -> None:
    env = adapted()
    env.reset()
    assert env.render_mode == "rgb_array"
    picture = env.render(mode="rgb_array")
    assert picture is not None and picture.shape == (16, 16, 3)  # four rows, tiled
    assert env.get_attr("num_envs", [0, 2]) == [4, 4]
    env.set_attr("note", 1)
    assert env.get_attr("note", 1) == [1]
    assert len(env.env_method("render", indices=0)[0]) == 4
    assert env.env_is_wrapped(VecMonitor) == [False] * 4
    env.close()
    assert env._env.closed


def test_environments_that_reset_later_are_refused() -> None:
    late = SyncVectorEnv([lambda: WorldModelEnv(counting(), CLIPS, context=2)])
    with pytest.raises(BackendError, match="got autoreset mode .*NEXT_STEP"):
        StableBaselinesEnv(late)


def test_ppo_learns_which_action_pays() -> None:
    """Action 2 pays most, at once."""
    env = VecMonitor(
        StableBaselinesEnv(
            WorldModelVectorEnv(
                counting(end=None), [counted(100, 9)], num_envs=4, context=2, max_steps=4, seed=0
            )
        )
    )
    agent = PPO(
        "MlpPolicy",
        env,
        n_steps=32,
        batch_size=32,
        n_epochs=4,
        learning_rate=3e-3,
        gamma=0,
        seed=0,
        device="cpu",
    )
    agent.learn(512)
    chosen, _ = agent.predict(np.asarray(env.reset()), deterministic=True)
    assert (chosen == ACTIONS - 1).all()
    assert len(agent.ep_info_buffer or ()) == 100
