"""Players over real sockets: what they press is what they see, whatever others do."""

import socket
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import replace
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.envs.counting import counted, counting
from tests.serve.conftest import PLAYING, WAIT, Page, get, serving
from wmdeploy.errors import BackendError
from wmdeploy.programs.engine import Backend
from wmdeploy.serve.dream import Dream
from wmdeploy.serve.engine import DreamEngine
from wmdeploy.serve.player import MOST_WAITING, Player
from wmdeploy.serve.schedule import Seat
from wmdeploy.serve.starts import start_of

OpenPage = Callable[..., Page]


def test_frames_obey_the_keys(open_page: OpenPage) -> None:
    page = open_page()
    first = page.frame()
    assert (first.frame, first.depth, first.level) == (0, 0, 11)
    level = first.level
    for action in (0, 2, 1):
        number = page.keys(action)
        for _ in range(6):
            frame = page.frame()
            level = (level + 1 + frame.action) % 256
            assert frame.level == level
            assert frame.reward == pytest.approx(frame.action + (level - 1 - frame.action) / 100)
        frame = page.obeying(number)
        assert frame.action == action
        level = frame.level


def test_a_paused_dream_stands_still_and_steps_by_one(open_page: OpenPage) -> None:
    page = open_page()
    page.frame(lambda f: f.frame == 3)
    page.send("pause")
    at = page.event("state")["frame"]
    page.send("step", 2)
    after = page.frame(lambda f: f.frame == at + 1)
    assert after.action == 2
    time.sleep(0.3)
    page.send("pause")
    assert page.event("state")["frame"] == at + 1
    page.send("resume")
    page.frame(lambda f: f.frame > at + 3)


def test_a_dream_goes_back_and_on_from_there(open_page: OpenPage) -> None:
    page = open_page()
    levels = {page_frame.frame: page_frame.level for page_frame in (page.frame() for _ in range(9))}
    page.send("pause")
    page.send("rewind", 3)
    back = page.frame(lambda f: f.frame == 3)
    assert back.level == levels[3] and back.depth == 3
    page.send("step", 2)
    assert page.frame(lambda f: f.frame == 4).level == levels[3] + 3
    page.send("rewind", 3)
    page.send("step", 0)
    assert page.frame(lambda f: f.frame == 4).level == levels[4]


def test_a_branch_is_kept_and_gone_on_from(open_page: OpenPage) -> None:
    page = open_page()
    page.frame(lambda f: f.frame == 4)
    page.send("pause")
    page.send("keep")
    kept = page.event("state")
    while not kept["branches"]:
        kept = page.event("state")
    level = 11 + kept["branches"][0]
    for _ in range(5):
        page.send("step", 2)
    page.send("go", 0)
    back = page.frame(lambda f: f.frame == kept["branches"][0] and f.number > 8)
    assert back.level == level
    page.send("go", 7)
    assert "branch" in page.event("error")["message"]


def test_a_new_start_begins_anew(open_page: OpenPage) -> None:
    page = open_page()
    page.frame(lambda f: f.frame == 2)
    page.send("start", 3)
    assert page.frame(lambda f: f.frame == 0).level == 101
    assert open_page(start=3).frame().level == 101


def test_a_page_that_paints_nothing_gets_three_frames(open_page: OpenPage) -> None:
    page = open_page()
    page.paints = False
    for number in (1, 2, 3):
        assert page.frame().number == number
    with pytest.raises(TimeoutError):
        page.receive(0.5)
    page.paints = True
    page.send("seen", 3)
    assert page.frame().frame == 3  # the dream stood still, and no frame waited


def test_neighbours_change_nothing(open_page: OpenPage, address: str) -> None:
    """Joins, resets, rewinds, rubbish and sudden ends beside a player."""
    page = open_page()
    page.keys(1)
    level = page.frame(lambda f: f.action == 1).level
    for _ in range(4):
        other = open_page(start=1)
        other.keys(2)
        other.send("start", 0)
        other.send("rewind", 0)
        other.send("go", 99)
        rude = open_page()
        rude.socket.send(b"\xff rubbish")
        open_page().socket.socket.close()  # without a farewell
        for _ in range(8):
            frame = page.frame()
            level = (level + 2) % 256
            assert frame.level == level
        assert rude.closed()[0] == 4422
        other.socket.close()


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (b"", 4422),
        (b"\x09", 4422),
        (b"\x01\x03\x01\0\0\0", 4422),
        (b"\x06\xff\xff", 4422),
        (b"\x0a\x00", 4422),
        ("text", 4422),
        (b"\x01" * 65, 1009),
    ],
    ids=["empty", "unknown", "no-action", "no-start", "no-rate", "text", "long"],
)
def test_rubbish_ends_the_connection(open_page: OpenPage, message: bytes | str, code: int) -> None:
    page = open_page()
    page.socket.send(message)
    assert page.closed()[0] == code


