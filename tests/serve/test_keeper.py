"""Players that go on at another server."""

import dataclasses
import functools
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import pytest

from tests.serve.conftest import PLAYING, WAIT, Page, get, serving
from wmdeploy.serve.keeper import Figures, Handover, Memory, Saved
from wmdeploy.serve.service import Service

OPTIONS = dataclasses.replace(PLAYING, save=0.05)


class Near:
    """A keeper in this process, which can be made to fail."""

    def __init__(self) -> None:
        self.memory, self.broken = Memory(), False

    async def save(self, server: str, players: Mapping[str, Saved], figures: Figures) -> list[str]:
        self._check()
        return self.memory.save(server, players, figures)

    async def take(self, server: str, secret: str) -> Saved | None:
        self._check()
        return self.memory.take(server, secret)

    async def forget(self, server: str, secret: str) -> None:
        self._check()
        self.memory.forget(server, secret)

    async def figures(self) -> dict[str, Figures]:
        self._check()
        return self.memory.figures()

    def _check(self) -> None:
        if self.broken:
            raise ConnectionError("the keeper is gone")


@pytest.fixture
def keeper() -> Near:
    return Near()


Two = tuple[tuple[Service, str], tuple[Service, str]]


@contextmanager
def two_servers(keeper: Near) -> Iterator[Two]:
    with (
        serving(OPTIONS, handover=Handover(keeper, "a")) as one,
        serving(OPTIONS, handover=Handover(keeper, "b")) as two,
    ):
        yield one, two


@pytest.fixture
def servers(keeper: Near) -> Iterator[Two]:
    with two_servers(keeper) as both:
        yield both


def lose(page: Page) -> None:
    """The line breaks, without a farewell."""
    page.socket.socket.close()


def all_lost(service: Service) -> bool:
    return all(player.lost_at is not None for player in service.players.values())


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.02)


def test_a_dream_goes_on_at_another_server(servers: Two, keeper: Near) -> None:
    (one, first), (two, second) = servers
    page = Page(first)
    number = page.keys(1)
    before = page.obeying(number)
    before = page.frame(lambda frame: frame.frame >= before.frame + 5)
    lose(page)
    wait_for(lambda: all_lost(one))
    time.sleep(3 * OPTIONS.save)
    again = Page(second, session=page.session)
    assert again.session == page.session
    after = again.frame()
    assert after.frame >= before.frame and after.obeyed == number
    assert after.level - before.level == after.frame - before.frame  # of the world that counts
    assert again.frame(lambda frame: frame.frame == after.frame + 3).action == 1
    wait_for(lambda: not one.players)  # its place is free again
    assert two.counts.taken_over == 1


def test_a_dream_that_stands_still_stands_still_elsewhere(servers: Two) -> None:
    (one, first), (_, second) = servers
    page = Page(first)
    page.frame(lambda frame: frame.frame >= 3)
    page.send("pause")
    still = page.event("state")
    assert not still["running"]
    lose(page)
    wait_for(lambda: all_lost(one))
    time.sleep(3 * OPTIONS.save)
    again = Page(second, session=page.session)
    state = again.event("state")
    assert not state["running"] and state["frame"] == still["frame"]


def test_there_and_back(servers: Two) -> None:
    (one, first), (two, second) = servers
    page = Page(first)
    frame = page.frame(lambda frame: frame.frame >= 3).frame
    for address, left in ((second, one), (first, two), (second, one)):
        lose(page)
        wait_for(functools.partial(all_lost, left))
        time.sleep(3 * OPTIONS.save)
        page, before = Page(address, session=page.session), frame
        while frame == before:
            frame = page.frame().frame
        assert frame > before


def test_who_comes_back_to_its_own_server_finds_what_can_be_gone_back_to(servers: Two) -> None:
    (one, first), _ = servers
    page = Page(first)
    frame = page.frame(lambda frame: frame.frame >= 10).frame
    lose(page)
    wait_for(lambda: all_lost(one))
    again = Page(first, session=page.session)
    assert again.event("state")["oldest"] < frame and one.counts.taken_over == 0


def test_a_secret_is_played_at_one_place(servers: Two) -> None:
    """Who shows it elsewhere has the dream from then on; who shows it twice gets another one."""
    (one, first), (two, second) = servers
    page = Page(first)
    page.frame(lambda frame: frame.frame >= 3)
    time.sleep(3 * OPTIONS.save)
    moved = Page(second, session=page.session)
    assert moved.session == page.session
    code, reason = page.closed()
    assert code == 1001 and "another server" in reason
    wait_for(lambda: not one.players)
    twice = Page(second, session=page.session)
    assert twice.session != page.session and twice.frame().frame == 0
    assert moved.frame(lambda frame: frame.frame > 10) and len(two.players) == 2


def test_who_is_connected_is_not_taken_over(keeper: Near) -> None:
    """Its row would be another's, and its page would still command it."""
    seldom = dataclasses.replace(OPTIONS, save=WAIT)
    with serving(seldom, handover=Handover(keeper, "a")) as (service, address):
        page = Page(address)
        page.frame(lambda frame: frame.frame >= 3)
        (player,) = service.players.values()
        keeper.memory.save("b", {page.session: service.engine.saved(player)}, {})
        other = Page(address, session=page.session)
        assert other.session != page.session and service.counts.taken_over == 0
        rows = {player.dream.row for player in service.players.values()}
        assert len(rows) == 2
        newest = page.frame().frame
        assert page.frame(lambda frame: frame.frame > newest + 5)


def test_who_left_comes_back_to_nobody(servers: Two, keeper: Near) -> None:
    (one, first), (_, second) = servers
    page = Page(first)
    page.frame(lambda frame: frame.frame >= 3)
    page.socket.close()
    wait_for(lambda: not one.players)
    wait_for(lambda: keeper.memory.take("nobody", page.session) is None)
    again = Page(second, session=page.session)
    assert again.session != page.session and again.frame().frame == 0


def test_figures_are_of_all_servers(servers: Two) -> None:
    (_, first), (two, second) = servers
    page = Page(second)
    page.frame(lambda frame: frame.frame >= 3)
    time.sleep(3 * OPTIONS.save)
    for address in (first, second):
        lines = get(address, "/metrics").text.splitlines()
        assert 'wmdeploy_sessions{server="a"} 0' in lines
        assert 'wmdeploy_sessions{server="b"} 1' in lines


def test_without_its_keeper_a_server_plays_on(servers: Two, keeper: Near) -> None:
    (one, first), _ = servers
    page = Page(first)
    page.frame(lambda frame: frame.frame >= 3)
    keeper.broken = True
    later = page.frame(lambda frame: frame.frame >= 10)
    lose(page)
    wait_for(lambda: all_lost(one))
    again = Page(first, session=page.session)
    assert again.session == page.session and again.frame().frame >= later.frame


def test_a_lost_server_is_forgotten_in_time() -> None:
    now = 0.0
    memory = Memory(patience=30, clock=lambda: now)
    memory.save("a", {"secret": None}, {"sessions": 1})  # type: ignore[dict-item]
    now = 29.0
    assert "a" in memory.figures()
    now = 31.0
    assert memory.figures() == {} and memory.take("b", "secret") is None
