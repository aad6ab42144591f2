"""A student decoder of the reference family learns from the full one, and from real frames.

Most latents that it is shown are predicted by the transformer from real ones, as it will be shown
nothing else in a rollout; some are predicted from predictions, and some are the real frames' own.
Neither saves nor prints.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from wmdeploy.clips.footage import Footage
from wmdeploy.families import family_of
from wmdeploy.families.reference.distillation import weights_digest, with_student
from wmdeploy.families.reference.student import StudentBlock
from wmdeploy.families.reference.world_model import WorldModel, to_signal
from wmdeploy.quality.measure import CHANGED_LEVELS
from wmdeploy.quality.plots import strip
from wmdeploy.quality.predict import decode_latents, encode_frames, following_latents
from wmdeploy.quality.report import QualityReport
from wmdeploy.training.codes import CodedFootage
from wmdeploy.training.loop import Batch, Share, shared_mean
from wmdeploy.training.optimizer import muon_and_adamw
from wmdeploy.training.plan import Distillation, Job, StagePlan, StageSettings
from wmdeploy.training.reference import coded_footage, held_out_quality
from wmdeploy.training.temporal_stage import latents_of
from wmdeploy.training.windows import WindowStage, spread

PLACES = 4  # frames of a window that the student decodes, the last of them from its own latent
TAUGHT = 1  # of them the full decoder, which costs many times what the student does, shows its own
SELF_FED = 0.25  # share of the latents given that are predictions themselves
CHANGED = 6.0  # what a pixel that changes counts more than one that stands still
L1 = 0.2  # share of the absolute error beside the squared one
VALIDATION_WINDOWS = 64
STRIP_FRAMES = 24
TRAINED, HELD_OUT = 1, 2  # end the keys that places are drawn from


class StudentDistillation(Distillation):
    """See `wmdeploy.training.plan.Distillation`. `batch` are frames."""

    defaults = {"student": StageSettings(steps=3000, batch=16, rate=4e-3)}

    def begin(self, model: WorldModel, student: str, seed: int) -> WorldModel:
        return with_student(model, student, seed)

    def digest(self, model: WorldModel) -> str:
        return weights_digest(model)

    def operations(self, model: WorldModel) -> dict[str, int]:
        deployed = family_of(model).deployment(model, "token", "fp32")
        found = {}
        for decoder in deployed.programs.decoders():
            (call,) = deployed.programs.rendering(decoder).render
            found[f"{decoder} decoder"] = deployed.graphs[call.graph]().operations()
        return found

    def stages(self, job: Job) -> list[StagePlan]:
        def student() -> "StudentStage":
            with job.accelerator.main_process_first():  # the others find what it left in the cache
                coded = [coded_footage(job, side) for side in ("training", "validation")]
            return StudentStage(job, coded[0], coded[1])

        return [StagePlan(StudentStage.name, job.settings["student"].steps, 1.0, student)]

    @torch.no_grad()
    def picture(self, job: Job, stage: str) -> np.ndarray:
        """Rows of held-out frames: real, and predicted by the full decoder and by the student."""
        footage, model = job.clips.validation, job.model
        count = min(STRIP_FRAMES, footage.spans.lengths[0])
        frames = footage.frames(np.arange(count))
        vq, device = model.vqvae.vq, model.vqvae.vq.embedding.weight.device
        latents = vq.lookup(encode_frames(model.vqvae, frames).long().to(device)).flatten(1)
        actions = None
        if model.config.temporal.num_actions and footage.actions is not None:
            actions = torch.from_numpy(footage.actions[:count]).to(device)
        following = following_latents(model, latents, actions)
        made = [decode_latents(model, following, d) for d in (None, model.student)]
        return strip([frames[1:], *made])

    def quality(self, job: Job) -> QualityReport:
        return held_out_quality(job, decoder=job.model.config.student.name)


class StudentLoss(nn.Module):
    """How far the student's frames are from the full decoder's, and from real ones."""

    def __init__(self, model: WorldModel) -> None:
        super().__init__()
        assert model.student is not None
        self.student = model.student
        self.frozen = [model]  # in a list: not a part of this module
        self.done, self.step = 0.0, 0

    def forward(
        self,
        codes: Tensor,
        places: Tensor,
        frames: Tensor,
        changed: Tensor,
        actions: Tensor | None = None,
    ) -> Tensor:
        """A scalar.

        Args:
            codes: (B, S + 1, N) integers.
            places: (B, P) int64 in [0, S): each stands for the frame that follows it.
            frames: (B, P, H, W, 3) uint8, these frames.
            changed: (B, P, H, W) bool, pixels that differ from the frame before by more than noise.
            actions: (B, S) int64 for a model with actions.
        """
        (model,) = self.frozen
        with torch.no_grad():
            latents = self.latents(codes, places, actions)  # (B, P, C, h, w)
            taught = model.vqvae.decode(latents[:, :TAUGHT].flatten(0, 1)).float()
        made = self.student(latents.flatten(0, 1)).float().unflatten(0, places.shape)
        weight = 1 + CHANGED * changed.unsqueeze(2).float()  # (B, P, 1, H, W)
        real = to_signal(frames.flatten(0, 1)).unflatten(0, places.shape)
        shown = slice(0, TAUGHT)
        return _distance(made, real, weight) + _distance(
            made[:, shown], taught.unflatten(0, (-1, TAUGHT)), weight[:, shown]
        )

    def latents(self, codes: Tensor, places: Tensor, actions: Tensor | None) -> Tensor:
        """What is decoded, (B, P, C, h, w): predictions, and last the real frame's own latent."""
        (model,) = self.frozen
        latents = latents_of(model.vqvae.vq, codes)  # (B, S + 1, L)
        given = latents[:, :-1]
        predicted = model.temporal_model(given, actions).float()
        if self.training:
            shifted = torch.cat([given[:, :1], predicted[:, :-1]], dim=1)
            replaced = torch.rand(given.shape[:2], device=given.device) < SELF_FED
            predicted = model.temporal_model(
                torch.where(replaced.unsqueeze(2), shifted, given), actions
            ).float()
        rows = torch.arange(len(places), device=places.device).unsqueeze(1)
        shown = predicted[rows, places]  # (B, P, L)
        shown[:, -1] = latents[rows[:, 0], places[:, -1] + 1]
        return shown.unflatten(2, model.config.vqvae.latent_shape)


