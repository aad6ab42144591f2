"""How a family's models are trained: its stages, in order, and what else only it knows.

`ModelFamily.training` gives a `Training`, and `wmdeploy.training.train` runs what that plans:
checkpoints, time limits, processes and the model directory are the same for every family. So does
`wmdeploy.training.distill` with a `Distillation`, of `ModelFamily.distillation`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
from accelerate import Accelerator

from wmdeploy.errors import TrainingError
from wmdeploy.progress import Progress
from wmdeploy.quality.report import QualityReport
from wmdeploy.training.data import TrainingClips
from wmdeploy.training.loop import Stage
from wmdeploy.training.options import TrainOptions


@dataclass(frozen=True)
class StageSettings:
    """Steps at most, what is in a batch, and the highest learning rate, of one stage."""

    steps: int
    batch: int
    rate: float


@dataclass(frozen=True, kw_only=True)
class Job:
    """One training, as a family sees it.

    Attributes:
        model: all that is trained and saved, of the family, on the accelerator's device.
        settings: by stage, as chosen.
        tell: takes a line that a user should know.
    """

    model: Any
    clips: TrainingClips
    options: TrainOptions
    settings: Mapping[str, StageSettings]
    accelerator: Accelerator
    progress: Progress
    tell: Callable[[str], None]


@dataclass(frozen=True)
class StagePlan:
    """A stage that is to run.

    Attributes:
        name, steps: of the stage.
        share: of the minutes that a training may take.
        make: builds it, once the stages before it are over; None where its part of the model is
            given, and nothing is to be trained.
    """

    name: str
    steps: int
    share: float
    make: Callable[[], Stage] | None


Part = Literal["decoder", "encoder"]  # of a model, that a student imitates


class Course(ABC):
    """The stages of a training, and what else only a family knows of it.

    Attributes:
        defaults: the settings of its stages, which `TrainOptions.stages` changes.
    """

    defaults: ClassVar[Mapping[str, StageSettings]] = {}

    @abstractmethod
    def stages(self, job: Job) -> list[StagePlan]:
        """What to train, in order. Called before the last checkpoint is loaded into the model.

        Raises:
            TrainingError: the options or the clips do not fit.
        """

    def picture(self, job: Job, stage: str) -> np.ndarray | None:
        """Of held-out frames, for a log: (H, W, 3) uint8, or None."""
        return None

    def quality(self, job: Job) -> QualityReport | None:
        """How good the trained model is; None where its stages' losses are all that is known."""
        return None

    def operations(self, model: Any) -> dict[str, int]:
        """As `TrainSummary.operations`, the full part first; a multiply and an add are two."""
        return {}


class Training(Course):
    """How models of one family are trained; a family derives its own."""

    @abstractmethod
    def sized(self, config: Any, num_actions: int) -> Any:
        """These sizes, for a model that takes so many actions; 0 where clips have none.

        Raises:
            TrainingError: the family has no such model.
        """


class Distillation(Course):
    """How a student of a part of a family's models is trained; a family derives its own."""

    @abstractmethod
    def begin(self, model: Any, student: str, seed: int) -> Any:
        """The same model with an untrained student of that name: a decoder beside, or an encoder.

        Raises:
            CheckpointError: there is none of that name.
        """

    @abstractmethod
    def digest(self, model: Any) -> str:
        """What tells a model's weights from others, a student decoder's left out."""


def chosen_settings(course: Course, options: TrainOptions) -> dict[str, StageSettings]:
    """The settings of a family's stages, with what the options change.

    Raises:
        TrainingError: there is no such stage or setting, or a number is out of range.
    """
    chosen = dict(course.defaults)
    for key, value in options.stages.items():
        name, _, what = key.partition(".")
        if name not in chosen or what not in ("steps", "batch", "rate"):
            names = [f"{stage}.{part}" for stage in chosen for part in ("steps", "batch", "rate")]
            raise TrainingError(
                f"stage: got {key}, expected {', '.join(names) or 'none'}, of the family "
                f"{options.family}" + ("" if names else ", which has options of its own")
            )
        if not 0 < value < float("inf") or (what != "rate" and value != int(value)):
            expected = "a number above 0" if what == "rate" else "a whole number, 1 or more"
            raise TrainingError(f"stage: got {key}={value:g}, expected {expected}")
        number: Any = value if what == "rate" else int(value)
        chosen[name] = replace(chosen[name], **{what: number})
    return chosen
