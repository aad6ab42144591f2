"""Train a world model: find clips, run its family's stages, measure, write the model directory.

    train(TrainOptions(data=(Path("pong"),), output=Path("pong-model")))

Killed at any moment, the same call goes on from the last checkpoint and ends with the same weights.
What the stages are is the family's, see `wmdeploy.training.plan`. Prints nothing. Started by
`accelerate launch` or torchrun, all processes train one model together, and the first of them
writes it.
"""

import json
import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import torch

from wmdeploy.errors import CheckpointError, TrainingError
from wmdeploy.families import ModelFamily, load_family, save_model
from wmdeploy.families.directory import (
    CONFIG_FILE,
    LAST,
    TRAINING,
    WEIGHTS_FILE,
    TrainingNotes,
    read_notes,
    read_training,
)
from wmdeploy.files import real_path, sha256
from wmdeploy.progress import Progress, silent
from wmdeploy.training.data import TrainingClips, find_data
from wmdeploy.training.log import TrainingLog
from wmdeploy.training.loop import run_stage
from wmdeploy.training.options import TrainOptions
from wmdeploy.training.plan import Course, Job, StagePlan, chosen_settings
from wmdeploy.training.processes import started
from wmdeploy.training.state import StageRecord, TrainFolder, TrainState, differences
from wmdeploy.training.summary import StageSummary, TrainSummary


