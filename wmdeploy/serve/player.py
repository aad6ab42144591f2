"""One who plays, and a frame on its way there."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from wmdeploy.errors import BackendError
from wmdeploy.serve.dream import Dream
from wmdeploy.serve.protocol import CLOSE, FrameMessage
from wmdeploy.serve.schedule import Seat

MOST_WAITING = 64  # messages


@dataclass(eq=False, kw_only=True)
class Player:
    """One who plays.

    Attributes:
        secret: who knows it may come back to this dream, and take its recording.
        outbox: messages on their way to the page: bytes, or what becomes JSON; None at the end.
        closing: code and reason with which the connection is to end, once it has `ended`.
        exact: whether its page asks for exact pictures.
        lost_at: when the connection was lost; None while there is one.
        paused: whether the dream stood still then.
    """

    secret: str
    seat: Seat
    dream: Dream
    action: int = 0
    obeyed: int = 0
    commanded_at: float
    painted_at: float
    outbox: asyncio.Queue[bytes | dict[str, Any] | None] = field(default_factory=asyncio.Queue)
    closing: tuple[int, str] | None = None
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    exact: bool = False
    lost_at: float | None = None
    paused: bool = False

    @property
    def running(self) -> bool:
        """Whether the dream goes on by itself, once its page is there."""
        return self.seat.running if self.lost_at is None else not self.paused

    def post(self, message: bytes | dict[str, Any]) -> None:
        """Put a message on its way; a page that lets too many lie is let go."""
        if self.outbox.qsize() < MOST_WAITING:
            self.outbox.put_nowait(message)
        else:
            self.end(CLOSE["going away"], "the page reads nothing")

    def end(self, code: int, reason: str) -> None:
        """The last message, and no other after it."""
        if self.closing is None:
            self.closing = code, reason
            self.seat.running = False
            self.outbox.put_nowait({"kind": "bye", "code": code, "reason": reason})
            self.outbox.put_nowait(None)
            self.ended.set()


class Made:
    """A dream's frame between the engine and its picture: what it was when the engine left it."""

    def __init__(self, player: Player, obeyed: int, rows: int) -> None:
        self.player, self.obeyed, self.rows = player, obeyed, rows
        self.fault: BackendError | None = None
        self.step_seconds = 0.0
        self.look(None)

    def look(self, reward: float | None) -> None:
        dream = self.player.dream
        self.dream, self.real, self.reward = dream.dream, dream.real, reward
        self.action = dream.action
        self.frame, self.depth = dream.frame, dream.depth

    def message(self, dream: bytes, real: bytes, took: float) -> Callable[[int], FrameMessage]:
        wait = max(0.0, time.monotonic() - self.player.seat.due + self.player.seat.period)
        return lambda number: FrameMessage(
            action=self.action,
            rows=self.rows,
            number=number,
            frame=self.frame,
            obeyed=self.obeyed,
            depth=self.depth,
            step_ms=1000 * self.step_seconds,
            picture_ms=1000 * took,
            wait_ms=1000 * wait,
            reward=self.reward,
            dream=dream,
            real=real,
        )
