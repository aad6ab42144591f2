"""`wmdeploy record`: play a game and record clips."""

from pathlib import Path
from typing import Annotated

import typer

from wmdeploy.cli.common import app, example, out
from wmdeploy.cli.options import Seed
from wmdeploy.cli.progress import show_progress


@app.command(epilog=example("wmdeploy record pong -o data/pong --frames 3000 --size 64"))
def record(
    game: Annotated[str, typer.Argument(help="Atari game, such as pong, ms_pacman or Riverraid.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Data folder to write.")],
    frames: Annotated[int, typer.Option(min=1, help="Number of frames in all clips together.")],
    seed: Seed = 0,
    size: Annotated[int, typer.Option(help="Height and width of the frames, in pixels.")] = 256,
    frame_skip: Annotated[int, typer.Option(help="Emulator frames per recorded frame.")] = 4,
    clip_frames: Annotated[int, typer.Option(help="Largest number of frames in a clip.")] = 500,
    stickiness: Annotated[
        float, typer.Option(help="Probability that the emulator repeats the previous action.")
    ] = 0.0,
    all_actions: Annotated[
        bool,
        typer.Option(
            "--all-actions", help="Use all 18 actions, so that games can be mixed in one training."
        ),
    ] = False,
) -> None:
    """Play an Atari game with a random policy, and record clips with their actions."""
    from wmdeploy.clips import RecordOptions
    from wmdeploy.clips import record as record_game

    options = RecordOptions(
        game=game,
        frames=frames,
        seed=seed,
        size=size,
        frame_skip=frame_skip,
        stickiness=stickiness,
        clip_frames=clip_frames,
        all_actions=all_actions,
    )
    with show_progress() as progress:
        summary = record_game(options, output, progress)
    out.print(
        f"{summary.frames} frames of {summary.game} in {summary.clips} clips, "
        f"{summary.num_actions} actions, {summary.size_bytes / 1e6:.1f} MB: {output}",
    )
