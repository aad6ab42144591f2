"""What a tie is: two codes between which the rounding of a precision cannot decide.

    ties = find_ties(vqvae.encoder, vqvae.vq, frames, expected, got, "fp32")
    ties.tied                # (T, N) bool
    str(ties.count)          # "1 of 2,560 codes tied (distances equal to 2.4e-06)"

Knows no engine; `wmdeploy/codes.py` has what the rest of the code sees of ties.
"""

import copy
from typing import TYPE_CHECKING

import numpy as np

from wmdeploy.codes import CodeCount, Ties, add_counts
from wmdeploy.manifest import Precision

if TYPE_CHECKING:
    from torch import Tensor, nn

    from wmdeploy.families.reference.vqvae import VectorQuantizer

FLOAT32_ROUNDING = 2.0**-24  # relative, of one operation
DEVIATIONS = 6.0  # standard deviations that are still taken for rounding


def find_ties(
    encoder: "nn.Module",
    vq: "VectorQuantizer",
    frames: np.ndarray,
    expected: np.ndarray,
    got: np.ndarray,
    precision: Precision,
) -> Ties:
    """Decide which codes that differ are ties; the one place where that is decided.

    A backend chose the vector b where PyTorch chose a. By PyTorch's float32 latent z, b is further
    off by Δ = |z - b|² - |z - a|², which is computed in float64. They tie if rounding alone may
    change Δ by as much:

    - The latent. Another run rounds otherwise in every layer, so its latent is z + δ, and Δ changes
      by 2·δ·(a - b). How large δ is depends on the weights, as norms over flat parts of a frame
      amplify: in float32 1e-5 of |z| (`small`) to 2e-3 (tests/golden). So it is measured, at each
      place of each frame: ε is the distance between the latents of this encoder in float32 and in
      float64; for fp16, in float16 and in float32. Both runs may be that far off: |δ| <= 2·ε, and
      Δ changes by at most 4·ε·|a - b| (Cauchy and Schwarz). Rounding has no direction: along one
      of C directions its standard deviation is ε / √C. `DEVIATIONS` of them make 12·ε·|a - b| / √C,
      which counts where it is less.
    - The distances. Each is |e|² - 2·z·e, a sum of C + 1 terms that add up to at most
      |e|² + 2·|z|·|e|, in float32 in every precision, with rounding of u = 2⁻²⁴ in each term. The
      signs of rounding are random, and its sum grows with √(C + 1) (Higham and Mary 2019), of which
      `DEVIATIONS` are taken.

    Frames without another code are not encoded.

    Args:
        encoder, vq: float32, of one VQ-VAE, on any device.
        frames: (T, H, W, 3) uint8.
        expected: (T, N) int, PyTorch's codes in float32.
        got: (T, N) int, the backend's; those that are no index of the codebook are wrong.
        precision: of the backend.
    """
    import torch

    from wmdeploy.families.precision import exact_float32
    from wmdeploy.families.reference.world_model import to_signal

    differs = expected != got
    tied = np.zeros(differs.shape, bool)
    counts = [CodeCount(codes=differs.size)]
    other: nn.Module | None = None  # copied once, and only if a code differs
    for index in np.flatnonzero(differs.any(1)):
        other = other or _other_precision(encoder, precision)
        with torch.inference_mode(), exact_float32():
            x = to_signal(torch.tensor(frames[index][None]).to(vq.embedding.weight.device))
            latent, again = encoder(x), other(x.to(next(other.parameters()).dtype))
            unsteady = (vq.nearest(latent) != vq.nearest(again.to(latent.dtype))).sum()
            margin, rounding = _margins(latent, again, vq, expected[index], got[index])
        here = differs[index]
        tied[index] = here & (margin <= rounding) & np.isfinite(rounding)
        counts.append(_count(here, tied[index], margin, rounding, int(unsteady)))
    return Ties(tied, add_counts(counts))


def _other_precision(encoder: "nn.Module", precision: Precision) -> "nn.Module":
    """The encoder that shows, beside float32, how much the rounding of a precision changes."""
    from wmdeploy.families.half import to_half

    return copy.deepcopy(encoder).double() if precision == "fp32" else to_half(encoder)


def _margins(
    latent: "Tensor", again: "Tensor", vq: "VectorQuantizer", a: np.ndarray, b: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Δ and what rounding explains, see `find_ties`; both (N,), over the squared distance of a.

    Args:
        latent, again: (1, C, h, w), of float32 and of the other precision.
        a, b: (N,) codes of PyTorch and of the backend.
    """
    import torch

    codebook = vq.embedding.weight.double().cpu()  # (K, C)
    z, z_again = (x[0].flatten(1).T.double().cpu() for x in (latent, again))  # (N, C)
    valid = (b >= 0) & (b < len(codebook))
    at_a, at_b = codebook[torch.tensor(a)], codebook[torch.tensor(np.where(valid, b, 0))]
    distance = (z - at_a).square().sum(1)
    margin = ((z - at_b).square().sum(1) - distance).abs()
    width = z.shape[1]
    apart = (at_a - at_b).norm(dim=1)
    of_latent = min(4.0, 2 * DEVIATIONS / width**0.5) * (z - z_again).norm(dim=1) * apart
    longest = torch.maximum(at_a.norm(dim=1), at_b.norm(dim=1))
    terms = longest.square() + 2 * longest * z.norm(dim=1)
    of_distances = DEVIATIONS * (width + 1) ** 0.5 * FLOAT32_ROUNDING * terms
    scale = distance.clamp_min(torch.finfo(torch.float32).tiny)
    relative = np.where(valid, (margin / scale).numpy(), np.inf)
    return relative, ((of_latent + of_distances) / scale).numpy()


def _count(
    differs: np.ndarray,
    tied: np.ndarray,
    margin: np.ndarray,
    rounding: np.ndarray,
    unsteady: int,
) -> CodeCount:
    """Of one frame, all (N,), as a part of a count that knows how many codes there are."""
    wrong = differs & ~tied
    furthest = np.argmax(np.where(wrong, margin, -1.0) if wrong.any() else rounding * tied)
    return CodeCount(
        codes=0,
        tied=int(tied.sum()),
        wrong=int(wrong.sum()),
        unsteady=unsteady,
        tie_margin=float(margin[tied].max(initial=0.0)),
        wrong_margin=float(np.nan_to_num(margin[wrong]).max(initial=0.0)),
        rounding=float(np.nan_to_num(rounding[furthest])),
    )