def _distance(made: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Squared error and a share of the absolute one, (B, P, 3, H, W) each: the weighted mean."""
    error = made - target
    each = error.square() + L1 * error.abs()
    return (each * weight).sum() / (3 * shared_mean(weight.sum()))


class StudentStage(WindowStage):
    """See the module's docstring, and `wmdeploy.training.loop.Stage`."""

    name = "student"
    kinds = (StudentBlock,)

    def __init__(self, job: Job, training: CodedFootage, validation: CodedFootage) -> None:
        model, settings = job.model.eval().requires_grad_(False), job.settings[self.name]
        model.student.requires_grad_(True)
        self.steps, self.rate = settings.steps, settings.rate
        self.module = StudentLoss(model)
        self._actions = model.config.temporal.num_actions > 0
        length = model.config.temporal.context + 1
        size, key = max(1, settings.batch // PLACES), (job.options.seed, 0)
        super().__init__(training.spans, length, size, key, _windows(training, length))
        self._coded, self._footage = training, job.clips.training
        rng = np.random.default_rng([*key, 0, 0, HELD_OUT])
        self._held_out = [
            self._batch(validation, job.clips.validation, part, rng)
            for part in spread(_windows(validation, length), VALIDATION_WINDOWS, 4)
        ]

    def parameters(self) -> Iterator[nn.Parameter]:
        return self.module.student.parameters()

    def optimizers(self) -> list[Optimizer]:
        return muon_and_adamw(self.parameters(), self.rate)

    def batch(self, step: int, share: Share) -> Batch:
        rng = np.random.default_rng([*self._key, step, share.process, TRAINED])
        return self._batch(self._coded, self._footage, self.numbers(step, share), rng)

    def images(self) -> int:
        return PLACES * min(self._size, len(self._windows))

    def _batch(
        self,
        coded: CodedFootage,
        footage: Footage,
        firsts: np.ndarray,
        rng: np.random.Generator,
    ) -> Batch:
        """What `StudentLoss` takes, of windows that begin at `firsts` (B,)."""
        numbers, inside = coded.spans.window_frames(firsts, self._length)  # (B, S + 1)
        last = inside.sum(1) - 1  # the places of a window are below
        places = rng.integers(0, last[:, None], (len(firsts), PLACES))
        rows = np.arange(len(firsts))[:, None]
        before, after = (
            footage.frames(numbers[rows, at].ravel()).reshape(
                *places.shape, footage.size, footage.size, 3
            )
            for at in (places, places + 1)
        )
        moved = np.abs(before.astype(np.int16) - after).max(4) > CHANGED_LEVELS
        batch = {
            "codes": coded.codes[numbers],
            "places": torch.from_numpy(places),
            "frames": torch.from_numpy(after),
            "changed": torch.from_numpy(moved),
        }
        if self._actions and coded.actions is not None:
            batch["actions"] = coded.actions[numbers[:, :-1]]
        return batch


def _windows(coded: CodedFootage, length: int) -> np.ndarray:
    """First frames of windows in which a frame follows another, (windows,) int64."""
    firsts = coded.spans.windows(length)
    _, inside = coded.spans.window_frames(firsts, length)
    return firsts[inside[:, 1]]
