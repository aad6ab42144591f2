"""What a finished training tells. Plain values only: kept as JSON beside the weights."""

from dataclasses import dataclass, field
from pathlib import Path

from wmdeploy.quality.report import QualityReport


@dataclass(frozen=True, kw_only=True)
class StageSummary:
    """One stage of a training, over all runs that it took.

    Attributes:
        steps: optimizer steps.
        seconds: spent in them.
        images_per_second: frames trained on in a second, all processes together.
        in_model: share of the seconds that was not spent waiting for data.
        ended: by its "steps", by "time" or by "patience".
        held_out: the loss on held-out clips; None where it was never computed.
    """

    steps: int
    seconds: float
    images_per_second: float
    in_model: float
    ended: str
    held_out: float | None


@dataclass(frozen=True, kw_only=True)
class TrainSummary:
    """What was trained, how long it took, and how good it is.

    Attributes:
        fresh: False where `output` held this very model already, so that nothing was trained.
        output: the model directory.
        training_frames: frames that the steps were drawn from.
        num_actions: what the model is conditioned on; 0 for nothing.
        stages: by name, in order; of the reference family "vqvae" and "temporal".
        skipped: clips, and parts of a training, that were left out, and why.
        quality: on the episodes that were held out; None of a family whose stages' losses there are
            all that its training measures.
        operations: of one frame by a part ("full decoder") and its student, where one was made.
    """

    fresh: bool
    output: Path
    training_frames: int
    num_actions: int
    stages: dict[str, StageSummary]
    skipped: tuple[str, ...]
    quality: QualityReport | None
    operations: dict[str, int] = field(default_factory=dict)
