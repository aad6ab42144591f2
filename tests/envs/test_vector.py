"""The vector environment on a world that counts: what it says is what can be worked out by hand."""

from typing import Any

import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete
from gymnasium.utils.env_checker import data_equivalence
from gymnasium.utils.passive_env_checker import check_action_space, check_observation_space
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space
from gymnasium.wrappers.vector import RecordEpisodeStatistics

from tests.envs.counting import ACTIONS, ENDS, SIZE, End, counted, counting, levels, sparks
from wmdeploy.envs.vector import WorldModelVectorEnv

CLIPS = [counted(1, 6), counted(100, 3)]


def env_of(end: End = "end", **options: Any) -> WorldModelVectorEnv:
    options = {"num_envs": 4, "context": 2, "seed": 0} | options
    return WorldModelVectorEnv(counting(end=end), options.pop("clips", CLIPS), **options)


def played(env: WorldModelVectorEnv, actions: np.ndarray, seed: int | None = None) -> list[Any]:
    """All that a reset and steps give."""
    return [env.reset(seed=seed), *(env.step(action) for action in actions)]


def some_actions(steps: int, rows: int = 4, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, ACTIONS, (steps, rows))


def test_spaces_and_what_is_given_lie_in_them() -> None:
    env = env_of(max_steps=3)
    assert env.single_observation_space == Box(0, 255, (SIZE, SIZE, 3), np.uint8)
    assert env.single_action_space == Discrete(ACTIONS)
    assert env.metadata["autoreset_mode"] == AutoresetMode.SAME_STEP
    check_observation_space(env.single_observation_space)
    check_action_space(env.single_action_space)
    assert env.observation_space == batch_space(env.single_observation_space, 4)
    assert env.action_space == batch_space(env.single_action_space, 4)
    frames, infos = env.reset()
    assert frames in env.observation_space and infos == {}
    for action in some_actions(20):
        assert action in env.action_space
        frames, rewards, ends, cuts, _ = env.step(action)
        assert frames in env.observation_space
        assert (rewards.dtype, rewards.shape) == (np.float64, (4,))
        assert (ends.dtype, ends.shape, cuts.dtype, cuts.shape) == (bool, (4,), bool, (4,))


@pytest.mark.parametrize("end", ["end", "cont", None])
def test_frames_rewards_and_ends_are_the_worlds(end: End) -> None:
    env = env_of(end)
    frames, _ = env.reset()
    before, ended = levels(frames), 0
    for action in some_actions(20):
        frames, rewards, ends, cuts, infos = env.step(action)
        np.testing.assert_allclose(rewards, action + before / 100, rtol=1e-6)
        after = before + 1 + action
        np.testing.assert_array_equal(ends, after % ENDS == 0 if end else np.zeros(4, bool))
        assert not cuts.any() and ("final_obs" in infos) == ends.any()
        np.testing.assert_array_equal(levels(frames)[~ends], after[~ends])
        for row in np.flatnonzero(ends):
            assert (
                infos["_final_obs"][row] and (levels(infos["final_obs"][row]) == after[row]).all()
            )
        if ends.any():
            assert not infos["_final_obs"][~ends].any()
            assert set(levels(frames)[ends]) <= {2, 3, 4, 5, 6, 101, 102}
            assert (sparks(frames)[ends] == 0).all()  # real frames
        ended += ends.sum()
        before = levels(frames)
    assert (ended > 4) == (end is not None)


def test_max_steps_truncate() -> None:
    env = env_of(None, max_steps=3)
    env.reset()
    cut = [env.step(np.zeros(4, np.int64))[3].tolist() for _ in range(7)]
    assert cut == [[step in (2, 5)] * 4 for step in range(7)]


def test_a_last_step_may_be_both() -> None:
    env = env_of(clips=[counted(ENDS - 2, 2)], max_steps=1)
    env.reset()
    _, _, ends, cuts, infos = env.step(np.zeros(4, np.int64))
    assert ends.all() and cuts.all() and infos["_final_obs"].all()


def test_every_start_point_of_every_clip_comes_as_often() -> None:
    env = env_of(num_envs=200)
    seen = np.concatenate([levels(env.reset()[0]) for _ in range(35)])
    points, counts = np.unique(seen, return_counts=True)
    assert points.tolist() == [2, 3, 4, 5, 6, 101, 102]
    assert counts.min() > 850 and counts.max() < 1150


