"""Distil a student of a model's decoder or encoder, and write it all as a model directory.

    distill(DistillOptions(source="pong-model", student="lite", training=TrainOptions(...)))

All but what is trained is `wmdeploy.training.train`: checkpoints, time limits, processes. Prints
nothing.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wmdeploy.clips.folder import INDEX_NAME, read_data_folder
from wmdeploy.errors import TrainingError
from wmdeploy.families import ModelFacts, find_family, load_model
from wmdeploy.families.directory import DISTILLATION, read_notes, read_training
from wmdeploy.progress import Progress, silent
from wmdeploy.training.data import TrainingClips
from wmdeploy.training.options import TrainOptions
from wmdeploy.training.plan import Part
from wmdeploy.training.summary import TrainSummary
from wmdeploy.training.train import Plan, run


@dataclass(frozen=True, kw_only=True)
class DistillOptions:
    """What to distil.

    Attributes:
        source: a model directory, a checkpoint or a preset.
        student: its name, which says how large it is: "lite" or "tiny".
        part: of the model, that it imitates. A decoder stands beside the model's own; an encoder
            takes the place of it.
        training: the data, the output, and how long; its options of models are not used.
        family: of a source that does not name its own.
    """

    source: str
    student: str
    part: Part = "decoder"
    training: TrainOptions
    family: str | None = None


def distill(
    options: DistillOptions,
    progress: Progress = silent,
    tell: Callable[[str], None] = lambda line: None,
) -> TrainSummary | None:
    """Train a student and write the model with it, or say that it is there already.

    Args:
        progress, tell: as `wmdeploy.training.train.train` takes them.

    Returns:
        As `train`.

    Raises:
        TrainingError: the family's models have no students, the clips do not fit the model, or as
            `train` says.
        CheckpointError: the source cannot be loaded, or there is no student of that name.
        ClipError, FamilyError, WmdeployError: as `train` says.
    """
    family = find_family(options.source, options.family)
    course = family.distillation(options.part)
    remarks: list[str] = []
    source = load_model(options.source, options.training.seed, remarks, options.family)
    for remark in remarks:
        tell(remark)
    if options.source in family.presets and not Path(options.source).exists():
        tell(
            f"{options.source}: its weights are untrained, so the student will be one of noise; "
            "it tells times, and nothing else"
        )
    facts = family.facts(source)
    model = course.begin(source, options.student, options.training.seed)
    training = dataclasses.replace(
        options.training, family=family.name, actions=facts.num_actions > 0
    )

    def begin(clips: TrainingClips) -> Any:
        _check_clips(clips, facts)
        return model

    plan = Plan(
        course=course,
        deciding={"source": course.digest(source), options.part: options.student},
        image_size=facts.image_size,
        begin=begin,
        seen=read_training(options.source).clips,
        part=DISTILLATION[options.part],
        remade=options.part == "encoder",
        notes=read_notes(options.source),
    )
    return run(plan, training, progress, tell)


def _check_clips(clips: TrainingClips, facts: ModelFacts) -> None:
    """Refuse clips that were recorded for another model.

    Raises:
        TrainingError: their frames are of another size, or their actions are others.
    """
    size = facts.image_size
    for folder in dict.fromkeys(path.parent for side in clips.paths for path in side):
        if (folder / INDEX_NAME).is_file() and (recorded := read_data_folder(folder).size) != size:
            raise TrainingError(
                f"data: {folder} was recorded at {recorded} x {recorded}, and the model's frames "
                f"are {size} x {size}; record its game at that size"
            )
    if clips.num_actions != facts.num_actions:
        raise TrainingError(
            f"data: its clips have {clips.num_actions} actions, and the model takes "
            f"{facts.num_actions}; give clips of the model's game"
        )
