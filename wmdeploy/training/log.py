"""Curves and pictures of a training for TensorBoard, in a folder of its own."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from wmdeploy.errors import require

Strip = Callable[[str], np.ndarray | None]


class TrainingLog:
    """Writes to `folder`, or nowhere if that is None or this is not the main process.

    `strip`, once set, gives the picture of a stage by its name: (H, W, 3) uint8 or None.
    """

    def __init__(self, folder: Path | None) -> None:
        self.strip: Strip = lambda stage: None
        self._writer: Any = None
        if folder is not None:
            purpose = "writing TensorBoard logs"
            require("tensorboard", extra="train", purpose=purpose)
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(folder))

    def scalars(self, stage: str, step: int, values: Mapping[str, float]) -> None:
        """Add one point to each curve `<stage>/<name>`."""
        if self._writer is not None:
            for name, value in values.items():
                self._writer.add_scalar(f"{stage}/{name}", value, step)

    def pictures(self, stage: str, step: int) -> None:
        """Add the stage's strip of pictures, if it has one."""
        if self._writer is not None and (picture := self.strip(stage)) is not None:
            self._writer.add_image(stage, picture, step, dataformats="HWC")

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