def train(
    options: TrainOptions,
    progress: Progress = silent,
    config: Any = None,
    tell: Callable[[str], None] = lambda line: None,
) -> TrainSummary | None:
    """Train a model and write it to `options.output`, or say that it is there already.

    Args:
        options: what to train.
        progress: its tasks are "read" (clips), and the stages by name (steps); of the reference
            family also "encode" (frames) and "evaluate" (clips). An exception raised there, such as
            KeyboardInterrupt, ends the training; the last checkpoint stays.
        config: the family's sizes of the model, instead of the preset's. The number of actions is
            always taken from the data.
        tell: called with lines on the data, before the training begins; see `find_data`.

    Returns:
        None in all but the first of several processes that train one model: that one tells.

    Raises:
        TrainingError: the options do not fit the family, the data, the machine or what lies at the
            output, the training diverged, or its state is damaged. Or models of the family are not
            trained here.
        FamilyError: there is no such family.
        ClipError: there are no clips to train on.
        CheckpointError: there is no such preset, or the model at the output is damaged.
        WmdeployError: the output cannot be written.
    """
    family = load_family(options.family)
    training = family.training()
    sizes = config or _preset(family, options.preset)
    deciding: dict[str, Any] = {"config": asdict(sizes)}
    if options.vqvae:
        deciding["vqvae_sha256"] = _digest_of(options.vqvae)
    plan = Plan(
        course=training,
        deciding=deciding,
        image_size=_image_size(family, sizes),
        begin=lambda clips: family.initialized(
            training.sized(sizes, clips.num_actions), options.seed
        ),
        seen=read_training(options.vqvae).clips if options.vqvae else (),
    )
    return run(plan, options, progress, tell)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to train, and what it begins with.

    Attributes:
        deciding: what decides the weights beside the options, as JSON types.
        image_size: of the model's frames.
        begin: the model before the first step, once the clips are known; raises what `train` does.
        seen: digests of clips that parts of the model were trained on before.
        part: of the model's notes, where this training is noted; notes: all others.
        remade: the model is another one now, and its scores are noted as its training's, too.
    """

    course: Course
    deciding: dict[str, Any]
    image_size: int
    begin: Callable[[TrainingClips], Any]
    seen: tuple[str, ...] = ()
    part: str = TRAINING
    remade: bool = False
    notes: dict[str, Any] = field(default_factory=dict)


def run(
    plan: Plan, options: TrainOptions, progress: Progress, tell: Callable[[str], None]
) -> TrainSummary | None:
    """Find clips, run the stages, measure, write; arguments and errors as of `train`."""
    course = plan.course
    stage_settings = chosen_settings(course, options)
    settings: dict[str, Any] = {**options.deciding(), **plan.deciding}
    _check_output(options.output, settings, plan.part)
    _check_log(options)
    folder = TrainFolder(options.output)
    if first := os.environ.get("RANK", "0") == "0":
        folder.check()
    clips = find_data(
        options.data,
        size=plan.image_size,
        validation=options.validation,
        seed=options.seed,
        actions=options.actions,
        read=options.read,
        progress=progress,
        tell=tell,
    )
    clips.hold_out(plan.seen)
    settings["clips_sha256"] = clips.sha256()
    # through JSON, as what is read back will have lists for tuples
    settings = json.loads(json.dumps(settings))
    if finished := _finished(options.output, settings, plan.part):
        if first:
            folder.remove()  # of a run that was killed between writing the model and this
        return finished
    with started(options) as accelerator, torch.random.fork_rng(devices=[]), ExitStack() as held:
        model = plan.begin(clips).requires_grad_(True)
        settings["processes"] = accelerator.num_processes
        if accelerator.is_main_process:
            held.enter_context(folder.opened(settings))
        accelerator.wait_for_everyone()
        job = Job(
            model=model.to(accelerator.device),
            clips=clips,
            options=options,
            settings=stage_settings,
            accelerator=accelerator,
            progress=progress,
            tell=tell,
        )
        stages = course.stages(job)
        state = folder.load(model, {stage.name: stage.steps for stage in stages})
        _train_stages(job, course, stages, state=state, folder=folder)
        model.eval()
        return _conclude(job, plan, state, folder, settings)


def _preset(family: ModelFamily, name: str) -> Any:
    """The sizes of that name."""
    if name not in family.presets:
        names = ", ".join(family.presets) or "none"
        raise CheckpointError(f"preset: got {name!r}, expected one of {names}")
    return family.presets[name]


def _image_size(family: ModelFamily, sizes: Any) -> int:
    """Of the frames of a model, which takes no memory here."""
    with torch.device("meta"):
        return family.facts(family.build(sizes)).image_size


def _train_stages(
    job: Job,
    course: Course,
    plans: Sequence[StagePlan],
    *,
    state: TrainState,
    folder: TrainFolder,
) -> None:
    """Run what is left of the stages."""
    options = job.options
    log = TrainingLog(options.log if job.accelerator.is_main_process else None)
    log.strip = lambda stage: course.picture(job, stage)
    for plan in plans:
        if plan.make is None:
            state.finished[plan.name] = StageRecord(ended="given")
        if plan.make is None or plan.name in state.finished:
            continue
        run_stage(
            plan.make(),
            job.model,
            accelerator=job.accelerator,
            state=state,
            folder=folder,
            options=options,
            budget=None if options.max_minutes is None else 60 * options.max_minutes * plan.share,
            log=log,
            progress=job.progress,
        )
    log.close()


def _conclude(
    job: Job,
    plan: Plan,
    state: TrainState,
    folder: TrainFolder,
    settings: dict[str, Any],
) -> TrainSummary | None:
    """Measure the model and write it; where several processes trained it, the first does."""
    if not job.accelerator.is_main_process:
        return None
    options, clips = job.options, job.clips
    quality = plan.course.quality(job)
    summary = TrainSummary(
        fresh=True,
        output=options.output,
        training_frames=len(clips.training),
        num_actions=clips.num_actions,
        stages={
            name: StageSummary(
                steps=record.step,
                seconds=record.seconds,
                images_per_second=record.images / max(record.seconds, 1e-9),
                in_model=1 - record.data_seconds / max(record.seconds, 1e-9),
                ended=record.ended,
                held_out=record.held_out,
            )
            for name, record in state.finished.items()
        },
        skipped=tuple(clips.skipped),
        quality=quality,
        operations=plan.course.operations(job.model),
    )
    fields = {name: value for name, value in asdict(summary).items() if name != "output"}
    about = {**plan.notes, plan.part: {"options": settings, "summary": fields}, LAST: plan.part}
    seen = sorted({*clips.digests(0), *plan.seen})
    noted = {**about.get(TRAINING, {}), "clips": seen}
    if plan.remade and "summary" in noted:
        noted["summary"] = {**noted["summary"], "quality": fields["quality"]}
    about[TRAINING] = noted
    save_model(job.model, options.output, about)
    folder.remove()
    return summary


def _digest_of(model: Path) -> str:
    """The hash of a model directory's weights.

    Raises:
        TrainingError: it is not a model directory.
    """
    if not (model / WEIGHTS_FILE).is_file():
        raise TrainingError(
            f"vqvae: {model} is not a model directory; expected one that `wmdeploy train` wrote"
        )
    return sha256(model / WEIGHTS_FILE)


def _check_log(options: TrainOptions) -> None:
    """Refuse a log that would lie where the model is written."""
    if options.log is None:
        return
    log = real_path(options.log)
    for place in (real_path(options.output), TrainFolder(options.output).path):
        if log == place or place in log.parents:
            raise TrainingError(
                f"log: got {options.log}, which is inside {place}, where the model is made; "
                "choose a folder beside it"
            )


def _check_output(output: Path, settings: dict[str, Any], part: str) -> None:
    """Refuse, before anything is read, an output that this training could never replace."""
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return
    if not (output / CONFIG_FILE).is_file():
        raise TrainingError(
            f"{output}: exists and is not a model directory; choose another output or remove it"
        )
    stored = _noted(output, part).options
    chosen = {key: value for key, value in stored.items() if key in settings}
    _refuse(output, chosen, json.loads(json.dumps(settings)))


def _finished(output: Path, settings: dict[str, Any], part: str) -> TrainSummary | None:
    """The summary of the model at the output, or None if there is none."""
    if not (output / CONFIG_FILE).is_file():
        return None
    stored = _noted(output, part)
    chosen = {key: value for key, value in stored.options.items() if key in settings}
    _refuse(output, chosen, settings)
    document = {**stored.summary, "fresh": False, "output": str(output)}
    try:
        return msgspec.convert(
            document, TrainSummary, dec_hook=lambda kind, value: kind(value), str_keys=True
        )
    except msgspec.ValidationError as error:
        raise TrainingError(
            f"{output / CONFIG_FILE}: its notes on the training are damaged ({error}); "
            "remove the directory or choose another output"
        ) from error


def _noted(output: Path, part: str) -> TrainingNotes:
    """What made a model; nothing where that was another command, whose notes stand beside these."""
    if read_notes(output).get(LAST, part) != part:
        return TrainingNotes()
    return read_training(output, part)


def _refuse(output: Path, stored: dict[str, Any], settings: dict[str, Any]) -> None:
    if changes := differences(stored, settings):
        changes = changes if stored else "it was not trained by this command"
        raise TrainingError(
            f"{output}: holds a finished model of other options ({changes}); "
            "choose another output or remove it"
        )
