"""What an evaluation tells. Plain values only: kept as JSON."""

from dataclasses import dataclass

from wmdeploy.codes import CodeCount

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
    """

    psnr: float | None
    ssim: float
    psnr_changed: float | None


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


@dataclass(frozen=True, kw_only=True)
class GroupReport:
    """Scores over some clips: one data folder's, or all.

    Attributes:
        name: of the data folder; "all".
        clips, frames: how many.
        reconstruction: every frame encoded and decoded.
        static_agreement: share of latent positions with the same code in two successive frames,
            where none of their pixels changes.
        codes_used, perplexity: how many codes occur, and exp of the entropy of their use.
        latent_deviation: standard deviation of the true latents' values.
        following: each frame but a clip's first, from up to S true ones before it, by predictor:
            "model"; "ceiling" decodes the true latent; "copy" repeats the frame before; "linear"
            decodes the latent extrapolated from the two before; or a backend's name.
        latents: the same for latents: "model", "copy", "linear".
        rollouts: by predictor: "model", "copy", "linear" or a backend's name.
    """

    name: str
    clips: int
    frames: int
    reconstruction: FrameScores
    static_agreement: float
    codes_used: int
    perplexity: float
    latent_deviation: float
    following: dict[str, FrameScores]
    latents: dict[str, LatentScores]
    rollouts: dict[str, RolloutScores]


@dataclass(frozen=True, kw_only=True)
class QualityReport:
    """An evaluation of one model on clips that it was not trained on.

    Attributes:
        model: what was evaluated, and `backend` what else ran it, if anything.
        context: frames given to a rollout.
        codebook_size: how many codes there are.
        groups: each data folder, then "all".
        skipped: clips left out, with the reason: trained on, unreadable, too short.
        codes: the backend's beside the model's, from which it goes on where its own tie.
    """

    model: str
    backend: str | None
    context: int
    codebook_size: int
    groups: tuple[GroupReport, ...]
    skipped: tuple[str, ...]
    codes: CodeCount | None = None

    @property
    def all(self) -> GroupReport:
        return self.groups[-1]
