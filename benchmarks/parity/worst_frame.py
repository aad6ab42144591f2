"""A picture of the worst frame: the baseline's, the backend's, and their difference, amplified."""

import base64
import io

import numpy as np
from PIL import Image

HIGHEST = 256  # pixels of one frame
GAP = 2


def picture(expected: np.ndarray, got: np.ndarray) -> str:
    """A PNG in base64, three frames side by side with nothing (transparent) between them.

    Args:
        expected, got: the baseline's frame and the backend's, (H, W, 3) uint8. Of their difference
            the largest level is shown as 255.
    """
    difference = np.abs(expected.astype(np.int16) - got)
    amplified = difference * (255 / max(1, int(difference.max())))
    frames = [_shown(f) for f in (expected, got, np.round(amplified).astype(np.uint8))]
    width, height = frames[0].size
    picture = Image.new("RGBA", (3 * width + 2 * GAP, height), (0, 0, 0, 0))
    for place, frame in enumerate(frames):
        picture.paste(frame, (place * (width + GAP), 0))
    data = io.BytesIO()
    picture.save(data, "PNG", optimize=True)
    return base64.b64encode(data.getvalue()).decode()


def _shown(frame: np.ndarray) -> Image.Image:
    picture = Image.fromarray(frame)
    if picture.height <= HIGHEST:
        return picture
    return picture.resize((round(picture.width * HIGHEST / picture.height), HIGHEST))
