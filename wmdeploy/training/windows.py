"""What all stages share: windows of clips, drawn step by step, and some that are held out."""

from typing import Any, ClassVar

import numpy as np
from torch import nn

from wmdeploy.clips.footage import Spans
from wmdeploy.training.data import epoch_batch
from wmdeploy.training.loop import Batch, Share, share_of


class WindowStage:
    """The part of `wmdeploy.training.loop.Stage` that is the same for all; a stage derives its own.

    A stage has `name`, `steps`, `rate` and `module`, too, makes `_held_out`, and says how its
    windows become a batch.

    Args:
        spans: of the clips.
        length: frames of a window.
        size: windows in a process's batch.
        key: of the order that windows are drawn in.
        windows: their first frames; None: all windows of that length.
    """

    kinds: ClassVar[tuple[type[nn.Module], ...]]  # of `blocks`
    module: Any
    _held_out: list[Batch]

    def __init__(
        self,
        spans: Spans,
        length: int,
        size: int,
        key: tuple[int, int],
        windows: np.ndarray | None = None,
    ) -> None:
        self._spans, self._length, self._size, self._key = spans, length, size, key
        self._windows = spans.windows(length) if windows is None else windows

    def numbers(self, step: int, share: Share) -> np.ndarray:
        """The first frames of a batch's windows, (B,) int64."""
        size = self._size * share.processes
        return share_of(epoch_batch(self._windows, size, self._key, step), share)

    def describe(self, step: int, share: Share) -> str:
        return ", ".join(self._spans.place(n) for n in self.numbers(step, share).tolist())

    def images(self) -> int:
        return self._length * min(self._size, len(self._windows))

    def held_out(self) -> list[Batch]:
        return self._held_out

    def blocks(self) -> list[nn.Module]:
        return [module for module in self.module.modules() if isinstance(module, self.kinds)]

    def figures(self) -> dict[str, float]:
        return {}

    def resume(self, done: float) -> None:
        pass

    def finish(self) -> None:
        pass


def spread(windows: np.ndarray, most: int, batch: int) -> list[np.ndarray]:
    """At most so many of some windows, spread over them, in parts of about `batch`."""
    chosen = np.linspace(0, len(windows) - 1, min(most, len(windows))).astype(int)
    return np.array_split(windows[chosen], max(1, len(chosen) // batch))
