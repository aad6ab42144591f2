"""From a frame of any shape to a square: squeezed, cropped or padded, always by exact area means.

Knows one frame, and how wide its pixels are.
"""

import numpy as np

from wmdeploy.clips.source import Fit


def area_resize(
    frame: np.ndarray, size: int, fit: Fit = "squeeze", pixel_aspect: float = 1.0
) -> np.ndarray:
    """Resize one frame to `size` x `size` by exact area interpolation.

    Each new pixel is the mean of the area it covers, to within one level (Pillow rounds after each
    axis), so nothing smaller than a pixel is lost, as a ball of two pixels would be with other
    filters. A frame of that size already, with square pixels, comes back as is.

    Args:
        frame: (H, W, 3) uint8.
        size: both sides of the result, at least 1.
        fit: see `ReadOptions`.
        pixel_aspect: width of a pixel over its height.
    """
    from PIL import Image

    height, width = frame.shape[:2]
    shape = width * pixel_aspect / height
    if frame.shape[:2] == (size, size) and (fit == "squeeze" or shape == 1):
        return frame
    picture = Image.fromarray(frame)
    if fit == "crop":
        left = max(0, width - width / shape) / 2
        top = max(0, height - height * shape) / 2
        box = (left, top, width - left, height - top)
        return np.array(picture.resize((size, size), Image.Resampling.BOX, box))
    if fit == "squeeze":
        return np.array(picture.resize((size, size), Image.Resampling.BOX))
    inner = max(1, round(size * min(1, shape))), max(1, round(size / max(1, shape)))
    square = Image.new("RGB", (size, size))  # black
    place = (size - inner[0]) // 2, (size - inner[1]) // 2
    square.paste(picture.resize(inner, Image.Resampling.BOX), place)
    return np.array(square)


def squeezed(frame: np.ndarray, size: int, pixel_aspect: float) -> str | None:
    """A note where squeezing (H, W, 3) to a square changes its shape by more than 2%."""
    height, width = frame.shape[:2]
    shape = width * pixel_aspect / height
    if max(shape, 1 / shape) <= 1.02:
        return None
    pixels = "" if pixel_aspect == 1 else f" with pixels {pixel_aspect:.4g} times as wide as high"
    return (
        f"frames of {width}x{height}{pixels} are squeezed to {size}x{size}; "
        "the fits crop and pad keep their aspect ratio"
    )
