"""What several servers of one model share: their players' newest moments, and what each counts.

A server saves all its players every second. One that is lost takes none of them along: their pages
come back to another server, which takes them over from here.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar

from wmdeploy.serve.dream import Moment
from wmdeploy.text import one_line

log = logging.getLogger("wmdeploy.serve")
T = TypeVar("T")
Figures = dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Saved:
    """A player, as another server goes on with it. What could be gone back to is not saved.

    Attributes:
        start: number of the start that the dream began at.
        moment: the dream's newest, its arrays on the host.
        action, obeyed, running: as in `Player` and `Seat`; period: seconds between frames.
    """

    start: int
    moment: Moment
    action: int
    obeyed: int
    running: bool
    period: float


class Keeper(Protocol):
    """The shared memory, as a server sees it. What it raises, a server logs, and goes on."""

    async def save(self, server: str, players: Mapping[str, Saved], figures: Figures) -> list[str]:
        """Save players of a server by their secrets; gives those who are another's by now."""
        ...

    async def take(self, server: str, secret: str) -> Saved | None:
        """Let a player of another server be this one's; None: it is this one's, or nobody's."""
        ...

    async def forget(self, server: str, secret: str) -> None:
        """The player has left this server, and comes back to none."""
        ...

    async def figures(self) -> dict[str, Figures]:
        """What each server counts, by its name."""
        ...


@dataclass
class _Entry:
    server: str
    saved: Saved
    at: float


class Memory:
    """A keeper in the memory of one process; its methods are those of `Keeper`, without waiting.

    Args:
        patience: seconds for which players, and figures, of a server that is lost are kept.
    """

    def __init__(self, patience: float = 30, clock: Callable[[], float] = time.monotonic) -> None:
        self._patience, self._clock = patience, clock
        self._players: dict[str, _Entry] = {}
        self._figures: dict[str, tuple[Figures, float]] = {}

    def save(self, server: str, players: Mapping[str, Saved], figures: Figures) -> list[str]:
        now = self._clock()
        self._drop_old(now)
        self._figures[server] = figures, now
        others = []
        for secret, saved in players.items():
            entry = self._players.get(secret)
            if entry is not None and entry.server != server:
                others.append(secret)
            else:
                self._players[secret] = _Entry(server, saved, now)
        return others

    def take(self, server: str, secret: str) -> Saved | None:
        self._drop_old(self._clock())
        entry = self._players.get(secret)
        if entry is None or entry.server == server:
            return None
        entry.server = server
        return entry.saved

    def forget(self, server: str, secret: str) -> None:
        entry = self._players.get(secret)
        if entry is not None and entry.server == server:
            del self._players[secret]

    def figures(self) -> dict[str, Figures]:
        self._drop_old(self._clock())
        return {server: figures for server, (figures, _) in self._figures.items()}

    def _drop_old(self, now: float) -> None:
        oldest = now - self._patience
        self._players = {s: entry for s, entry in self._players.items() if entry.at >= oldest}
        self._figures = {s: pair for s, pair in self._figures.items() if pair[1] >= oldest}


class Handover:
    """What one server has with the keeper. A keeper that fails is a line in the log.

    Args:
        keeper: None where there is no other server.
        name: of this server.
    """

    def __init__(self, keeper: Keeper | None = None, name: str = "") -> None:
        self.keeper, self.name = keeper, name
        self._forgetting: set[asyncio.Task[None]] = set()

    async def take(self, secret: str) -> Saved | None:
        """A player of another server, which is this one's now."""
        if self.keeper is None:
            return None
        return await self._asked(self.keeper.take(self.name, secret))

    async def save(self, players: Mapping[str, Saved], figures: Figures) -> list[str]:
        """Save players; gives those who are another server's by now."""
        if self.keeper is None:
            return []
        return await self._asked(self.keeper.save(self.name, players, figures)) or []

    def forget(self, secret: str) -> None:
        if self.keeper is not None:
            task = asyncio.create_task(self._asked(self.keeper.forget(self.name, secret)))
            self._forgetting.add(task)
            task.add_done_callback(self._forgetting.discard)

    async def figures(self, own: Figures) -> dict[str, Figures]:
        """What each server counts, by its name."""
        others = None if self.keeper is None else await self._asked(self.keeper.figures())
        return {**(others or {}), self.name: own}

    async def _asked(self, question: Awaitable[T]) -> T | None:
        try:
            return await question
        except Exception as error:  # of whatever carries the question
            log.warning("keeper failed", extra={"reason": one_line(str(error))})
            return None
