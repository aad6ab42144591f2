"""Sums over the frames of many clips, and the scores that come of them."""

import dataclasses
from dataclasses import dataclass, field

import numpy as np
import torch
from einops import reduce
from torch import Tensor
from torchmetrics import MeanMetric
from torchmetrics.image import PeakSignalNoiseRatio

from wmdeploy.families.reference.vqvae import VectorQuantizer
from wmdeploy.psnr import IDENTICAL_DB, psnr
from wmdeploy.quality.report import (
    HORIZONS,
    AgainstFull,
    EncoderAgreement,
    FrameScores,
    GroupReport,
    LatentScores,
    RolloutScores,
)

NEAR = 0.1  # what the reference project takes for accurate
_CHUNK = 32  # frames


@dataclass
class FrameSums:
    """Sums for `FrameScores`."""

    whole: PeakSignalNoiseRatio = field(default_factory=lambda: _psnr())
    changed: PeakSignalNoiseRatio = field(default_factory=lambda: _psnr())
    structure: MeanMetric = field(default_factory=lambda: _mean())
    any_changed: bool = False
    # of neighbouring pixels that differ, where the true frame has changed: predicted, true
    edges: np.ndarray = field(default_factory=lambda: np.zeros(2))

    def add(
        self, predictions: np.ndarray, true: np.ndarray, changed: np.ndarray, similarity: Tensor
    ) -> None:
        """(T, H, W, 3) uint8 twice, (T, H, W) bool, and (T,) SSIM."""
        self.structure.update(similarity)
        self.any_changed |= bool(changed.any())
        for start in range(
            0, len(predictions), _CHUNK
        ):  # in float64 a frame takes eight times as much
            here = slice(start, start + _CHUNK)
            one, other, moved = predictions[here], true[here], changed[here]
            self.whole.update(torch.tensor(one).double(), torch.tensor(other).double())
            if moved.any():
                self.changed.update(
                    torch.tensor(one[moved]).double(), torch.tensor(other[moved]).double()
                )
                self.edges += [_edges(one, moved), _edges(other, moved)]

    def scores(self) -> FrameScores:
        return FrameScores(
            psnr=_decibels(self.whole),
            ssim=float(self.structure.compute()),
            psnr_changed=_decibels(self.changed) if self.any_changed else None,
            sharpness=float(self.edges[0] / self.edges[1]) if self.edges[1] else None,
        )


@dataclass
class FullSums:
    """Sums for `AgainstFull`."""

    errors: list[np.ndarray] = field(default_factory=list)

    def add(self, student: np.ndarray, full: np.ndarray) -> None:
        """(T, H, W, 3) uint8 twice, of the same predictions."""
        pairs = zip(student, full, strict=True)
        self.errors.append(np.array([np.square(a.astype(np.float32) - b).mean() for a, b in pairs]))

    def scores(self) -> AgainstFull | None:
        if not self.errors:
            return None
        each = np.concatenate(self.errors)
        return AgainstFull(psnr(float(each.mean())), psnr(float(each.max())))


@dataclass
class AgreementSums:
    """Sums for `EncoderAgreement`."""

    all: MeanMetric = field(default_factory=lambda: _mean())
    changed: MeanMetric = field(default_factory=lambda: _mean())

    def add(self, student: Tensor, full: Tensor, before: int) -> None:
        """Codes (T, N) twice, of the same frames; `before` of them were counted before."""
        same = student == full
        self.all.update(same[before:].double())
        changed = full[1:] != full[:-1]
        if changed.any():
            self.changed.update(same[1:][changed].double())

    def scores(self) -> EncoderAgreement | None:
        if self.all.weight == 0:
            return None
        changed = float(self.changed.compute()) if self.changed.weight > 0 else None
        return EncoderAgreement(float(self.all.compute()), changed)


@dataclass
class LatentSums:
    """Sums for `LatentScores`: means weighted by how many there are."""

    vq: VectorQuantizer
    means: dict[str, MeanMetric] = field(default_factory=dict)

    def add(self, guess: Tensor, latents: Tensor, codes: Tensor) -> None:
        """(T - 1, L) for the latents after the first of (T, L), whose codes are (T, N)."""
        side = int(codes.shape[1] ** 0.5)
        shape = (-1, self.vq.embedding.embedding_dim, side, side)
        near = (guess - latents[1:]).abs() <= NEAR  # (T - 1, L)
        near = near.view(shape).flatten(2).float().mean(1)  # (T - 1, N)
        chosen = [self.vq.nearest(part.reshape(shape)) for part in guess.split(64)]
        right = (torch.cat(chosen) == codes[1:]).float()
        changed = codes[1:] != codes[:-1]
        self._add("within", near.flatten())
        self._add("within_changed", near[changed])
        self._add("codes", right.flatten())
        self._add("codes_changed", right[changed])

    def _add(self, name: str, values: Tensor) -> None:
        if len(values):
            self.means.setdefault(name, _mean()).update(values.cpu().double())

    def scores(self) -> LatentScores:
        means = {name: float(mean.compute()) for name, mean in self.means.items()}
        return LatentScores(
            within=means["within"],
            within_changed=means.get("within_changed"),
            codes=means["codes"],
            codes_changed=means.get("codes_changed"),
        )


