"""The real game, played with the keys of a dream."""

from typing import Any

import numpy as np

from wmdeploy.clips.fit import area_resize
from wmdeploy.clips.play import HoldingPolicy, open_game
from wmdeploy.errors import ClipError
from wmdeploy.serve.starts import Start

WARM_UP = (20, 120)  # decisions of a random policy before a start: at least, and fewer than


class Game:
    """An emulator beside a dream, without sticky actions, which would make the two differ.

    Args:
        name: as `wmdeploy record` takes it.
        size: of a frame, which is the screen resized by area, as recorded clips are.
        frame_skip: emulator frames for each of ours.
        num_actions: of the model: the game's own, or the 18 that all games share.

    Raises:
        ClipError: the game is unknown, or has another number of actions.
        WmdeployError: gymnasium or ale-py is missing.
    """

    def __init__(self, name: str, size: int, frame_skip: int, num_actions: int) -> None:
        self._game = open_game(name, frame_skip, 0.0, all_actions=False)
        if len(self.meanings) != num_actions:
            self._game.close()
            own = len(self.meanings)
            self._game = open_game(name, frame_skip, 0.0, all_actions=True)
            if len(self.meanings) != num_actions:
                raise ClipError(
                    f"game {name}: has {own} actions, or all {len(self.meanings)}; the model takes "
                    f"{num_actions}; name the game that it was trained on"
                )
        self._size = size
        self._screen = np.empty(0, np.uint8)

    @property
    def meanings(self) -> tuple[str, ...]:
        """What each action is, such as "NOOP" or "UPFIRE"."""
        return tuple(self._game.unwrapped.get_action_meanings())

    @property
    def frame(self) -> np.ndarray:
        """(size, size, 3) uint8."""
        return area_resize(self._screen, self._size)

    def begin(self, seed: int, context: int) -> Start:
        """A new game, played by a random policy for a while; its newest frames are a start."""
        policy = HoldingPolicy(self.meanings, seed)
        warm_up = int(np.random.default_rng(seed).integers(*WARM_UP))
        self._screen, _ = self._game.reset(seed=seed)
        policy.begin_life()
        frames, actions = [self.frame], []
        for _ in range(warm_up + context - 1):
            actions.append(policy.choose())
            frames.append(self.step(actions[-1]))
        taken = np.array(actions[len(actions) - context + 1 :], np.int64)
        return Start("the game, now", np.stack(frames[-context:]), taken, live=True)

    def step(self, action: int) -> np.ndarray:
        """The next frame; behind the end of a game comes the first frame of another."""
        self._screen, _, ended, cut, _ = self._game.step(action)
        if ended or cut:
            self._screen, _ = self._game.reset()
        return self.frame

    def state(self) -> Any:
        """All of it, for `restore`."""
        return self._game.unwrapped.clone_state(include_rng=True), self._screen

    def restore(self, state: Any) -> None:
        emulator, self._screen = state
        self._game.unwrapped.restore_state(emulator)

    def close(self) -> None:
        self._game.close()
