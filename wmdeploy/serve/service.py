"""Players, the schedule and the engine, in one event loop with two threads beside it.

One thread has the engine and all dreams; one makes pictures. Everything else is the loop's.
"""

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from wmdeploy.errors import BackendError, WmdeployError
from wmdeploy.programs.engine import Backend
from wmdeploy.serve.dream import Dream
from wmdeploy.serve.engine import DreamEngine, ServiceOptions
from wmdeploy.serve.game import Game
from wmdeploy.serve.keeper import Figures, Handover, Saved
from wmdeploy.serve.player import Made, Player
from wmdeploy.serve.protocol import CLOSE, Command, FrameMessage, ProtocolError
from wmdeploy.serve.schedule import Schedule, Seat
from wmdeploy.serve.starts import Start, picture

log = logging.getLogger("wmdeploy.serve")
MOST_RATE = 60  # frames per second
T = TypeVar("T")


class FullError(WmdeployError):
    """There is no room for another player."""


class Service:
    """All who play on one engine.

    Args:
        backend: the engines; they belong to the service's own thread from now on.
        starts: at least one.
        game: makes the real game beside a dream; None for none.
        reload: see `DreamEngine`.
        handover: with which players can go on at another server; only without a game.
    """

    def __init__(
        self,
        backend: Backend,
        starts: Sequence[Start],
        options: ServiceOptions,
        game: Callable[[], Game] | None = None,
        *,
        reload: Callable[[], Backend] | None = None,
        handover: Handover | None = None,
    ) -> None:
        assert game is None or handover is None, "another server has another game"
        self.handover = handover or Handover()
        self.engine = DreamEngine(backend, starts, options, game, reload)
        self.options, self.counts = options, self.engine.counts
        self.schedule = Schedule(options.chunk, options.window)
        self.players: dict[str, Player] = {}
        self.ready = self.stopping = False
        self._thread = ThreadPoolExecutor(1, "engine")
        self._pictures = ThreadPoolExecutor(1, "pictures")
        self._woken = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._joining = 0
        self._coming_back: set[str] = set()
        self._lost = asyncio.Event()

    def prepare(self) -> None:
        """Warm up, and measure how many players there is room for; before the loop runs.

        Raises:
            BackendError: the engines do not run, or not with these options.
        """
        self._thread.submit(self.engine.warm_up).result()

    async def start(self) -> None:
        """Begin, once prepared."""
        self.ready = True
        self._tasks = [asyncio.create_task(self._run()), asyncio.create_task(self._watch())]
        if self.handover.keeper is not None:
            self._tasks.append(asyncio.create_task(self._save()))

    async def stop(self, grace: float = 5) -> None:
        """Say farewell to all players, and end."""
        self.ready, self.stopping = False, True
        for player in list(self.players.values()):
            self.dismiss(player, "going away", "the server ends")
        deadline = time.monotonic() + grace
        while self.players and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._thread.shutdown()
        self._pictures.shutdown()

    async def join(self, start: int, running: bool = True) -> Player:
        """A new player, at one of the starts; the last one is the game's own where there is one.

        Args:
            running: False for a dream that stands still until its page sends `resume`.

        Raises:
            FullError: there is no room.
            ProtocolError: there is no such start.
        """
        self.engine.check_start(start)
        dream = await self._in_room(self.engine.new_dream, start)
        return await self._enter(self._player(secrets.token_urlsafe(16), dream, running))

    async def comeback(self, secret: str) -> Player | None:
        """The player of a lost connection, if its dream is still there, or was saved.

        Raises:
            FullError: it was another server's, and there is no room here.
        """
        player = self.players.get(secret)
        connected = player is not None and player.lost_at is None
        if not secret or connected or secret in self._coming_back:
            return None
        self._coming_back.add(secret)
        try:
            if player is None and self.handover.keeper is not None:
                self._make_room()
            saved = await self.handover.take(secret)
            if saved is not None:
                return await self._take_over(secret, saved)
            return self._come_back(secret)
        finally:
            self._coming_back.discard(secret)

    def _come_back(self, secret: str) -> Player | None:
        player = self.players.get(secret)
        if player is None or player.lost_at is None or player.closing is not None:
            return None
        now = time.monotonic()
        player.lost_at, player.outbox = None, asyncio.Queue()
        player.commanded_at = player.painted_at = now
        player.seat.seen = player.seat.sent
        if not player.paused:
            self.schedule.resume(player.seat, now)
            self._woken.set()
        self._tell(player)
        return player

    async def _take_over(self, secret: str, saved: Saved) -> Player | None:
        """Go on with a player of another server."""
        if secret in self.players:  # it has been there and back
            self._drop(self.players[secret])
        try:
            dream = await self._in_room(self.engine.saved_dream, saved)
        except BackendError as error:
            log.warning("not taken over", extra={"reason": str(error)})
            return None
        player = self._player(secret, dream, saved.running)
        player.action, player.obeyed = saved.action, saved.obeyed
        player.seat.period = saved.period
        self.counts.taken_over += 1
        return await self._enter(player)

    def _make_room(self) -> None:
        """For another player, if need be by who is lost the longest."""
        lost = [player for player in self.players.values() if player.lost_at is not None]
        if lost and len(self.players) + self._joining >= self.engine.capacity:
            self._forget(min(lost, key=lambda player: player.lost_at or 0))
        if len(self.players) + self._joining >= self.engine.capacity or self.stopping:
            self.counts.refused += 1
            raise FullError(f"full: {len(self.players)} are playing; try again later")

    async def _in_room(self, make: Callable[..., Dream], *arguments: Any) -> Dream:
        """A dream for another player."""
        self._make_room()
        self._joining += 1
        try:
            return await self._in_engine(make, *arguments)
        finally:
            self._joining -= 1

    def _player(self, secret: str, dream: Dream, running: bool) -> Player:
        now = time.monotonic()
        seat = Seat(period=1 / self.options.fps, due=now, running=running)
        return Player(secret=secret, seat=seat, dream=dream, commanded_at=now, painted_at=now)

    async def _enter(self, player: Player) -> Player:
        self.players[player.secret] = player
        await self._deliver([Made(player, player.obeyed, 1)])
        self._tell(player)
        self.schedule.seats.add(player.seat)
        self._woken.set()
        log.info("joined", extra={"players": len(self.players)})
        return player

    def figures(self) -> Figures:
        """What `/metrics` tells, by name; see `METRICS` of the application."""
        return {
            "sessions": len(self.players),
            "sessions_most": self.engine.capacity,
            "late": sum(player.seat.late for player in self.players.values()),
            **{f"{name}_total": value for name, value in vars(self.counts).items()},
        }

    def lose(self, player: Player, left: bool) -> None:
        """Its connection is gone; unless it `left`, the dream waits for `resume` seconds."""
        player.lost_at = time.monotonic()
        player.paused, player.seat.running = not player.seat.running, False
        self._lost.set()
        if left or player.closing is not None:
            self._forget(player)

    def dismiss(self, player: Player, code: str, reason: str) -> None:
        """End a player's connection."""
        player.end(CLOSE[code], reason)
        if player.lost_at is not None:
            self._forget(player)

    async def obey(self, player: Player, command: Command) -> None:
        """Do what a page asks for.

        Raises:
            ProtocolError: it asks for what no page of ours would.
        """
        seat, now = player.seat, time.monotonic()
        numbers = command.numbers
        if command.name == "seen":
            seat.seen = max(seat.seen, min(numbers[0], seat.sent))
            player.painted_at = now
            self._woken.set()
            return
        player.commanded_at = now
        if command.name == "keys":
            self.engine.check_action(numbers[0])
            player.action, player.obeyed = numbers
        elif command.name == "pause":
            seat.running = False
            self._tell(player)
        elif command.name == "resume":
            self.schedule.resume(seat, now)
            self._woken.set()
            self._tell(player)
        elif command.name == "rate":
            if not 1 <= numbers[0] <= MOST_RATE:
                raise ProtocolError(CLOSE["bad command"], f"got {numbers[0]} frames per second")
            seat.period = 1 / numbers[0]
        elif command.name == "step":
            self.engine.check_action(numbers[0])
            player.action = numbers[0]
            if not seat.running:
                await self._deliver(await self._in_engine(self.engine.step, [player]))
        else:
            await self._change(player, command)

    async def _change(self, player: Player, command: Command) -> None:
        """What makes the dream another one."""
        dream, (number,) = player.dream, (*command.numbers, 0)[:1]
        if command.name == "start":
            self.engine.check_start(number)
        changes: dict[str, Callable[[], Any]] = {
            "start": lambda: self.engine.restart(dream, number),
            "rewind": lambda: dream.rewind(number),
            "keep": dream.keep,
            "go": lambda: dream.go(number),
            "sync": dream.sync,
        }

        def change() -> list[Made]:
            changes[command.name]()
            return [] if command.name == "keep" else [Made(player, player.obeyed, 1)]

        try:
            await self._deliver(await self._in_engine(change))
        except BackendError as error:
            player.post({"kind": "error", "message": str(error)})
            return
        self._tell(player)

    def _tell(self, player: Player) -> None:
        """The page's buttons follow this."""
        dream = player.dream
        player.post(
            {
                "kind": "state",
                "running": player.seat.running,
                "frame": dream.frame,
                "oldest": dream.oldest,
                "branches": [moment.frame for moment in dream.branches],
            }
        )

    async def _run(self) -> None:
        """Step who is due, for ever."""
        while True:
            seats = self.schedule.take(time.monotonic())
            if not seats:
                due = self.schedule.next_due()
                wait = None if due is None else max(0, due - time.monotonic())
                try:
                    await asyncio.wait_for(self._woken.wait(), wait)
                except TimeoutError:
                    pass
                self._woken.clear()
                continue
            of_seat = {player.seat: player for player in self.players.values()}
            batch = [of_seat[seat] for seat in seats if seat in of_seat]
            try:
                await self._deliver(await self._in_engine(self.engine.step, batch))
            except Exception:  # the others, and who joins, are still served
                log.exception("failed")
                for player in batch:
                    self.dismiss(player, "engine failed", "the server failed; its log says why")

    async def _watch(self) -> None:
        """Let players go who do nothing, paint nothing, or do not come back."""
        options = self.options
        while True:
            await asyncio.sleep(0.25)
            now = time.monotonic()
            for player in list(self.players.values()):
                seat = player.seat
                waiting = seat.running and seat.sent - seat.seen >= options.window
                if player.lost_at is not None:
                    if now - player.lost_at > options.resume:
                        self._forget(player)
                elif waiting and now - player.painted_at > options.unread:
                    self.dismiss(player, "going away", "the page paints no frames")
                elif now - player.commanded_at > options.idle:
                    self.dismiss(player, "idle", f"nothing was pressed for {options.idle:g} s")

    async def _save(self) -> None:
        """Save all players, and what is counted, for ever; at once where one was lost."""
        while True:
            self._lost.clear()
            players = list(self.players.values())
            saved = await self._in_engine(self._saved, players)
            for secret in await self.handover.save(saved, self.figures()):
                player = self.players.get(secret)
                if player is not None and player.lost_at is None:
                    self.dismiss(player, "going away", "another server goes on with this dream")
                elif player is not None:
                    self._drop(player)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._lost.wait(), self.options.save)

    def _saved(self, players: list[Player]) -> dict[str, Saved]:
        return {one.secret: self.engine.saved(one) for one in players if one.closing is None}

    def _forget(self, player: Player) -> None:
        """The player has left, and comes back to no server."""
        if self._drop(player):
            self.handover.forget(player.secret)

    def _drop(self, player: Player) -> bool:
        """The player is not here any more; False: it was not."""
        if self.players.pop(player.secret, None) is not None:
            self.schedule.seats.discard(player.seat)
            self._thread.submit(player.dream.close)
            log.info("left", extra={"players": len(self.players)})
            return True
        return False

    async def _deliver(self, made: list[Made]) -> None:
        """Pictures of what was made, on their way to the pages."""
        for player, message in await self._in_pictures(self._messages, made):
            if isinstance(message, BackendError):
                self.counts.failed += 1
                log.warning("failed", extra={"reason": str(message)})
                self.dismiss(player, "engine failed", str(message))
                continue
            player.seat.sent += 1
            player.post(bytes(message(player.seat.sent)))

    def _messages(
        self, made: list[Made]
    ) -> list[tuple[Player, BackendError | Callable[[int], FrameMessage]]]:
        """In the thread of pictures."""
        messages: list[tuple[Player, BackendError | Callable[[int], FrameMessage]]] = []
        for one in made:
            if one.fault is not None:
                messages.append((one.player, one.fault))
                continue
            began = time.perf_counter()
            kind = "png" if one.player.exact else self.options.picture
            dream = picture(one.dream, kind)
            real = b"" if one.real is None else picture(one.real, kind)
            took = time.perf_counter() - began
            self.counts.picture_seconds += took
            messages.append((one.player, one.message(dream, real, took)))
        return messages

    async def _in_engine(self, work: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)

    async def _in_pictures(self, work: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pictures, work, *arguments)
