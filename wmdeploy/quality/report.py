"""What an evaluation tells. Plain values only: kept as JSON."""

from dataclasses import dataclass, field

from wmdeploy.codes import CodeCount
from wmdeploy.programs.contract import FULL

HORIZONS = (1, 2, 4, 8, 16, 32)


@dataclass(frozen=True)
class FrameScores:
    """How near frames are to the true ones.

    Attributes:
        psnr: 10·log10(255² / MSE) in dB over uint8 RGB, the MSE over all pixels of all frames;
            `IDENTICAL_DB` of equal ones, for which older versions wrote None.
        ssim: structural similarity (Wang et al. 2004), the mean over frames.
        psnr_changed: as psnr, over the pixels that differ from the frame before by more than 16
            levels; None where none do.
        sharpness: mean absolute difference between neighbouring pixels of a frame, where the true
            frame has changed, over that of the true frame: 1 is as sharp as real, less is blurred.
            None where nothing changes, or of older reports.
    """

    psnr: float | None
    ssim: float
    psnr_changed: float | None
    sharpness: float | None = None


@dataclass(frozen=True)
class LatentScores:
    """How near latents are to the true ones.

    Attributes:
        within: share of latent values within 0.1 of the true one, as the reference project counts
            accuracy. It depends on the scale of the latents: see `GroupReport.latent_deviation`.
        within_changed: the same at latent positions whose true code changes.
        codes: share of positions whose nearest code is the true one.
        codes_changed: the same where the true code changes. None, as above, where none does.
    """

    within: float
    within_changed: float | None
    codes: float
    codes_changed: float | None


@dataclass(frozen=True)
class RolloutScores:
    """Rollouts at the horizons of `HORIZONS`: the n-th imagined frame against the true one.

    Attributes:
        psnr: over all rollouts, by horizon; worst: of the worst rollout.
        worst_clip: which that is at the longest horizon: "clip from frame n on".
    """

    psnr: dict[int, float | None]
    worst: dict[int, float | None]
    worst_clip: str


@dataclass(frozen=True)
class AgainstFull:
    """How near a student decoder's frames are to the full decoder's of the same predictions.

    Attributes:
        psnr: in dB, of the mean squared error of all frames; worst: of the worst frame.
    """

    psnr: float
    worst: float


@dataclass(frozen=True)
class EncoderAgreement:
    """How many of a student encoder's codes are the full encoder's, of the same frames.

    Attributes:
        codes: share of all; codes_changed: of those that the full encoder changes from the frame
            before, None where it changes none.
    """

    codes: float
    codes_changed: float | None


@dataclass(frozen=True, kw_only=True)
class GroupReport:
    """Scores over some clips: one data folder's, or all.

    Attributes:
        name: of the data folder; "all".
        clips, frames: how many.
        following: each frame but a clip's first ones, from the true ones before it, by predictor:
            "model"; "ceiling" decodes the true latent; "copy" repeats the frame before; "linear"
            decodes the latent extrapolated from the two before; "full encoder" is the model with
            that in its student's place; or the name of a backend, or of a student decoder.
        rollouts: by predictor: "model", "copy", "linear", a backend's name or a student's.
        against_full: of `following`, the student's beside the model's; None without a student.
        encoder: of a student encoder that the full one stands beside; else None.
        reconstruction: every frame encoded and decoded. This and all below, as "ceiling" and
            "linear", is of the reference family alone, and None or empty of others.
        static_agreement: share of latent positions with the same code in two successive frames,
            where none of their pixels changes.
        codes_used, perplexity: how many codes occur, and exp of the entropy of their use.
        latent_deviation: standard deviation of the true latents' values.
        latents: as `following`, for latents: "model", "copy", "linear".
    """

    name: str
    clips: int
    frames: int
    following: dict[str, FrameScores]
    rollouts: dict[str, RolloutScores]
    against_full: AgainstFull | None = None
    encoder: EncoderAgreement | None = None
    reconstruction: FrameScores | None = None
    static_agreement: float | None = None
    codes_used: int | None = None
    perplexity: float | None = None
    latent_deviation: float | None = None
    latents: dict[str, LatentScores] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class QualityReport:
    """An evaluation of one model on clips that it was not trained on.

    Attributes:
        model: what was evaluated, and `backend` what else ran it, if anything.
        context: frames given to a rollout.
        decoder: the student that was compared with the full decoder, which is "model"; or "full".
        codebook_size: how many codes there are; None of a family without scores of codes.
        groups: each data folder, then "all".
        skipped: clips left out, with the reason: trained on, unreadable, too short.
        codes: the backend's beside the model's, from which it goes on where its own tie.
    """

    model: str
    backend: str | None
    context: int
    codebook_size: int | None
    groups: tuple[GroupReport, ...]
    skipped: tuple[str, ...]
    codes: CodeCount | None = None
    decoder: str = FULL

    @property
    def all(self) -> GroupReport:
        return self.groups[-1]
