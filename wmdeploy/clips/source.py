"""What every reader of one kind of clip offers, and how a user may ask for clips to be read.

Knows no kind of file.
"""

import math
from collections.abc import Generator
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from wmdeploy.clips.clip import Outcomes, described
from wmdeploy.errors import ClipError

Fit = Literal["squeeze", "crop", "pad"]


@dataclass(frozen=True)
class ReadOptions:
    """How clips are read. The defaults take what is there as it is.

    Attributes:
        fps: frames per second to take from a video, by the times at which they are shown: dropped
            frames are repeated, frames in between left out. None: every frame once.
        fit: how a frame becomes a square. "squeeze" scales both sides, "crop" cuts the longer side
            off around the middle, "pad" puts black beside the shorter one.
        series: which pictures of a folder, or array of a file, that holds several series of
            frames, such as "rgb".

    Raises:
        ClipError: a value is outside its range.
    """

    fps: float | None = None
    fit: Fit = "squeeze"
    series: str | None = None

    def __str__(self) -> str:
        """The options that differ from the defaults, as a command line gives them."""
        given = (("--fps", self.fps), ("--fit", self.fit), ("--series", self.series))
        options = [f"{option} {value}" for option, value in given if value not in (None, "squeeze")]
        return " ".join(options)

    def __post_init__(self) -> None:
        if self.fps is not None and not (math.isfinite(self.fps) and 0.01 <= self.fps <= 1000):
            raise ClipError(f"fps: got {self.fps}, expected 0.01 to 1000 frames per second")
        if self.fit not in get_args(Fit):
            raise ClipError(f"fit: got {self.fit!r}, expected {', '.join(get_args(Fit))}")


AS_IS = ReadOptions()


@dataclass(frozen=True, eq=False)
class Timeline:
    """When the T frames of a clip are shown.

    Attributes:
        ticks: (T + 1,) int64, rising: the start of each frame, and the end of the last.
        tick: seconds in one tick. Stamps are rounded to it.
    """

    ticks: np.ndarray
    tick: Fraction


class Source:
    """One clip on disk. Every method may raise ClipError.

    Attributes:
        path: what to call it in messages.
        notes: what a user should know, for `Clip.notes`; complete once frames and actions are read.
        pixel_aspect: width of a pixel over its height, as the clip is shown.
        is_animation: its frames are shown for different times on purpose, as those of a GIF.
    """

    pixel_aspect: float = 1.0
    is_animation: bool = False

    def __init__(self, path: Path) -> None:
        self.path = path
        self.notes: list[str] = []

    def count(self) -> int:
        """How many frames there are."""
        raise NotImplementedError

    def fps(self) -> float:
        """Frames per second; 30 where nothing tells."""
        return 30.0

    def frames(self, start: int) -> Generator[np.ndarray, None, None]:
        """The frames from `start` on, (H, W, 3) uint8, decoded as they are taken."""
        raise NotImplementedError

    def actions(self) -> np.ndarray | None:
        """The actions of all frames, (T,) int64 or (T, n) float32, or None."""
        return None

    def integer_actions(self) -> np.ndarray | None:
        """The same for what takes no floats, (T,) int64 or None."""
        actions = self.actions()
        if actions is not None and actions.dtype != np.int64:
            raise ClipError(
                f"{self.path}: got actions {described(actions)}, expected an index for each frame, "
                f"int64 ({len(actions)},); use other clips, or train without actions"
            )
        return actions

    def outcomes(self) -> Outcomes:
        """What the actions brought, as far as it is known."""
        return Outcomes()

    @cached_property
    def timeline(self) -> Timeline | None:
        """When its frames are shown; None where nothing tells."""
        return None


class Wrapped(Source):
    """Another clip, of which a subclass changes something."""

    def __init__(self, source: Source) -> None:
        super().__init__(source.path)
        self.notes = source.notes
        self.is_animation = source.is_animation
        self._source = source

    @property
    def pixel_aspect(self) -> float:  # type: ignore[override]
        return self._source.pixel_aspect

    def count(self) -> int:
        return self._source.count()

    def fps(self) -> float:
        return self._source.fps()

    def frames(self, start: int) -> Generator[np.ndarray, None, None]:
        return self._source.frames(start)

    def actions(self) -> np.ndarray | None:
        return self._source.actions()

    def outcomes(self) -> Outcomes:
        return self._source.outcomes()

    @cached_property
    def timeline(self) -> Timeline | None:
        return self._source.timeline
