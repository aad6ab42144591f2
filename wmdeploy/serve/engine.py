"""What the engine's thread does: dreams on a pool of rows, stepped together.

A batch in which a row fails is stepped again row by row. At the first failure of a row alone the
engines are loaded anew, once, as they may be what is broken; who fails then has failed.
"""

import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from wmdeploy.errors import BackendError
from wmdeploy.programs.engine import Backend
from wmdeploy.programs.pool import Pool
from wmdeploy.serve.dream import Dream, Moment
from wmdeploy.serve.game import Game
from wmdeploy.serve.keeper import Saved
from wmdeploy.serve.player import Made, Player
from wmdeploy.serve.protocol import CLOSE, ProtocolError
from wmdeploy.serve.starts import Start
from wmdeploy.text import one_line

MARGIN = 0.7  # of the measured capacity that is given to players
MOST_SESSIONS = 1024


@dataclass(frozen=True, kw_only=True)
class ServiceOptions:
    """How dreams are served.

    Attributes:
        fps: frames per second of a dream, until its player chooses another rate.
        sessions: players at a time; None: as many as the engine was measured to serve.
        chunk: the most rows of a batch.
        window: frames that a page may not have painted yet.
        picture: "png" or "jpeg".
        rewind: seconds that a player can go back.
        recorded: seconds that a recording has.
        resume: seconds for which the dream of a lost connection is kept.
        save: seconds after which players are saved, where there is a keeper.
        idle: seconds without a command after which a player leaves.
        unread: seconds after which a page that paints nothing is let go.
        refill: see `Pool`.
    """

    fps: float = 15
    sessions: int | None = None
    chunk: int = 8
    window: int = 3
    picture: str = "jpeg"
    rewind: float = 0
    recorded: float = 0
    resume: float = 30
    save: float = 1
    idle: float = 300
    unread: float = 20
    refill: int | None = None


@dataclass(kw_only=True)
class Counts:
    """What `/metrics` tells, since the start."""

    frames: int = 0
    batches: int = 0
    refused: int = 0
    failed: int = 0
    reloaded: int = 0
    taken_over: int = 0
    step_seconds: float = 0.0
    picture_seconds: float = 0.0


