"""A student encoder of the reference family learns the full one's latents and, above all, codes.

Trained on pairs of frames that follow each other, as the VQ-VAE is: where something moves counts
more. Codebook, decoder and transformer stay as they are. Neither saves nor prints.
"""

from collections.abc import Iterator

import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from wmdeploy.clips.footage import Footage
from wmdeploy.families import family_of
from wmdeploy.families.reference.distillation import weights_digest, with_encoder
from wmdeploy.families.reference.student import StudentBlock
from wmdeploy.families.reference.vqvae import VQVAE
from wmdeploy.families.reference.world_model import WorldModel, to_signal
from wmdeploy.programs.contract import FULL
from wmdeploy.quality.plots import strip
from wmdeploy.quality.predict import decode_latents, encode_frames
from wmdeploy.quality.report import QualityReport
from wmdeploy.training.loop import Batch, Share, shared_mean
from wmdeploy.training.optimizer import muon_and_adamw
from wmdeploy.training.plan import Distillation, Job, StagePlan, StageSettings
from wmdeploy.training.reference import held_out_quality
from wmdeploy.training.vqvae_stage import frame_pairs
from wmdeploy.training.windows import WindowStage, spread

CERTAIN = 8.0  # logits between the two nearest vectors of an average latent
SAME = 1e-3  # of the distance to a vector on average
MOVED = 6.0  # what a position in which a pixel changes counts more than one that stands still
VALIDATION_PAIRS = 64
STRIP_FRAMES = 24


class EncoderDistillation(Distillation):
    """See `wmdeploy.training.plan.Distillation`. `batch` are frames."""

    defaults = {"encoder": StageSettings(steps=3000, batch=32, rate=4e-3)}
    _full: WorldModel

    def begin(self, model: WorldModel, student: str, seed: int) -> WorldModel:
        self._full = model
        return with_encoder(model, student, seed)

    def digest(self, model: WorldModel) -> str:
        return weights_digest(model)

    def operations(self, model: WorldModel) -> dict[str, int]:
        def count(one: WorldModel) -> int:
            return family_of(one).deployment(one, "token", "fp32").graphs["encoder"]().operations()

        name = model.config.vqvae.encoder
        return {f"{FULL} encoder": count(self._full), f"{name} encoder": count(model)}

    def stages(self, job: Job) -> list[StagePlan]:
        full = self._full.vqvae.to(job.accelerator.device)

        def encoder() -> "EncoderStage":
            return EncoderStage(job, full)

        return [StagePlan(EncoderStage.name, job.settings["encoder"].steps, 1.0, encoder)]

    @torch.no_grad()
    def picture(self, job: Job, stage: str) -> np.ndarray:
        """Rows of held-out frames: real, and decoded from the full encoder's codes and its own."""
        footage = job.clips.validation
        frames = footage.frames(np.arange(min(STRIP_FRAMES, footage.spans.lengths[0])))
        rows, vq = [frames], job.model.vqvae.vq
        for vqvae in (self._full.vqvae, job.model.vqvae):
            codes = encode_frames(vqvae, frames).to(vq.embedding.weight.device)
            rows.append(decode_latents(job.model, vq.lookup(codes.long()).flatten(1)))
        return strip(rows)

    def quality(self, job: Job) -> QualityReport:
        return held_out_quality(job, full=self._full.vqvae)


class EncoderLoss(nn.Module):
    """How far the student's latents are from the full encoder's, and from its codes."""

    def __init__(self, student: VQVAE, full: VQVAE) -> None:
        super().__init__()
        self.encoder = student.encoder
        self.frozen = [full]  # in a list: not a part of this module
        self.done, self.step = 0.0, 0

    def forward(self, frames: Tensor, static: Tensor) -> Tensor:
        """A scalar: a squared error over the latents' variance, and the cross-entropy of codes.

        A code is the more likely, the nearer its vector is. Distances are counted in what, for the
        full encoder's latents, lies between the nearest vector and the next on average.

        Args:
            frames, static: as of `frame_pairs`.
        """
        signal = to_signal(frames)
        made = self.encoder(signal)
        with torch.autocast(made.device.type, enabled=False):
            return self._loss(signal, made.float(), static)

    def _loss(self, signal: Tensor, made: Tensor, static: Tensor) -> Tensor:
        (full,) = self.frozen
        book = full.vq.embedding.weight  # (K, C)

        def distances(z: Tensor) -> Tensor:  # (2B, N, K), squared, but for what all have
            return book.square().sum(1) - 2 * (rearrange(z, "b c h w -> b (h w) c") @ book.T)

        with torch.no_grad():
            taught = full.encoder(signal)  # (2B, C, h, w)
            farther = distances(taught)
            nearest, codes = farther.min(-1, keepdim=True)
            farther -= nearest
            # a training gives codes that say the same one vector: the next one is another
            same = farther <= SAME * farther.mean()
            gap = shared_mean(farther.masked_fill(same, torch.inf).amin(-1).mean())
        weight = 1 + MOVED * (~static).repeat(2, 1).float()  # (2B, N)
        weight = weight / shared_mean(weight.mean())
        error = (made - taught).square().mean(1).flatten(1) / shared_mean(taught.var())
        logits = -CERTAIN * distances(made) / gap
        missed = F.cross_entropy(logits.transpose(1, 2), codes[..., 0], reduction="none")
        return ((error + missed) * weight).mean()


class EncoderStage(WindowStage):
    """See the module's docstring, and `wmdeploy.training.loop.Stage`."""

    name = "encoder"
    kinds = (StudentBlock,)

    def __init__(self, job: Job, full: VQVAE) -> None:
        vqvae, settings = job.model.eval().requires_grad_(False).vqvae, job.settings[self.name]
        vqvae.encoder.requires_grad_(True)
        self.steps, self.rate = settings.steps, settings.rate
        self.module = EncoderLoss(vqvae, full)
        training, validation = job.clips.training, job.clips.validation
        super().__init__(training.spans, 2, max(1, settings.batch // 2), (job.options.seed, 0))
        self._footage, self._side = training, vqvae.config.latent_size
        parts = spread(validation.spans.windows(2), VALIDATION_PAIRS, 8)
        self._held_out = [self._pairs(validation, part) for part in parts]

    def parameters(self) -> Iterator[nn.Parameter]:
        return self.module.encoder.parameters()

    def optimizers(self) -> list[Optimizer]:
        return muon_and_adamw(self.parameters(), self.rate)

    def batch(self, step: int, share: Share) -> Batch:
        return self._pairs(self._footage, self.numbers(step, share))

    def _pairs(self, footage: Footage, firsts: np.ndarray) -> Batch:
        pairs = frame_pairs(footage, firsts, self._side)
        return {name: pairs[name] for name in ("frames", "static")}
