"""One player's dream: a row of the pool, the real game beside it, and the way back.

All of it belongs to the engine's thread.
"""

from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np

from wmdeploy.errors import BackendError
from wmdeploy.programs.pool import Pool
from wmdeploy.programs.rollouts import Snapshot
from wmdeploy.serve.game import Game
from wmdeploy.serve.starts import Start

MOST_BRANCHES = 8
STREAM = 0  # of noise, of every dream: a start and what is done there say all that follows


@dataclass(frozen=True, kw_only=True)
class Moment:
    """All that a dream is at one frame.

    Attributes:
        frame: since the start; depth: since the last real frame.
        dream, real: the pictures then, (H, W, 3) uint8.
        game: the emulator's state.
    """

    frame: int
    depth: int
    snapshot: Snapshot
    dream: np.ndarray
    real: np.ndarray | None
    game: Any


@dataclass(frozen=True, eq=False)
class Taken:
    """One frame of the record: what was done, and what was dreamt and real then."""

    action: int
    dream: np.ndarray
    real: np.ndarray | None


class Dream:
    """A dream that begins at a start.

    Args:
        game: the real one, which goes along where the start is its own.
        kept: moments that can be gone back to; 0 where nobody may.
        recorded: newest frames that a recording has; 0 for none.

    Attributes:
        frame, depth, dream, real: as in `Moment`; action: that led to this frame.
        start: that it began at; live: whether the real game goes along.
    """

    def __init__(self, pool: Pool, start: Start, game: Game | None, kept: int, recorded: int):
        self._pool, self.game = pool, game
        self.start, self._closed = start, False
        self.row = pool.add(start.frames, start.actions, stream=STREAM)
        self.branches: list[Moment] = []
        self._moments: deque[Moment] = deque(maxlen=max(1, kept))  # the newest is now
        self.taken: deque[Taken] = deque(maxlen=recorded)
        self._begin(start)

    @property
    def oldest(self) -> int:
        """The first frame that can be gone back to."""
        return self._moments[0].frame

    @property
    def newest(self) -> Moment:
        """What it is now."""
        return self._moments[-1]

    def restart(self, start: Start) -> None:
        """Begin anew.

        Raises:
            BackendError: the start does not fit the model; the dream is as it was.
        """
        self._pool.reset([self.row], start.frames, start.actions, [STREAM])
        self.start = start
        self._begin(start)

    def _begin(self, start: Start) -> None:
        self.frame, self.depth, self.action = 0, 0, 0
        self.dream = start.frames[-1]
        self.live = self.game is not None and start.live
        self.real = start.frames[-1] if self.live else None
        self._moments.clear()
        self.branches.clear()
        self.taken.clear()
        self._note()

    def stepped(self, frame: np.ndarray, action: int) -> None:
        """The pool has imagined this frame, after this action; the real game takes it, too."""
        self.frame, self.depth, self.dream = self.frame + 1, self.depth + 1, frame
        self.action = action
        if self.game is not None and self.live:
            self.real = self.game.step(action)
        if self.taken.maxlen:
            self.taken.append(Taken(action, self.dream, self.real))
        self._note()

    def rewind(self, frame: int) -> None:
        """Back to the newest moment that is not after `frame`.

        Raises:
            BackendError: none is left of then.
        """
        if frame < self.oldest:
            raise BackendError(f"rewind: got frame {frame}, expected {self.oldest} or later")
        while self._moments[-1].frame > frame:
            self._moments.pop()
        self._return(self.newest)

    def keep(self) -> int:
        """Keep what is now as a branch; its number.

        Raises:
            BackendError: there are `MOST_BRANCHES`.
        """
        if len(self.branches) >= MOST_BRANCHES:
            raise BackendError(f"got branch {MOST_BRANCHES + 1}, expected {MOST_BRANCHES} at most")
        self.branches.append(self.newest)
        return len(self.branches) - 1

    def go(self, branch: int) -> None:
        """On from a branch.

        Raises:
            BackendError: there is no such branch.
        """
        if not 0 <= branch < len(self.branches):
            count = len(self.branches)
            raise BackendError(f"got branch {branch}, expected one of {count}")
        self.jump(self.branches[branch])

    def jump(self, moment: Moment) -> None:
        """On from a moment, of this dream or of another one of the same model."""
        self._return(moment)
        self._moments.clear()
        self._moments.append(moment)

    def sync(self) -> None:
        """The real game's newest frame takes the place of the dream's.

        Raises:
            BackendError: there is no game, or it has no frame that the dream could follow.
        """
        if self.real is None:
            raise BackendError("there is no real game beside this dream")
        if self.frame == 0 or self.depth == 0:
            return
        self._pool.observe([self.row], self.real)
        self.dream, self.depth = self.real, 0
        self._moments.pop()
        self._note()

    def recover(self) -> None:
        """The row is what it was at this frame, whatever a step that failed left of it."""
        self._pool.restore(self.row, self.newest.snapshot)

    def move(self, pool: Pool) -> None:
        """Go on in another pool of the same model."""
        if self._closed:
            return
        self.place = pool, pool.add(self.start.frames, self.start.actions, stream=STREAM)
        self.recover()

    @property
    def place(self) -> tuple[Pool, int]:
        """Its pool, and the row there."""
        return self._pool, self.row

    @place.setter
    def place(self, place: tuple[Pool, int]) -> None:
        self._pool, self.row = place

    def close(self) -> None:
        self._closed = True
        self._pool.remove(self.row)
        if self.game is not None:
            self.game.close()

    def _note(self) -> None:
        """Keep what is now."""
        moment = Moment(
            frame=self.frame,
            depth=self.depth,
            snapshot=self._pool.snapshot(self.row),
            dream=self.dream,
            real=self.real,
            game=self.game.state() if self.game is not None and self.live else None,
        )
        self._moments.append(moment)

    def _return(self, moment: Moment) -> None:
        self._pool.restore(self.row, moment.snapshot)
        if self.game is not None and self.live:
            self.game.restore(moment.game)
        undone = self.frame - moment.frame
        for _ in range(min(max(0, undone), len(self.taken))):
            self.taken.pop()
        self.frame, self.depth = moment.frame, moment.depth
        self.dream, self.real = moment.dream, moment.real
