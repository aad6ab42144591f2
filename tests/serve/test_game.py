"""The real game beside a dream."""

from dataclasses import replace

import numpy as np
import pytest

from tests.envs.counting import SIZE, counting
from tests.serve.conftest import PLAYING, Page, serving
from wmdeploy.errors import ClipError
from wmdeploy.programs.pool import Pool
from wmdeploy.serve.dream import Dream
from wmdeploy.serve.game import Game
from wmdeploy.serve.starts import picture

pytest.importorskip("ale_py", reason="ale-py is not installed")


def freeway(size: int = 24) -> Game:
    return Game("freeway", size, frame_skip=4, num_actions=3)


def test_a_start_is_the_games_newest_frames() -> None:
    game, again = freeway(), freeway()
    start = game.begin(seed=3, context=5)
    assert start.live and start.frames.shape == (5, 24, 24, 3)
    assert start.actions is not None and start.actions.shape == (4,)
    assert (start.frames[-1] == game.frame).all()
    assert (again.begin(seed=3, context=5).frames == start.frames).all()
    assert (again.begin(seed=4, context=5).frames != start.frames).any()


def test_a_state_is_gone_back_to_exactly() -> None:
    game = freeway()
    game.begin(seed=0, context=2)
    state = game.state()
    first = [game.step(1).copy() for _ in range(12)]
    game.restore(state)
    assert all((game.step(1) == frame).all() for frame in first)
    game.restore(state)
    assert any((game.step(2) != frame).any() for frame in first)


def test_actions_are_the_models() -> None:
    assert freeway().meanings == ("NOOP", "UP", "DOWN")
    assert len(Game("freeway", 24, 4, 18).meanings) == 18
    with pytest.raises(ClipError, match="3 actions, or all 18; the model takes 5"):
        Game("freeway", 24, 4, 5)
    with pytest.raises(ClipError, match="unknown"):
        Game("freewy", 24, 4, 3)


def test_both_go_back_and_the_dream_takes_the_real_frame() -> None:
    game = freeway(SIZE)
    pool = Pool(counting(end=None), 1)
    dream = Dream(pool, game.begin(0, 2), game, kept=20, recorded=20)
    assert dream.real is not None and (dream.real == dream.dream).all()
    seen = {}
    for _ in range(8):
        dream.stepped(pool.step([dream.row], np.array([1]))[0], 1)
        assert dream.real is not None
        seen[dream.frame] = dream.dream.copy(), dream.real.copy()
    dream.rewind(4)
    assert dream.frame == 4 and (dream.real == seen[4][1]).all()
    dream.stepped(pool.step([dream.row], np.array([1]))[0], 1)
    assert (dream.dream == seen[5][0]).all() and (dream.real == seen[5][1]).all()
    assert [one.action for one in dream.taken] == [1] * 5
    dream.sync()
    assert dream.depth == 0 and (dream.dream == dream.real).all()
    level = int(dream.real[0, 0, 0])
    assert pool.step([dream.row], np.array([1]))[0][0, 0, 0] == (level + 2) % 256


def test_a_page_sees_both() -> None:
    with serving(replace(PLAYING, sessions=2), game=lambda: freeway(SIZE)) as (service, address):
        count = len(service.engine.starts)
        page = Page(address, start=count)
        first = page.frame()
        assert first.real == first.dream
        page.keys(1)
        later = page.frame(lambda f: f.frame > 5 and f.action == 1)
        assert later.real and later.depth == later.frame
        page.send("pause")
        page.event("state")
        page.send("sync")
        synced = page.frame(lambda f: f.depth == 0)
        assert synced.dream == synced.real
        plain = Page(address, start=0)
        assert plain.frame(lambda f: f.frame == 2).real == b""
        page.socket.close()
        plain.socket.close()


def test_pictures_are_exact_or_nearly() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    smooth = np.broadcast_to(np.arange(16, dtype=np.uint8)[:, None, None] * 16, (16, 16, 3))
    assert picture(frame, "png").startswith(b"\x89PNG")
    from io import BytesIO

    from PIL import Image

    assert (np.asarray(Image.open(BytesIO(picture(frame, "png")))) == frame).all()
    near = np.asarray(Image.open(BytesIO(picture(smooth.copy(), "jpeg")))).astype(int)
    assert np.abs(near - smooth).max() <= 4
