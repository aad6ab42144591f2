"""`wmdeploy rollout`: imagine frames."""

from collections.abc import Iterable, Iterator
from itertools import chain, repeat
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wmdeploy.cli.common import app, example, out, print_notes
from wmdeploy.cli.options import (
    Backend,
    Context,
    Decoder,
    Device,
    DeviceName,
    Family,
    Fit,
    FitName,
    Fps,
    Refill,
    Seed,
    Series,
    from_hub,
    one_backend,
    read_options,
)
from wmdeploy.cli.progress import show_progress
from wmdeploy.files import check_output
from wmdeploy.programs.contract import FULL
from wmdeploy.progress import Progress

if TYPE_CHECKING:
    import numpy as np


@app.command(epilog=example("wmdeploy rollout bundles/pong data/pong/clip-00000.mkv -o dream.gif"))
def rollout(
    source: Annotated[
        str,
        typer.Argument(
            help="Bundle, or a model, which the PyTorch baseline runs.", callback=from_hub
        ),
    ],
    clip: Annotated[
        Path,
        typer.Argument(
            help="Clip of real frames: a video, picture folder, .npz or recorded clip.",
            callback=from_hub,
        ),
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="File to write: .mp4, .gif, .mkv or .npz.")
    ],
    context: Context = 8,
    horizon: Annotated[int, typer.Option(min=1, help="Number of frames to imagine.")] = 24,
    family: Family = None,
    backend: Backend = None,
    decoder: Decoder = FULL,
    device: Device = DeviceName.auto,
    refill: Refill = None,
    seed: Seed = 0,
    fps: Fps = None,
    fit: Fit = FitName.squeeze,
    series: Series = None,
) -> None:
    """Imagine the frames that follow a clip.

    A video shows the clip's real frames on the left, as far as it has them.
    """
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
    from wmdeploy.engines.rollout import open_source
    from wmdeploy.engines.rollout import rollout as imagine

    check_suffix(output)
    check_output(output, clip, Path(source))
    read = read_options(fps, fit, series)
    name = one_backend(backend)
    length = count_frames(clip, read)
    remarks: list[str] = []
    settings = Settings(device.value, decoder=decoder)
    engines = open_source(
        source, name, seed=seed, settings=settings, remarks=remarks, family=family
    )
    size = engines.image_size
    past = read_clip(clip, size=size, count=min(length, context), options=read)
    print_notes([*remarks, *past.remarks])
    takes_actions = engines.programs.action is not None
    actions = open_clip(clip, read).actions() if takes_actions else None
    frames = imagine(engines, past, context, horizon, refill=refill, actions=actions, seed=seed)
    with show_progress() as progress:
        frames = _counted(frames, horizon, progress)
        if output.suffix.lower() == ".npz":
            write_npz_frames(output, frames, horizon)
        else:
            if real := min(length - context, horizon):
                future = iter_frames(clip, size=size, start=context, count=real, options=read)
                frames = _beside(future, size, frames)
            write_video(output, frames, past.fps)
    out.print(f"{horizon} frames imagined by {engines.name} on {engines.device}: {output}")


def _beside(
    future: Iterable["np.ndarray"], size: int, imagined: Iterable["np.ndarray"]
) -> Iterator["np.ndarray"]:
    """Real frames, black once they end, left of imagined ones."""
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
