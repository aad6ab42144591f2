"""Peak signal-to-noise ratio of frames, and what is reported of equal ones."""

import math

IDENTICAL_DB = 120.0  # of equal frames: above any PSNR of unequal uint8 frames of 256x256


def psnr(mse: float) -> float:
    """10·log10(255² / MSE) in dB, of levels in 0..255; at most `IDENTICAL_DB`, NaN of NaN."""
    if mse <= 0:
        return IDENTICAL_DB
    return min(10 * math.log10(255.0**2 / mse), IDENTICAL_DB)
