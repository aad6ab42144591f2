"""What to train, and how progress is told. Knows no torch, so that a command line loads at once."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from wmdeploy.errors import TrainingError


class Reporter(Protocol):
    """Told after every step how far a stage is.

    Stages, in order: "read" (clips), "vqvae" (steps), "encode" (frames), "temporal" (steps),
    "validate" (clips). `loss` is None where a stage has none. An exception raised here, such as
    KeyboardInterrupt, ends the training; the last checkpoint stays.
    """

    def __call__(self, stage: str, step: int, total: int, loss: float | None) -> None: ...


@dataclass(frozen=True)
class TrainOptions:
    """How to train a world model.

    The same options and data give the same weights on the same machine with the same number of
    threads, interrupted or not.

    Attributes:
        data: folders of clips, at least one; together they hold at least two clips.
        output: the model directory to write. While training, `<output>.train` lies beside it.
        preset: sizes of the model, a key of `wmdeploy.models.config.PRESETS`.
        vqvae_steps: optimizer steps of the first stage.
        temporal_steps: optimizer steps of the second stage.
        vqvae_batch: frames in a step of the first stage.
        temporal_batch: windows of S + 1 frames in a step of the second stage.
        vqvae_rate: highest learning rate of the first stage.
        temporal_rate: highest learning rate of the second stage.
        seed: of the first weights, the split of the clips and all that is drawn, 0 or more.
        actions: condition the transformer on the recorded actions, where the clips have them.
        validation: share of the clips that is held out, between 0 and 1.
        checkpoint_every: steps from one checkpoint to the next.

    Raises:
        TrainingError: a number is outside its range, or there is no data folder.
    """

    data: tuple[Path, ...]
    output: Path
    preset: str = "tiny"
    vqvae_steps: int = 1400
    temporal_steps: int = 4000
    vqvae_batch: int = 8
    temporal_batch: int = 16
    vqvae_rate: float = 3e-3
    temporal_rate: float = 1e-3
    seed: int = 0
    actions: bool = True
    validation: float = 0.1
    checkpoint_every: int = 200

    def __post_init__(self) -> None:
        if not self.data:
            raise TrainingError("data: got no folder, expected at least one folder of clips")
        least = {
            "vqvae_steps": 1,
            "temporal_steps": 1,
            "vqvae_batch": 1,
            "temporal_batch": 1,
            "seed": 0,
            "checkpoint_every": 1,
        }
        for name, lowest in least.items():
            value = getattr(self, name)
            if value < lowest:
                raise TrainingError(f"{name}: got {value}, expected {lowest} or more")
        for name in ("vqvae_rate", "temporal_rate"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise TrainingError(f"{name}: got {value}, expected a learning rate above 0")
        if not 0 < self.validation < 1:
            raise TrainingError(
                f"validation: got {self.validation}, expected a share between 0 and 1"
            )

    def deciding(self) -> dict[str, Any]:
        """The options that decide the weights, as JSON types; with others they would differ."""
        return {
            "data": [str(folder.resolve()) for folder in self.data],
            "preset": self.preset,
            "vqvae_steps": self.vqvae_steps,
            "temporal_steps": self.temporal_steps,
            "vqvae_batch": self.vqvae_batch,
            "temporal_batch": self.temporal_batch,
            "vqvae_rate": self.vqvae_rate,
            "temporal_rate": self.temporal_rate,
            "seed": self.seed,
            "actions": self.actions,
            "validation": self.validation,
        }
