"""One environment: gymnasium's own check passes, and it is a row of the vector."""

import warnings

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.wrappers import TimeLimit

from tests.envs.counting import ENDS, counted, counting, levels
from wmdeploy.envs.single import WorldModelEnv

CLIPS = [counted(1, 6), counted(100, 3)]


@pytest.mark.parametrize("floats", [False, True])
def test_gymnasiums_check_passes(floats: bool) -> None:
    clips = [counted(100, 9, floats=floats)]
    env = WorldModelEnv(counting(floats=floats), clips, context=2)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        check_env(env)
    # not registered by a name, so that it cannot be made anew in another render mode
    assert all("not having a spec" in str(w.message) for w in seen), [str(w.message) for w in seen]
    env.close()


def test_an_episode_is_the_worlds() -> None:
    env = WorldModelEnv(counting(), CLIPS, context=2)
    frame, infos = env.reset(seed=3)
    assert frame in env.observation_space and infos == {}
    level, ended = int(levels(frame)), False
    while not ended:
        frame, reward, ended, cut, _ = env.step(1)
        assert reward == pytest.approx(1 + level / 100) and not cut
        level += 2
        assert levels(frame) == level and ended == (level % ENDS == 0)
    np.testing.assert_array_equal(env.render(), frame)


def test_a_time_limit_truncates_it() -> None:
    env = TimeLimit(WorldModelEnv(counting(end=None), CLIPS, context=2), 3)
    env.reset(seed=0)
    assert [env.step(0)[3] for _ in range(3)] == [False, False, True]