class FrameTally:
    """All sums of one group that are of frames."""

    def __init__(self) -> None:
        self.clips = self.frames = 0
        self.following: dict[str, FrameSums] = {}
        self.against_full = FullSums()
        # predictor -> its rollouts: where, and the MSE by horizon
        self.errors: dict[str, list[tuple[str, np.ndarray]]] = {}

    def frame_sums(self, who: str) -> FrameSums:
        return self.following.setdefault(who, FrameSums())

    def add_rollout(self, who: str, predictions: np.ndarray, true: np.ndarray, place: str) -> None:
        error = np.square(predictions.astype(float) - true).mean((1, 2, 3))
        self.errors.setdefault(who, []).append((place, error))

    def report(self, name: str) -> GroupReport:
        return GroupReport(
            name=name,
            clips=self.clips,
            frames=self.frames,
            following={who: sums.scores() for who, sums in self.following.items()},
            rollouts={who: _rollout_scores(places) for who, places in self.errors.items()},
            against_full=self.against_full.scores(),
        )


class Tally(FrameTally):
    """All sums of one group, of the reference family."""

    def __init__(self, vq: VectorQuantizer) -> None:
        super().__init__()
        self.vq = vq
        self.reconstruction = FrameSums()
        self.agreement = AgreementSums()
        self.static = _mean()
        self.uses = torch.zeros(len(vq.embedding.weight), dtype=torch.int64)
        self.moments = torch.zeros(3, dtype=torch.float64)  # of the latents: count, sum, squares
        self.latents: dict[str, LatentSums] = {}

    def latent_sums(self, who: str) -> LatentSums:
        return self.latents.setdefault(who, LatentSums(self.vq))

    def add_codes(self, frames: np.ndarray, codes: Tensor, latents: Tensor, before: int) -> None:
        """`before` of the frames, at most the first, were counted before."""
        self.frames += len(frames) - before
        codes = codes.cpu()
        self.uses += codes[before:].flatten().bincount(minlength=len(self.uses))
        values = latents[before:].cpu().double()
        self.moments += torch.stack(
            [torch.tensor(float(values.numel())), values.sum(), values.square().sum()]
        )
        patch = frames.shape[1] // int(codes.shape[1] ** 0.5)
        moved = (frames[1:] != frames[:-1]).any(3)
        still = ~torch.from_numpy(
            reduce(moved, "t (h p) (w q) -> t (h w)", "max", p=patch, q=patch)
        )
        if still.any():
            self.static.update((codes[1:] == codes[:-1])[still].double())

    def report(self, name: str) -> GroupReport:
        shares = self.uses[self.uses > 0] / self.uses.sum()
        count, total, squares = self.moments.tolist()
        return dataclasses.replace(
            super().report(name),
            encoder=self.agreement.scores(),
            reconstruction=self.reconstruction.scores(),
            static_agreement=float(self.static.compute()) if self.static.weight > 0 else 1.0,
            codes_used=len(shares),
            perplexity=float(torch.exp(-(shares * shares.log()).sum())),
            latent_deviation=max(0.0, squares / count - (total / count) ** 2) ** 0.5,
            latents={who: sums.scores() for who, sums in self.latents.items()},
        )


def _rollout_scores(places: list[tuple[str, np.ndarray]]) -> RolloutScores:
    errors = np.stack([error for _, error in places])  # (rollouts, horizons)
    return RolloutScores(
        psnr=dict(zip(HORIZONS, map(psnr, errors.mean(0).tolist()), strict=True)),
        worst=dict(zip(HORIZONS, map(psnr, errors.max(0).tolist()), strict=True)),
        worst_clip=places[int(errors[:, -1].argmax())][0],
    )


def _edges(frames: np.ndarray, where: np.ndarray) -> float:
    """Sum over (T, H, W) of how much a pixel differs from those beside and below it, where asked.

    Args:
        frames: (T, H, W, 3) uint8.
        where: (T, H, W) bool.
    """
    values = frames.astype(np.int16)
    beside = np.abs(np.diff(values, axis=2, append=values[:, :, -1:])).sum(3)
    below = np.abs(np.diff(values, axis=1, append=values[:, -1:])).sum(3)
    return float((beside + below)[where].sum())


def _psnr() -> PeakSignalNoiseRatio:
    metric = PeakSignalNoiseRatio(data_range=255.0, sync_on_compute=False)
    metric.set_dtype(torch.float64)
    return metric


def _mean() -> MeanMetric:
    return MeanMetric(sync_on_compute=False)  # of several processes one measures, all clips


def _decibels(metric: PeakSignalNoiseRatio) -> float:
    return min(float(metric.compute()), IDENTICAL_DB)
