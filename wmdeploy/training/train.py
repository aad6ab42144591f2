"""Train a world model: find the clips, run both stages, measure, write the model directory.

    train(TrainOptions(data=(Path("pong"),), output=Path("pong-model")))

Killed at any moment, the same call goes on from the last checkpoint and ends with the same weights.
Prints nothing. Started by `accelerate launch` or torchrun, all processes train one model together,
and the first of them writes it.
"""

import json
import os
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from accelerate import Accelerator

from wmdeploy.clips.footage import Footage
from wmdeploy.errors import TrainingError, WmdeployError
from wmdeploy.families import load_model, save_model
from wmdeploy.families.directory import CONFIG_FILE, WEIGHTS_FILE, read_training
from wmdeploy.families.reference.config import WorldModelConfig, preset
from wmdeploy.families.reference.family import reference_model
from wmdeploy.families.reference.world_model import WorldModel
from wmdeploy.files import cache_file, real_path, sha256
from wmdeploy.progress import Progress, silent
from wmdeploy.quality.measure import evaluate
from wmdeploy.quality.plots import strip
from wmdeploy.quality.predict import decode_latents, encode_frames, following_latents
from wmdeploy.training.codes import (
    CodedFootage,
    encode_footage,
    load_codes,
    origin,
    save_codes,
)
from wmdeploy.training.data import TrainingClips, find_data
from wmdeploy.training.log import TrainingLog
from wmdeploy.training.loop import Stage, run_stage
from wmdeploy.training.options import VQVAE_SHARE, TrainOptions
from wmdeploy.training.processes import started
from wmdeploy.training.state import StageRecord, TrainFolder, TrainState, differences
from wmdeploy.training.summary import StageSummary, TrainSummary
from wmdeploy.training.temporal_stage import TemporalStage
from wmdeploy.training.vqvae_stage import VQVAEStage

_STRIP_FRAMES = 24


