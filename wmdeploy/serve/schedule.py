"""Whose turn it is: every player has a deadline of its own, and the oldest ones go first.

Rows that are due together run as one batch of at most `chunk`. There is no common tick, which would
let everybody wait for it and then for the whole batch; and nobody catches up: a dream that cannot
keep its rate slows down. Knows no model, no thread and no clock: the time is given.
"""

from dataclasses import dataclass

NEAR = 0.0005  # seconds: due as good as now


@dataclass(eq=False, kw_only=True)
class Seat:
    """A player's place in the schedule.

    Attributes:
        period: seconds between frames.
        due: when its next frame is.
        running: False while paused.
        sent, seen: numbers of frame messages that were made for it, and that its page painted.
        late: frames that were more than a period behind.
    """

    period: float
    due: float
    running: bool = True
    sent: int = 0
    seen: int = 0
    late: int = 0


class Schedule:
    """The seats, and which of them are next.

    Args:
        chunk: the most rows of one batch.
        window: frames that a page may not have painted yet; more are not made for it.
    """

    def __init__(self, chunk: int, window: int = 3) -> None:
        self.chunk, self.window = chunk, window
        self.seats: set[Seat] = set()

    def take(self, now: float) -> list[Seat]:
        """The seats to step now, oldest deadline first; their next deadlines are set."""
        due = [seat for seat in self.seats if self._waits(seat) and seat.due <= now + NEAR]
        batch = sorted(due, key=lambda seat: seat.due)[: self.chunk]
        for seat in batch:
            if now - seat.due > seat.period:
                seat.late += 1
                seat.due = now
            seat.due += seat.period
        return batch

    def next_due(self) -> float | None:
        """When the next seat is due; None while all are paused or do not take their frames."""
        return min((seat.due for seat in self.seats if self._waits(seat)), default=None)

    def resume(self, seat: Seat, now: float) -> None:
        """From now on, without what was missed."""
        seat.running = True
        seat.due = max(seat.due, now)

    def _waits(self, seat: Seat) -> bool:
        return seat.running and seat.sent - seat.seen < self.window
