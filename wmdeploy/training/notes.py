"""What a training notes in the config.json of its model, read back with the types it had."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from wmdeploy.errors import CheckpointError
from wmdeploy.models.checkpoint import CONFIG_FILE, read_notes
from wmdeploy.quality.report import QualityReport


@dataclass(frozen=True)
class TrainingNotes:
    """Empty for a model of other origin.

    Attributes:
        options: that decided the weights, see `TrainOptions.deciding`.
        summary: a `TrainSummary` as plain values.
        clips: hashes of the clips that were trained on.
    """

    options: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    clips: tuple[str, ...] = ()


def read_training_notes(source: str | Path) -> TrainingNotes:
    """The notes of a model directory; empty ones for a model of other origin.

    Raises:
        CheckpointError: they are damaged.
    """
    stored = read_notes(source).get("training")
    try:
        notes = TrainingNotes() if stored is None else msgspec.convert(stored, TrainingNotes)
        if "quality" in notes.summary:  # read as plain values by whoever shows it
            msgspec.convert(notes.summary["quality"], QualityReport, str_keys=True)
        return notes
    except msgspec.ValidationError as error:
        raise CheckpointError(
            f"{Path(source) / CONFIG_FILE}: its notes on the training are damaged ({error}); "
            "train the model again"
        ) from error
