"""The reference family's training: the VQ-VAE, then the transformer on its frozen latents."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wmdeploy.clips.footage import Footage
from wmdeploy.errors import TrainingError, WmdeployError
from wmdeploy.families import load_model
from wmdeploy.families.reference.config import WorldModelConfig
from wmdeploy.families.reference.family import reference_model
from wmdeploy.families.reference.world_model import WorldModel
from wmdeploy.files import cache_file
from wmdeploy.quality.measure import evaluate
from wmdeploy.quality.plots import strip
from wmdeploy.quality.predict import decode_latents, encode_frames, following_latents
from wmdeploy.quality.report import QualityReport
from wmdeploy.training.codes import (
    CodedFootage,
    encode_footage,
    load_codes,
    origin,
    save_codes,
)
from wmdeploy.training.loop import Stage
from wmdeploy.training.options import VQVAE_SHARE
from wmdeploy.training.plan import Job, StagePlan, Training
from wmdeploy.training.temporal_stage import TemporalStage
from wmdeploy.training.vqvae_stage import VQVAEStage

_STRIP_FRAMES = 24


class ReferenceTraining(Training):
    """See `wmdeploy.training.plan.Training`. Its settings are fields of `TrainOptions`."""

    def sized(self, config: WorldModelConfig, num_actions: int) -> WorldModelConfig:
        return config.with_actions(num_actions)

    def stages(self, job: Job) -> list[StagePlan]:
        options, model = job.options, job.model
        share = VQVAE_SHARE
        if options.vqvae:
            _take_vqvae(model, options.vqvae)
            share = 0.0

        def vqvae() -> Stage:
            model.vqvae.vq.requires_grad_(False)  # it moves by its running means
            return VQVAEStage(model.vqvae, job.clips.training, job.clips.validation, options)

        def temporal() -> Stage:
            model.vqvae.eval().requires_grad_(False)
            with job.accelerator.main_process_first():  # the others find what it left in the cache
                coded = [coded_footage(job, side) for side in ("training", "validation")]
            return TemporalStage(model, coded[0], coded[1], options)

        first = StagePlan(
            VQVAEStage.name, options.vqvae_steps, share, None if options.vqvae else vqvae
        )
        return [first, StagePlan(TemporalStage.name, options.temporal_steps, 1 - share, temporal)]

    @torch.no_grad()
    def picture(self, job: Job, stage: str) -> np.ndarray:
        """Rows of held-out frames: real, reconstructed, and in the second stage predicted."""
        model, footage = job.model, job.clips.validation
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

    def quality(self, job: Job) -> QualityReport:
        return held_out_quality(job)


def held_out_quality(job: Job, **more: Any) -> QualityReport:
    """The model's scores on the held-out clips; `more`: as `evaluate` takes it."""
    return evaluate(
        job.model,
        job.clips.validation,
        name=job.options.output.name,
        skipped=job.clips.skipped,
        progress=job.progress,
        **more,
    )


def _take_vqvae(model: WorldModel, source: Path) -> None:
    """Give the model another one's VQ-VAE."""
    given = reference_model(load_model(source)).vqvae
    if given.config.encoder is not None:
        raise TrainingError(
            f"vqvae: the encoder of {source} is the student {given.config.encoder}; give the model "
            "that it was distilled from"
        )
    if given.config != model.config.vqvae:
        raise TrainingError(
            f"vqvae: {source} has the sizes {given.config}, "
            f"expected {model.config.vqvae}; choose its preset"
        )
    model.vqvae.load_state_dict(given.state_dict())


def coded_footage(job: Job, side: str) -> CodedFootage:
    """The codes of one side of the split: from the disk where they lie there, or encoded now."""
    vqvae, clips = job.model.vqvae, job.clips
    made_of = origin(vqvae, f"{clips.sha256()} {side}")
    name = f"codes-{made_of[:32]}.safetensors"
    with suppress(WmdeployError):  # reported below, once there is something to keep
        if coded := load_codes(cache_file(name), made_of):
            return coded
    footage: Footage = getattr(clips, side)
    coded = encode_footage(vqvae, footage, job.progress)
    try:
        save_codes(coded, cache_file(name), made_of)
    except WmdeployError as error:
        clips.skipped.append(f"the cache of the {side} clips' codes: {error}")
    return coded
