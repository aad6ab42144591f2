"""What a finished training tells. Plain values only: kept as JSON beside the weights."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ValidationMetrics:
    """How good a model is on the clips that were held out.

    Every PSNR is 10·log10(255² / MSE) in dB over uint8 RGB, where MSE is the mean over frames of
    each frame's mean squared error; at most 100. The last three are over the same frames: all but
    the first of each clip.

    Attributes:
        frames: how many frames were held out.
        psnr_reconstruction: every frame encoded and decoded.
        psnr_next: each frame predicted from up to S true frames before it, then decoded.
        psnr_copy: each frame taken to be the one before it. Better predictions are above this.
        psnr_ceiling: each frame's own latent decoded. No prediction is expected above this.
        codes_used: how many codes of the codebook occur.
        codebook_size: of how many.
        perplexity: exp of the entropy of the codes; equals codes_used where all are as frequent.
    """

    frames: int
    psnr_reconstruction: float
    psnr_next: float
    psnr_copy: float
    psnr_ceiling: float
    codes_used: int
    codebook_size: int
    perplexity: float


@dataclass(frozen=True)
class TrainSummary:
    """What was trained, how long it took, and how good it is.

    Attributes:
        fresh: False where `output` held this very model already, so that nothing was trained.
        output: the model directory.
        training_frames: frames that the steps were drawn from.
        num_actions: what the transformer is conditioned on; 0 for nothing.
        vqvae_steps: optimizer steps of the first stage; `temporal_steps` of the second.
        vqvae_seconds: time of those steps, over all runs that it took; `temporal_seconds` alike.
        images_per_second: frames trained on in a second of the first stage.
        validation: on the clips that were held out.
    """

    fresh: bool
    output: Path
    training_frames: int
    num_actions: int
    vqvae_steps: int
    temporal_steps: int
    vqvae_seconds: float
    temporal_seconds: float
    images_per_second: float
    validation: ValidationMetrics
