"""Strips of pictures, rows of frames one under the other; and the plot of an evaluation."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from wmdeploy.errors import require
from wmdeploy.files import staged_file
from wmdeploy.quality.report import HORIZONS, QualityReport

_GAP = 2
_GREY = 128


def strip(rows: Sequence[np.ndarray], columns: int = 8, scale: int = 1) -> np.ndarray:
    """Frames side by side, rows under each other.

    Args:
        rows: each (T, H, W, 3) uint8; `columns` of its frames are shown, spread evenly.
        scale: how many pixels on each side a pixel becomes.

    Returns:
        (H', W', 3) uint8.
    """
    lines = []
    for frames in rows:
        shown = frames[np.linspace(0, len(frames) - 1, columns).round().astype(int)]
        shown = shown.repeat(scale, axis=1).repeat(scale, axis=2)
        padded = np.pad(shown, ((0, 0), (0, _GAP), (0, _GAP), (0, 0)), constant_values=_GREY)
        lines.append(np.concatenate(list(padded), axis=1))
    return np.concatenate(lines)[:-_GAP, :-_GAP]


def write_picture(path: Path, picture: np.ndarray) -> None:
    """Write (H, W, 3) uint8 as a picture; the suffix says which kind.

    Raises:
        WmdeployError: it cannot be written.
    """
    from PIL import Image

    with staged_file(path) as staged:
        Image.fromarray(picture).quantize(256).save(staged, format="PNG", optimize=True)


def write_plot(report: QualityReport, path: Path) -> None:
    """PSNR over horizon, a panel for each group of clips, as a picture.

    Raises:
        WmdeployError: matplotlib is missing, or the picture cannot be written.
    """
    require("matplotlib", extra="train", purpose="drawing a plot")
    from matplotlib.figure import Figure

    groups = [group for group in report.groups if group.rollouts]
    figure = Figure(figsize=(3.2 * max(1, len(groups)), 3), layout="constrained")
    for index, group in enumerate(groups):
        axes = figure.add_subplot(1, len(groups), index + 1)
        for name, scores in group.rollouts.items():
            shown = {n: value for n, value in scores.psnr.items() if value is not None}
            axes.plot(list(shown), list(shown.values()), marker=".", label=name)
        axes.set_xscale("log", base=2)
        axes.set_xticks(HORIZONS, [str(n) for n in HORIZONS])
        axes.set_title(group.name, fontsize=9)
        axes.set_xlabel("horizon, frames")
        if index == 0:
            axes.set_ylabel("PSNR, dB")
            axes.legend(fontsize=8)
        axes.grid(alpha=0.3)
    with staged_file(path) as staged:
        figure.savefig(staged, format="png", dpi=100)
