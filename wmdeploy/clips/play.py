"""Play an Atari game with a random policy: `ALE/<Game>-v5` through gymnasium.

The games and their emulator come with ale-py (the Arcade Learning Environment, Bellemare et al.,
2013; sticky actions as in Machado et al., 2018, arXiv:1709.06009). Knows no files.
"""

import difflib
import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from wmdeploy.clips.fit import area_resize
from wmdeploy.errors import ClipError, require

_LONGEST_HOLD = 8  # decisions for which the policy keeps an action, at most
_FIRE_PRESSES = 2  # decisions of FIRE when a life begins: many games wait for it
POLICY = f"random, holding each action for 1 to {_LONGEST_HOLD} decisions"


class Player:
    """Plays episode after episode.

    Keeps the actions, rewards, ends and score of the clip being played, and in `final` the picture
    behind its last frame where the episode ended; see `clip.Outcomes`.
    """

    def __init__(self, game: Any, seed: int, size: int) -> None:
        self.meanings: tuple[str, ...] = tuple(game.unwrapped.get_action_meanings())
        self.episode = -1
        self.over = True
        self.actions: list[int] = []
        self.rewards: list[float] = []
        self.ends: list[bool] = []
        self.final: np.ndarray | None = None
        self.score = 0.0
        self._screen = np.empty(0, np.uint8)  # set when an episode begins
        self._lives = 0
        self._game = game
        self._seed = seed
        self._size = size
        self._policy = HoldingPolicy(self.meanings, seed)

    def play(self, limit: int) -> Iterator[np.ndarray]:
        """Yield up to `limit` frames (size, size, 3) uint8 of one episode, or less where it ends.

        The picture after the last action is not a frame: no action is taken there.
        """
        if self.over:
            self._begin_episode()
        self.actions, self.rewards, self.ends = [], [], []
        self.final, self.score = None, 0.0
        while len(self.actions) < limit and not self.over:
            action = self._policy.choose()
            yield area_resize(self._screen, self._size)
            self.actions.append(action)
            self._screen, reward, ended, truncated, info = self._game.step(action)
            self.rewards.append(float(reward))
            self.ends.append(bool(ended))
            if ended:
                self.final = area_resize(self._screen, self._size)
            self.score += float(reward)
            self.over = ended or truncated
            if info["lives"] < self._lives:
                self._policy.begin_life()
            self._lives = info["lives"]

    def _begin_episode(self) -> None:
        # Seeded once: later episodes go on from the emulator's state, or all would be the same.
        seed = self._seed if self.episode < 0 else None
        self._screen, info = self._game.reset(seed=seed)
        self._lives = info["lives"]
        self._policy.begin_life()
        self.episode += 1
        self.over = False


class HoldingPolicy:
    """Random actions, each held for a few decisions: a new one every frame would go nowhere."""

    def __init__(self, meanings: tuple[str, ...], seed: int) -> None:
        self._count = len(meanings)
        self._fire = meanings.index("FIRE") if "FIRE" in meanings else None
        self._random = np.random.default_rng(seed)
        self._action = 0
        self._left = 0

    def begin_life(self) -> None:
        if self._fire is not None:
            self._action, self._left = self._fire, _FIRE_PRESSES

    def choose(self) -> int:
        if self._left == 0:
            self._action = int(self._random.integers(self._count))
            self._left = int(self._random.integers(1, _LONGEST_HOLD + 1))
        self._left -= 1
        return self._action


def open_game(name: str, frame_skip: int, stickiness: float, all_actions: bool) -> Any:
    """Make the gymnasium environment of a game, quietly.

    Args:
        all_actions: the 18 actions that all games share, instead of those that do something in
            this one.

    Raises:
        ClipError: the game is unknown.
        WmdeployError: gymnasium or ale-py is missing.
    """
    purpose = "recording a game"
    gymnasium = require("gymnasium", extra="train", purpose=purpose)
    ale_py = require("ale_py", extra="train", purpose=purpose)
    # Before the first game is made: its constructor prints a banner and only then turns quiet.
    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
    gymnasium.register_envs(ale_py)
    registered = [name for name in gymnasium.registry if name.startswith("ALE/")]
    return gymnasium.make(
        _find_game(name, registered),
        frameskip=frame_skip,
        repeat_action_probability=stickiness,
        full_action_space=all_actions,
        disable_env_checker=True,
    )


def _find_game(game: str, registered: list[str]) -> str:
    """The registered name of a game: "ms_pacman" -> "ALE/MsPacman-v5"."""
    names = {_plain(name): name for name in registered}
    plain = _plain(game)
    if plain in names:
        return names[plain]
    close = [names[match] for match in difflib.get_close_matches(plain, names, n=3, cutoff=0.5)]
    titles = ", ".join(name.removeprefix("ALE/").removesuffix("-v5") for name in close)
    hint = f"did you mean {titles}?" if close else "such as Pong, Boxing, Riverraid or MsPacman"
    raise ClipError(f"game {game!r} is unknown, expected one of {len(names)} Atari games: {hint}")


def _plain(name: str) -> str:
    name = name.lower().removeprefix("ale/").removesuffix("-v5")
    return re.sub(r"[^a-z0-9]", "", name)