def train(
    options: TrainOptions,
    progress: Progress = silent,
    config: WorldModelConfig | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> TrainSummary | None:
    """Train a model and write it to `options.output`, or say that it is there already.

    Args:
        options: what to train.
        progress: its tasks are "read" (clips), "vqvae" (steps), "encode" (frames), "temporal"
            (steps) and "evaluate" (clips). An exception raised there, such as KeyboardInterrupt,
            ends the training; the last checkpoint stays.
        config: sizes of the model instead of the preset's. The number of actions is always taken
            from the data.
        tell: called with lines on the data, before the training begins; see `find_data`.

    Returns:
        None in all but the first of several processes that train one model: that one tells.

    Raises:
        TrainingError: the options do not fit the data, the machine or what lies at the output, the
            training diverged, or its state is damaged.
        ClipError: there are no clips to train on.
        CheckpointError: there is no such preset, or the model at the output is damaged.
        WmdeployError: the output cannot be written.
    """
    sizes = config or preset(options.preset)
    settings: dict[str, Any] = {**options.deciding(), "config": asdict(sizes)}
    if options.vqvae:
        settings["vqvae_sha256"] = _digest_of(options.vqvae)
    _check_output(options.output, settings)
    _check_log(options)
    folder = TrainFolder(options.output)
    if first := os.environ.get("RANK", "0") == "0":
        folder.check()
    clips = find_data(
        options.data,
        size=sizes.vqvae.image_size,
        validation=options.validation,
        seed=options.seed,
        actions=options.actions,
        read=options.read,
        progress=progress,
        tell=tell,
    )
    clips.hold_out(read_training(options.vqvae).clips if options.vqvae else ())
    settings["clips_sha256"] = clips.sha256()
    # through JSON, as what is read back will have lists for tuples
    settings = json.loads(json.dumps(settings))
    if finished := _finished(options.output, settings):
        if first:
            folder.remove()  # of a run that was killed between writing the model and this
        return finished
    steps = {VQVAEStage.name: options.vqvae_steps, TemporalStage.name: options.temporal_steps}
    with started(options) as accelerator, torch.random.fork_rng(devices=[]), ExitStack() as held:
        settings["processes"] = accelerator.num_processes
        if accelerator.is_main_process:
            held.enter_context(folder.opened(settings))
        accelerator.wait_for_everyone()
        model = WorldModel(sizes.with_actions(clips.num_actions)).initialize(options.seed)
        state = folder.load(model, steps)
        _train_stages(
            model,
            clips,
            accelerator=accelerator,
            state=state,
            folder=folder,
            options=options,
            progress=progress,
        )
        model.eval()
        return _conclude(
            model,
            clips,
            accelerator=accelerator,
            state=state,
            folder=folder,
            options=options,
            settings=settings,
            progress=progress,
        )


def _train_stages(
    model: WorldModel,
    clips: TrainingClips,
    accelerator: Accelerator,
    state: TrainState,
    folder: TrainFolder,
    options: TrainOptions,
    progress: Progress,
) -> None:
    """Run what is left of both stages."""
    log = TrainingLog(options.log if accelerator.is_main_process else None)
    log.strip = lambda stage: _sample(model, clips.validation, stage)
    seconds = None if options.max_minutes is None else 60 * options.max_minutes

    def run(stage: Stage, share: float) -> None:
        share = 1.0 if options.vqvae else share
        budget = None if seconds is None else share * seconds
        run_stage(
            stage,
            model,
            accelerator=accelerator,
            state=state,
            folder=folder,
            options=options,
            budget=budget,
            log=log,
            progress=progress,
        )

    if options.vqvae:
        given = reference_model(load_model(options.vqvae)).vqvae
        if given.config != model.config.vqvae:
            raise TrainingError(
                f"vqvae: {options.vqvae} has the sizes {given.config}, "
                f"expected {model.config.vqvae}; choose its preset"
            )
        model.vqvae.load_state_dict(given.state_dict())
        state.finished[VQVAEStage.name] = StageRecord(ended="given")
    if VQVAEStage.name not in state.finished:
        model.vqvae.vq.requires_grad_(False)  # it moves by its running means
        run(VQVAEStage(model.vqvae, clips.training, clips.validation, options), VQVAE_SHARE)
    model.to(accelerator.device)
    model.vqvae.eval().requires_grad_(False)
    if TemporalStage.name not in state.finished:
        with accelerator.main_process_first():  # the others find what it left in the cache
            coded = [_codes(model, clips, side, progress) for side in ("training", "validation")]
        run(TemporalStage(model, coded[0], coded[1], options), 1 - VQVAE_SHARE)
    log.close()


def _codes(model: WorldModel, clips: TrainingClips, side: str, progress: Progress) -> CodedFootage:
    """The codes of one side of the split: from the disk where they lie there, or encoded now."""
    made_of = origin(model.vqvae, f"{clips.sha256()} {side}")
    name = f"codes-{made_of[:32]}.safetensors"
    with suppress(WmdeployError):  # reported below, once there is something to keep
        if coded := load_codes(cache_file(name), made_of):
            return coded
    footage: Footage = getattr(clips, side)
    coded = encode_footage(model.vqvae, footage, progress)
    try:
        save_codes(coded, cache_file(name), made_of)
    except WmdeployError as error:
        clips.skipped.append(f"the cache of the {side} clips' codes: {error}")
    return coded


@torch.no_grad()
def _sample(model: WorldModel, footage: Footage, stage: str) -> np.ndarray:
    """Rows of held-out frames: real, reconstructed, and in the second stage predicted."""
    count = min(_STRIP_FRAMES, footage.spans.lengths[0])
    frames = footage.frames(np.arange(count))
    modes = {module: module.training for module in model.modules()}
    model.eval()
    codes = encode_frames(model.vqvae, frames).to(model.vqvae.vq.embedding.weight.device)
    latents = model.vqvae.vq.lookup(codes.long()).flatten(1)
    rows = [frames, decode_latents(model, latents)]
    if stage == TemporalStage.name:
        recorded = footage.actions if model.config.temporal.num_actions else None
        actions = (
            None if recorded is None else torch.from_numpy(recorded[:count]).to(latents.device)
        )
        following = following_latents(model, latents, actions)
        rows.append(decode_latents(model, torch.cat([latents[:1], following])))
    for module, training in modes.items():
        module.training = training
    return strip(rows)


def _conclude(
    model: WorldModel,
    clips: TrainingClips,
    accelerator: Accelerator,
    state: TrainState,
    folder: TrainFolder,
    options: TrainOptions,
    settings: dict[str, Any],
    progress: Progress,
) -> TrainSummary | None:
    """Measure the model and write it; where several processes trained it, the first does."""
    if not accelerator.is_main_process:
        return None
    quality = evaluate(
        model,
        clips.validation,
        name=options.output.name,
        skipped=clips.skipped,
        progress=progress,
    )
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
    )
    fields = {name: value for name, value in asdict(summary).items() if name != "output"}
    seen = {*clips.digests(0), *(read_training(options.vqvae).clips if options.vqvae else ())}
    notes = {"options": settings, "summary": fields, "clips": sorted(seen)}
    save_model(model, options.output, about={"training": notes})
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


def _check_output(output: Path, settings: dict[str, Any]) -> None:
    """Refuse, before anything is read, an output that this training could never replace."""
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return
    if not (output / CONFIG_FILE).is_file():
        raise TrainingError(
            f"{output}: exists and is not a model directory; choose another output or remove it"
        )
    stored = read_training(output).options
    chosen = {key: value for key, value in stored.items() if key in settings}
    _refuse(output, chosen, json.loads(json.dumps(settings)))


def _finished(output: Path, settings: dict[str, Any]) -> TrainSummary | None:
    """The summary of the model at the output, or None if there is none."""
    if not (output / CONFIG_FILE).is_file():
        return None
    stored = read_training(output)
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


def _refuse(output: Path, stored: dict[str, Any], settings: dict[str, Any]) -> None:
    if changes := differences(stored, settings):
        changes = changes if stored else "it was not trained by this command"
        raise TrainingError(
            f"{output}: holds a finished model of other options ({changes}); "
            "choose another output or remove it"
        )