def test_a_seed_makes_all_repeatable() -> None:
    actions = some_actions(30)
    once = played(env_of(max_steps=4), actions)
    assert data_equivalence(once, played(env_of(max_steps=4), actions), exact=True)
    env = env_of(max_steps=4, seed=1)
    assert not data_equivalence(once, played(env, actions))
    assert data_equivalence(once, played(env, actions, seed=0), exact=True)
    assert not data_equivalence(once, played(env, actions))  # the draws go on


def test_a_row_does_not_depend_on_the_others() -> None:
    actions, others = some_actions(30), some_actions(30, seed=1)
    others[:, 1] = actions[:, 1]
    one, two = (played(env_of(max_steps=5), taken) for taken in (actions, others))
    restarts = 0
    for (a, *given, infos), (b, *expected, _) in zip(one[1:], two[1:], strict=True):
        np.testing.assert_array_equal(a[1], b[1])
        np.testing.assert_array_equal([g[1] for g in given], [e[1] for e in expected])
        restarts += "final_obs" in infos and infos["_final_obs"][1]
    assert restarts > 4 and not data_equivalence(one, two)


def test_every_episode_has_noise_of_its_own() -> None:
    env = env_of(None, num_envs=2, max_steps=9)
    env.reset()
    drawn = []
    for _ in range(4):
        steps = [env.step(np.zeros(2, np.int64)) for _ in range(8)]
        drawn += np.stack([sparks(frames) for frames, *_ in steps], 1).tolist()
        env.step(np.zeros(2, np.int64))
    assert len({tuple(row) for row in drawn}) == 8


def test_a_reward_of_the_users() -> None:
    given = []

    def brighter(frames: np.ndarray, actions: np.ndarray, later: np.ndarray) -> np.ndarray:
        given.append((frames, actions, later))
        return levels(later) - levels(frames)

    for has_reward in (True, False):
        env = WorldModelVectorEnv(
            counting(reward=has_reward), CLIPS, num_envs=2, context=1, reward=brighter, seed=0
        )
        first, _ = env.reset()
        _, rewards, *_ = env.step(np.array([0, 2]))
        assert rewards.tolist() == [1, 3] and rewards.dtype == np.float64
        np.testing.assert_array_equal(given[-1][0], first)
        assert given[-1][1].tolist() == [0, 2]


def test_float_actions() -> None:
    backend = counting(end=None, floats=True)
    clips = [counted(100, 9, floats=True)]
    env = WorldModelVectorEnv(backend, clips, num_envs=2, context=1, seed=0)
    assert env.single_action_space == Box(-1, 1, (1,), np.float32)
    before = levels(env.reset()[0])
    frames, *_ = env.step(np.array([[-1.0], [1.0]]))
    assert (levels(frames) - before).tolist() == [0, 2]
    wider = WorldModelVectorEnv(backend, clips, num_envs=2, context=1, action_range=(-3, 5))
    assert wider.single_action_space == Box(-3, 5, (1,), np.float32)
    wider.reset()
    wider.step(np.array([[-3.0], [5.0]]))


def test_what_is_given_is_the_agents_own() -> None:
    env = env_of(None)
    frames, _ = env.reset()
    before = levels(frames)
    frames[:] = 255
    frames, *_ = env.step(np.zeros(4, np.int64))
    np.testing.assert_array_equal(levels(frames), before + 1)
    frames[:] = 255
    np.testing.assert_array_equal(levels(np.stack(env.render())), before + 1)


def test_wrappers_of_gymnasium_go_around_it() -> None:
    env = RecordEpisodeStatistics(env_of(None, max_steps=5))
    env.reset()
    for _ in range(5):
        *_, infos = env.step(np.ones(4, np.int64))
    assert infos["episode"]["l"].tolist() == [5] * 4
    assert (infos["episode"]["r"] > 5).all()


def test_close_leaves_the_backend_to_others() -> None:
    backend = counting()
    env, other = (WorldModelVectorEnv(backend, CLIPS, num_envs=2, context=1) for _ in range(2))
    other.reset()
    env.close()
    env.close()
    assert env.closed
    other.step(np.zeros(2, np.int64))
