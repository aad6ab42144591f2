"""`wmdeploy rollout`: imagine frames."""

from collections.abc import Iterable, Iterator
from itertools import chain, repeat
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wmdeploy.cli.common import (
    DeviceName,
    Fit,
    FitName,
    Fps,
    Seed,
    Series,
    app,
    example,
    out,
    read_options,
    tell,
)
from wmdeploy.cli.progress import show_progress
from wmdeploy.files import check_output
from wmdeploy.progress import Progress

if TYPE_CHECKING:
    import numpy as np


@app.command(epilog=example("wmdeploy rollout bundles/pong data/pong/clip-00000.mkv -o dream.gif"))
def rollout(
    source: Annotated[str, typer.Argument(help="A bundle, or a model (run by the baseline).")],
    clip: Annotated[Path, typer.Argument(help="Video, picture folder, .npz or clip.")],
    output: Annotated[Path, typer.Option("-o", "--output", help=".mp4, .gif, .mkv or .npz")],
    context: Annotated[int, typer.Option(min=1, help="Frames given.")] = 8,
    horizon: Annotated[int, typer.Option(min=1, help="Frames imagined.")] = 24,
    backend: Annotated[str | None, typer.Option(help="For a bundle; default ort-cpu.")] = None,
    device: Annotated[
        DeviceName, typer.Option(help="Of PyTorch backends; auto: a GPU if there is one.")
    ] = DeviceName.auto,
    refill: Annotated[int | None, typer.Option(help="Tokens kept when the window is full.")] = None,
    seed: Seed = 0,
    fps: Fps = None,
    fit: Fit = FitName.squeeze,
    series: Series = None,
) -> None:
    """Imagine the frames that follow a clip. Videos show the real future on the left, if known."""
    from wmdeploy.clips import (
        check_suffix,
        count_frames,
        iter_frames,
        read_clip,
        write_npz_frames,
        write_video,
    )
    from wmdeploy.clips.read import open_source as open_clip
    from wmdeploy.engines.base import Settings
    from wmdeploy.engines.rollout import image_size, open_source
    from wmdeploy.engines.rollout import rollout as imagine

    check_suffix(output)
    check_output(output, clip, Path(source))
    read = read_options(fps, fit, series)
    have = count_frames(clip, read)
    remarks: list[str] = []
    engines = open_source(source, backend, seed, Settings(device.value), remarks)
    size = image_size(engines)
    past = read_clip(clip, size=size, count=min(have, context), options=read)
    tell([*remarks, *past.remarks])
    frames = imagine(engines, past, context, horizon, refill, open_clip(clip, read).actions())
    with show_progress() as progress:
        frames = _counted(frames, horizon, progress)
        if output.suffix.lower() == ".npz":
            write_npz_frames(output, frames, horizon)
        else:
            if known := min(have - context, horizon):
                future = iter_frames(clip, size=size, start=context, count=known, options=read)
                frames = _beside(future, size, frames)
            write_video(output, frames, past.fps)
    out.print(f"{horizon} frames imagined by {engines.name} on {engines.device}: {output}")


def _beside(
    future: Iterable["np.ndarray"], size: int, imagined: Iterable["np.ndarray"]
) -> Iterator["np.ndarray"]:
    """What really came, and black where it ends, left of what is imagined."""
    import numpy as np

    from wmdeploy.clips import side_by_side

    black = np.zeros((size, size, 3), np.uint8)
    for real, frame in zip(chain(future, repeat(black)), imagined, strict=False):
        yield side_by_side(real[None], frame[None])[0]


def _counted(
    frames: Iterable["np.ndarray"], total: int, progress: Progress
) -> Iterator["np.ndarray"]:
    for done, frame in enumerate(frames, start=1):
        progress("imagine", done, total)
        yield frame