def test_a_huge_message_ends_its_connection_alone(open_page: OpenPage) -> None:
    """Its end is not read, and TCP may then lose the reason on its way."""
    page, other = open_page(), open_page()
    with pytest.raises(ConnectionClosed) as ended:
        page.socket.send(b"\x01" * 10**6)
        while True:
            page.receive()
    assert ended.value.rcvd is None or ended.value.rcvd.code == 1009
    before = other.frame().frame
    assert other.frame(lambda frame: frame.frame > before + 3)


def test_a_flood_ends_the_connection(open_page: OpenPage) -> None:
    page = open_page()
    with suppress(ConnectionClosed):
        for _ in range(2000):
            page.keys(1)
    assert page.closed()[0] == 1008


def test_who_comes_back_finds_the_dream(open_page: OpenPage) -> None:
    page = open_page()
    page.keys(2)
    before = page.frame(lambda f: f.action == 2 and f.frame > 5)
    page.socket.socket.close()
    time.sleep(0.3)
    again = open_page(session=page.session)
    frame = again.frame(lambda f: f.frame > 0)
    assert again.session == page.session
    assert frame.level >= before.level and frame.frame >= before.frame
    assert open_page(session=page.session).session != page.session  # who is there is not replaced


def test_who_is_gone_for_long_is_forgotten() -> None:
    with serving(replace(PLAYING, resume=0.3)) as (service, address):
        page = Page(address)
        page.frame()
        page.socket.close()
        wait_for(lambda: not service.players)
        assert Page(address, session=page.session).session != page.session


def test_a_full_server_says_so() -> None:
    with serving(replace(PLAYING, sessions=1)) as (service, address):
        page = Page(address)
        with connect(f"ws://{address}/play?v=1&start=0") as socket:
            with pytest.raises(ConnectionClosed) as raised:
                socket.recv(WAIT)
        assert raised.value.rcvd is not None
        assert raised.value.rcvd.code == 1013 and "full" in raised.value.rcvd.reason
        page.frame(lambda f: f.frame == 3)
        assert service.counts.refused == 1


def test_a_lost_dream_gives_its_place_to_who_comes() -> None:
    with serving(replace(PLAYING, sessions=1, resume=60)) as (service, address):
        lost = Page(address)
        lost.frame()
        lost.socket.socket.close()
        wait_for(lambda: all(player.lost_at for player in service.players.values()))
        page = Page(address)
        assert page.session != lost.session and page.frame().frame == 0


def test_who_does_nothing_leaves() -> None:
    with serving(replace(PLAYING, idle=0.5)) as (_, address):
        page = Page(address)
        assert page.closed() == (4408, "nothing was pressed for 0.5 s")


def test_who_paints_nothing_leaves() -> None:
    with serving(replace(PLAYING, unread=0.5)) as (_, address):
        page = Page(address)
        page.paints = False
        assert page.closed() == (1001, "the page paints no frames")


def failing(above: int) -> Any:
    """The counting world, whose engine fails where a level is above a number."""
    backend = counting(end=None)
    engine = backend.engines["count"]
    run = engine.run

    def failed(feeds: Mapping[str, Any], into: Any = None) -> Any:
        if feeds["level"][:, 0].max() > above:
            raise BackendError("count: gave no finite number")
        return run(feeds, into)

    engine.run = failed  # type: ignore[method-assign]
    return backend


def test_options_that_no_engine_takes_are_refused_before_anybody_comes() -> None:
    with pytest.raises(BackendError, match="refill: got 99"):
        with serving(replace(PLAYING, refill=99)):
            raise AssertionError("it serves")


def test_who_fails_alone_leaves_alone() -> None:
    with serving(PLAYING, failing(above=120)) as (service, address):
        fails, plays = Page(address, start=3), Page(address)
        fails.keys(2)
        plays.keys(0)
        code, reason = fails.closed()
        assert code == 1011 and "no finite number" in reason
        before = plays.frame()
        assert plays.frame(lambda f: f.frame == before.frame + 5).level == before.level + 5
        assert service.counts.failed == 1


def test_one_of_a_batch_fails_and_the_other_goes_on() -> None:
    """The engine alone, so that both are in one batch."""
    options = replace(PLAYING, rewind=0)
    backend = failing(above=120)
    starts = [start_of(counted(first, 2), backend.programs, "") for first in (10, 119)]
    engine = DreamEngine(backend, starts, options, None)
    engine.warm_up()
    players = [player_of(engine.new_dream(number)) for number in (0, 1)]
    for level in (12, 13, 14):
        plays, fails = engine.step(players)
        assert plays.fault is None and plays.dream[0, 0, 0] == level
        assert (fails.fault is None) == (level == 12)
    assert players[0].dream.frame == 3 and players[1].dream.frame == 1


