"""Train a world model: read the clips, run both stages, measure, write the model directory.

    train(TrainOptions(data=(Path("pong"),), output=Path("pong-model")), report)

Killed at any moment, the same call goes on from the last checkpoint and ends with the same weights.
Prints nothing. Runs on the CPU in float32.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import Tensor

from wmdeploy.errors import TrainingError
from wmdeploy.models.checkpoint import CONFIG_FILE, read_config, save_model
from wmdeploy.models.config import WorldModelConfig, preset
from wmdeploy.models.world_model import WorldModel
from wmdeploy.training.data import Footage, TrainingData, load_data
from wmdeploy.training.loop import run_stage
from wmdeploy.training.metrics import encode_codes, validate
from wmdeploy.training.options import Reporter, TrainOptions
from wmdeploy.training.stages import TemporalStage, VQVAEStage
from wmdeploy.training.state import Progress, TrainFolder, differences
from wmdeploy.training.summary import TrainSummary, ValidationMetrics


def train(
    options: TrainOptions, report: Reporter, config: WorldModelConfig | None = None
) -> TrainSummary:
    """Train a model and write it to `options.output`, or say that it is there already.

    Args:
        options: what to train.
        report: told of every step; see `Reporter`.
        config: sizes of the model instead of the preset's. The number of actions is always taken
            from the data.

    Raises:
        TrainingError: the options do not fit the data or what lies at the output, the training
            diverged, or its state is damaged.
        ClipError: a clip cannot be read.
        CheckpointError: there is no such preset, or the model at the output is damaged.
        WmdeployError: the output cannot be written.
    """
    sizes = config or preset(options.preset)
    settings: dict[str, Any] = {**options.deciding(), "config": sizes.to_dict()}
    _check_output(options.output, settings)
    data = load_data(
        options.data,
        size=sizes.vqvae.image_size,
        validation=options.validation,
        seed=options.seed,
        actions=options.actions,
        progress=lambda done, total: report("read", done, total, None),
    )
    settings["clips_sha256"] = data.sha256()
    # through JSON, as what is read back will have lists for tuples
    settings = json.loads(json.dumps(settings))
    folder = TrainFolder(options.output)
    if finished := _finished(options.output, settings):
        folder.remove()  # of a run that was killed between writing the model and this
        return finished
    folder.open(settings)
    with torch.random.fork_rng(devices=[]):
        model = WorldModel(sizes.with_actions(data.num_actions)).initialize(options.seed)
        progress = folder.load(model)
        _train_stages(model, data, progress, folder, options, report)
    model.eval()
    metrics = validate(
        model, data.validation, lambda done, total: report("validate", done, total, None)
    )
    summary = _summarize(options, data, progress, metrics)
    told = {name: value for name, value in asdict(summary).items() if name != "output"}
    save_model(model, options.output, about={"training": {"options": settings, "summary": told}})
    folder.remove()
    return summary


def _train_stages(
    model: WorldModel,
    data: TrainingData,
    progress: Progress,
    folder: TrainFolder,
    options: TrainOptions,
    report: Reporter,
) -> None:
    """Run what is left of both stages."""
    if VQVAEStage.name not in progress.finished:
        stage = VQVAEStage(model, data.training, options)
        run_stage(
            stage,
            model,
            progress,
            folder,
            seed=options.seed,
            checkpoint_every=options.checkpoint_every,
            report=report,
        )
    model.vqvae.eval().requires_grad_(False)
    if TemporalStage.name not in progress.finished:
        codes = _encode(model, data.training, report)
        temporal = TemporalStage(model, data.training, codes, options)
        if progress.step == 0:
            temporal.start()
        run_stage(
            temporal,
            model,
            progress,
            folder,
            seed=options.seed,
            checkpoint_every=options.checkpoint_every,
            report=report,
        )


def _encode(model: WorldModel, footage: Footage, report: Reporter) -> Tensor:
    """The codes of all frames: (F, N)."""
    parts: list[Tensor] = []
    for start, clip in zip(footage.starts.tolist(), footage.clips, strict=True):

        def told(done: int, start: int = start) -> None:
            report("encode", start + done, len(footage), None)

        parts.append(encode_codes(model, clip.frames, told))
    return torch.cat(parts)


def _check_output(output: Path, settings: dict[str, Any]) -> None:
    """Refuse, before anything is read, an output that this training could never replace."""
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return
    if not (output / CONFIG_FILE).is_file():
        raise TrainingError(
            f"{output}: exists and is no model directory; choose another output or remove it"
        )
    stored = _stored(output).get("options")
    found = {key: value for key, value in stored.items() if key in settings} if stored else {}
    _refuse(output, found, json.loads(json.dumps(settings)))


def _finished(output: Path, settings: dict[str, Any]) -> TrainSummary | None:
    """The summary of the model at the output, or None if there is none."""
    if not (output / CONFIG_FILE).is_file():
        return None
    stored = _stored(output)
    _refuse(output, stored.get("options") or {}, settings)
    document = {**(stored.get("summary") or {}), "fresh": False, "output": str(output)}
    try:
        return msgspec.convert(document, TrainSummary, dec_hook=lambda kind, value: kind(value))
    except msgspec.ValidationError as error:
        raise TrainingError(
            f"{output / CONFIG_FILE}: its notes on the training are damaged ({error}); "
            "remove the directory or choose another output"
        ) from error


def _stored(output: Path) -> dict[str, Any]:
    """What an earlier training noted in its model directory; {} for a model of other origin."""
    read_config(output)
    about = json.loads((output / CONFIG_FILE).read_text(encoding="utf-8")).get("about")
    stored = about.get("training") if isinstance(about, dict) else None
    return stored if isinstance(stored, dict) else {}


def _refuse(output: Path, found: dict[str, Any], settings: dict[str, Any]) -> None:
    if told := differences(found, settings):
        told = told if found else "it was not trained by this command"
        raise TrainingError(
            f"{output}: holds a finished model of other options ({told}); "
            "choose another output or remove it"
        )


def _summarize(
    options: TrainOptions, data: TrainingData, progress: Progress, metrics: ValidationMetrics
) -> TrainSummary:
    seconds = progress.seconds[VQVAEStage.name]
    images = options.vqvae_steps * min(options.vqvae_batch, len(data.training))
    return TrainSummary(
        fresh=True,
        output=options.output,
        training_frames=len(data.training),
        num_actions=data.num_actions,
        vqvae_steps=options.vqvae_steps,
        temporal_steps=options.temporal_steps,
        vqvae_seconds=seconds,
        temporal_seconds=progress.seconds[TemporalStage.name],
        images_per_second=images / seconds,
        validation=metrics,
    )
