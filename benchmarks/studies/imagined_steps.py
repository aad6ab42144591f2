"""What an agent's environment gives: frames per second beside the model as its authors run it.

    python -m wmdeploy.benchmarks.studies.imagined_steps bundles/game data/game

The same loop of a vector environment on a backend and on the baseline in PyTorch, in turns in one
process, with the same random actions. A turn is as many steps as the model's context has frames, so
that windows that slide or start again count as often as they occur. All rows of both are at the
same frame of their episodes: authors imagine so, to a fixed horizon, and rows at different ones
would hold up a baseline that runs them apart. Printed as Markdown.
"""

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import typer

from wmdeploy.benchmarks.studies import run_study
from wmdeploy.benchmarks.studies.pool_rows import in_turns
from wmdeploy.bundle import Bundle
from wmdeploy.clips.find import find_clips
from wmdeploy.clips.read import read_clip
from wmdeploy.engines.base import BASELINE, Settings, load_backend
from wmdeploy.envs.vector import WorldModelVectorEnv
from wmdeploy.programs.engine import Backend

ENDS = ("out.end", "out.cont")


def main(
    bundle: Annotated[Path, typer.Argument(help="A bundle of a model with actions and a reward.")],
    clips: Annotated[Path, typer.Argument(help="Clips to start from, with actions.")],
    backend: str = "ort-cpu",
    device: Annotated[Literal["cpu", "cuda"], typer.Option(help="Of the baseline.")] = "cpu",
    threads: Annotated[int | None, typer.Option(help="Of both; none: as they choose.")] = None,
    rows: Annotated[int, typer.Option(min=1)] = 16,
    context: Annotated[int, typer.Option(min=1, help="Real frames before an episode.")] = 4,
    turns: Annotated[int, typer.Option(min=1)] = 7,
    max_steps: Annotated[int, typer.Option(min=1, help="Frames of an episode.")] = 200,
) -> None:
    opened = Bundle.open(bundle)
    steps = max(opened.manifest.programs.context, 8)
    envs = []
    for name in (backend, BASELINE):
        loaded = endless(load_backend(name, opened, Settings(device, threads=threads)))
        size = loaded.image_size
        read = [read_clip(path, size=size) for path in find_clips(clips)]
        env = WorldModelVectorEnv(
            loaded, read, num_envs=rows, context=context, max_steps=max_steps, seed=0
        )
        env.action_space.seed(0)
        env.reset()
        envs.append(env)

    def play(env: WorldModelVectorEnv) -> None:
        for _ in range(steps):
            env.step(np.asarray(env.action_space.sample()))

    quick, slow = in_turns(lambda: play(envs[0]), lambda: play(envs[1]), turns)
    frames = rows * steps
    print(f"| {bundle.name}, {rows} rows, {turns} turns of {steps} steps | frames per second |")
    print("|---|---:|")
    print(f"| environment on {backend} | {frames / quick:.1f} |")
    print(f"| environment on {BASELINE} | {frames / slow:.1f} |")
    print(f"| ratio | {slow / quick:.2f}x |")
    print(
        "\nRows step together: ends that the model predicts are ignored, and all episodes start "
        f"anew after {max_steps} frames."
    )


def endless(backend: Backend) -> Backend:
    """The same, with no end predicted: episodes last as long as the environment says."""
    programs = backend.programs
    predict = tuple(
        dataclasses.replace(call, gives={t: n for t, n in call.gives.items() if t not in ENDS})
        for call in programs.predict
    )
    return dataclasses.replace(backend, programs=dataclasses.replace(programs, predict=predict))


if __name__ == "__main__":
    run_study(main)