def test_engine_that_breaks_is_loaded_anew_once() -> None:
    """Dreams go on from where they were; a closed one does not come back."""
    made: list[Backend] = []

    def load() -> Backend:
        made.append(counting(end=None))
        return made[-1]

    broken = load()
    starts = [start_of(counted(first, 2), broken.programs, "") for first in (10, 30, 50)]
    engine = DreamEngine(broken, starts, replace(PLAYING, sessions=3), None, load)
    engine.warm_up()
    gone, *players = [player_of(engine.new_dream(number)) for number in range(3)]
    engine.step(players)
    gone.dream.close()

    def fail(feeds: Mapping[str, Any], into: Any = None) -> Any:
        raise RuntimeError("the device is lost")

    broken.engines["count"].run = fail  # type: ignore[method-assign]
    for step in (1, 2):
        levels = [one.dream[0, 0, 0] for one in engine.step(players) if one.fault is None]
        assert levels == [32 + step, 52 + step]
    assert len(made) == 2 and engine.counts.reloaded == 1
    made[1].engines["count"].run = fail  # type: ignore[method-assign]
    assert [str(one.fault) for one in engine.step(players)] == ["the device is lost"] * 2
    assert len(made) == 2


def test_engine_that_cannot_be_loaded_anew_mixes_nobody_up() -> None:
    """The first dream moves, the second one cannot: both stay where they were."""
    broken, other = counting(end=None), counting(end=None)
    starts = [start_of(counted(first, 2), broken.programs, "") for first in (10, 30)]
    engine = DreamEngine(broken, starts, replace(PLAYING, sessions=2), None, lambda: other)
    engine.warm_up()
    players = [player_of(engine.new_dream(number)) for number in (0, 1)]
    run, encode = broken.engines["count"].run, other.engines["see"].run
    places, encoded = [player.dream.place for player in players], 0

    def fail(feeds: Mapping[str, Any], into: Any = None) -> Any:
        raise RuntimeError("the device is lost")

    def once(feeds: Mapping[str, Any], into: Any = None) -> Any:
        nonlocal encoded
        encoded += 1
        return encode(feeds, into) if encoded == 1 else fail(feeds)

    broken.engines["count"].run = fail  # type: ignore[method-assign]
    other.engines["see"].run = once  # type: ignore[method-assign]
    assert all(one.fault is not None for one in engine.step(players))
    assert encoded == 2 and [player.dream.place for player in players] == places
    broken.engines["count"].run = run  # type: ignore[method-assign]
    assert [one.dream[0, 0, 0] for one in engine.step(players)] == [12, 32]


def player_of(dream: Dream) -> Player:
    return Player(secret="", seat=Seat(period=1, due=0), dream=dream, commanded_at=0, painted_at=0)


def test_a_page_that_reads_nothing_is_let_go() -> None:
    engine = DreamEngine(
        counting(end=None), [start_of(counted(10, 2), counting().programs, "")], PLAYING, None
    )
    engine.warm_up()
    player = player_of(engine.new_dream(0))
    for _ in range(200):
        player.post({"kind": "state"})
    assert player.closing == (1001, "the page reads nothing")
    assert player.outbox.qsize() == MOST_WAITING + 2  # the farewell, and the end


def test_who_never_answers_is_forgotten() -> None:
    """A socket that is opened, and then neither read nor closed."""
    with serving(replace(PLAYING, unread=0.5)) as (service, address):
        host, port = address.split(":")
        with socket.create_connection((host, int(port))) as silent:
            silent.sendall(
                f"GET /play?v=1&start=0 HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\n"
                "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
            )
            wait_for(lambda: bool(service.players))
            wait_for(lambda: not service.players)


def test_many_sockets_are_bounded_and_cost_the_others_nothing() -> None:
    with serving(PLAYING) as (service, address):
        page = Page(address)
        host, port = address.split(":")
        with ExitStack() as stack:
            for _ in range(200):
                stack.enter_context(socket.create_connection((host, int(port))))
            before = page.frame()
            assert page.frame(lambda f: f.frame > before.frame + 5).level >= before.level + 6
        assert len(service.players) == 1


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_end_of_the_server_is_told() -> None:
    with serving(PLAYING) as (_, address):
        page = Page(address)
        page.frame()
    assert page.closed() == (1001, "the server ends")


def test_memory_of_rows_comes_back() -> None:
    with serving(replace(PLAYING, resume=0)) as (service, address):
        for _ in range(100):
            page = Page(address)
            page.frame()
            page.socket.close()
        wait_for(lambda: not service.players and not service.schedule.seats)
        assert get(address, "/health").text == "ready\n"
