"""One who plays, and a frame on its way there."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from wmdeploy.errors import BackendError
from wmdeploy.serve.dream import Dream
from wmdeploy.serve.protocol import FrameMessage
from wmdeploy.serve.schedule import Seat


@dataclass(eq=False, kw_only=True)
class Player:
    """One who plays.

    Attributes:
        secret: who knows it may come back to this dream, and take its recording.
        outbox: messages on their way to the page: bytes, or what becomes JSON; None at the end.
        closing: code and reason with which the connection is to end.
        lost_at: when the connection was lost; None while there is one.
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
    lost_at: float | None = None


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