class DreamEngine:
    """All methods are called in one thread, which is the engine's.

    Args:
        starts: at least one.
        game: makes the real game beside a dream; None for none.
        reload: loads the same backend again; called at the first failure that is nobody's alone.

    Attributes:
        capacity: players at a time; row_seconds: of one frame of one of them. After `warm_up`.
    """

    def __init__(
        self,
        backend: Backend,
        starts: Sequence[Start],
        options: ServiceOptions,
        game: Callable[[], Game] | None,
        reload: Callable[[], Backend] | None = None,
    ) -> None:
        self._reload, self._dreams = reload, weakref.WeakSet[Dream]()
        self.backend, self.programs, self.options = backend, backend.programs, options
        self.starts, self.game, self.counts = tuple(starts), game, Counts()
        self.capacity, self.row_seconds = options.sessions or 1, 0.0
        self._games = 0
        self._pool: Pool

    def warm_up(self) -> None:
        """Run what players will run, and measure it."""
        options, start = self.options, self.starts[0]
        pool = Pool(self.backend, options.chunk, refill=options.refill)
        rows = [pool.add(start.frames, start.actions) for _ in range(options.chunk)]
        action = None if self.programs.action is None else np.zeros(len(rows), np.int64)
        times = []
        for _ in range(6):
            began = time.perf_counter()
            pool.step(rows, action)
            times.append((time.perf_counter() - began) / len(rows))
        pool.close()
        self.row_seconds = sorted(times[1:])[2]
        if options.sessions is None:
            possible = int(MARGIN / self.row_seconds / options.fps)
            self.capacity = max(1, min(MOST_SESSIONS, possible))
        self._pool = Pool(self.backend, self.capacity, refill=options.refill)

    def check_start(self, number: int) -> None:
        """The last start is the game's own where there is one.

        Raises:
            ProtocolError: there is no such start.
        """
        count = len(self.starts) + (self.game is not None)
        if not 0 <= number < count:
            raise ProtocolError(
                CLOSE["bad command"], f"got start {number}, expected one of {count}"
            )

    def check_action(self, action: int) -> None:
        """Raises ProtocolError where the model has no such action."""
        count = max(1, self.programs.num_actions)
        if action >= count:
            raise ProtocolError(
                CLOSE["bad command"], f"got action {action}, expected one of {count}"
            )

    def new_dream(self, start: int) -> Dream:
        game = None if self.game is None else self.game()
        fps = self.options.fps
        kept, recorded = round(self.options.rewind * fps), round(self.options.recorded * fps)
        begun = self._begun(start, game)
        dream = Dream(self._pool, begun, game, kept, recorded)
        self._dreams.add(dream)
        return dream

    def saved(self, player: Player) -> Saved:
        """A player of this moment, for another server."""
        dream, arrays = player.dream, self.backend.arrays
        with arrays.scope():
            moment = _with_arrays(dream.newest, arrays.host)
        return Saved(
            start=self.starts.index(dream.start),
            moment=moment,
            action=player.action,
            obeyed=player.obeyed,
            running=player.running,
            period=player.seat.period,
        )

    def saved_dream(self, saved: Saved) -> Dream:
        """A dream that goes on from a saved one.

        Raises:
            BackendError: it is of another model.
        """
        if saved.start >= len(self.starts):
            raise BackendError("the dream was of another model")
        dream, arrays = self.new_dream(saved.start), self.backend.arrays
        try:
            with arrays.scope():
                moment = _with_arrays(saved.moment, arrays.put)
            dream.jump(moment)
        except BackendError:
            dream.close()
            raise
        return dream

    def restart(self, dream: Dream, number: int) -> None:
        """Begin a dream anew at a start."""
        dream.restart(self._begun(number, dream.game))

    def step(self, batch: list[Player]) -> list[Made]:
        """The next frame of players; where one fails alone, what it `fault`ed with."""
        if not batch:
            return []
        began = time.perf_counter()
        made = [Made(player, player.obeyed, len(batch)) for player in batch]
        actions = [player.action for player in batch]
        try:
            frames = self._imagine(batch, actions)
        except Exception as error:  # runtimes raise what they like
            if len(batch) == 1:
                if self._renewed():
                    return self.step(batch)
                made[0].fault = BackendError(one_line(str(error)) or type(error).__name__)
                return made
            for player in batch:  # half a step has been made of all of them
                player.dream.recover()
            return [one for player in batch for one in self.step([player])]
        rewards = self._rewards(batch)
        for one, frame, action, reward in zip(made, frames, actions, rewards, strict=True):
            one.player.dream.stepped(frame, action)
            one.look(reward)
        took = time.perf_counter() - began
        for one in made:
            one.step_seconds = took
        self.counts.batches += 1
        self.counts.frames += len(batch)
        self.counts.step_seconds += took
        return made

    def _renewed(self) -> bool:
        """Load the engines anew, once; all dreams go on from where they were."""
        reload, self._reload = self._reload, None
        if reload is None:
            return False
        self.counts.reloaded += 1
        places = [(dream, dream.place) for dream in self._dreams]
        try:
            backend = reload()
            pool = Pool(backend, self.capacity, refill=self.options.refill)
            for dream, _ in places:
                dream.move(pool)
        except Exception:  # what failed before fails again; who was moved goes back
            for dream, place in places:
                dream.place = place
            return False
        self.backend, self._pool = backend, pool
        return True

    def _imagine(self, batch: list[Player], actions: list[int]) -> np.ndarray:
        rows = [player.dream.row for player in batch]
        if self.programs.action is None:
            return self._pool.step(rows)
        return self._pool.step(rows, np.array(actions))

    def _rewards(self, batch: list[Player]) -> Sequence[float | None]:
        if not any(spec.name == "reward" for spec in self.programs.outputs):
            return [None] * len(batch)
        values = self._pool.outputs([player.dream.row for player in batch])["reward"]
        return [float(value) for value in values.reshape(len(batch))]

    def _begun(self, number: int, game: Game | None) -> Start:
        """A start; the one behind all others is of the real game itself."""
        if game is None:
            return self.starts[number]
        self._games += 1
        begun = game.begin(self._games, len(self.starts[0].frames))
        return begun if number == len(self.starts) else self.starts[number]


def _with_arrays(moment: Moment, convert: Callable[[Any], Any]) -> Moment:
    """A moment with its row on the host, or where the backend has it."""
    snapshot = moment.snapshot
    state = {name: convert(array) for name, array in snapshot.state.items()}
    window = {name: convert(array) for name, array in snapshot.window.items()}
    return replace(moment, snapshot=replace(snapshot, state=state, window=window))
