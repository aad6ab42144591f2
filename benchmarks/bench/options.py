"""What to bench, checked before any work; and the workers that follow from it."""

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from wmdeploy.benchmarks.protocol import Job
from wmdeploy.bundle import Bundle
from wmdeploy.clips.clip import Clip
from wmdeploy.clips.read import count_frames, read_clip
from wmdeploy.clips.source import ReadOptions
from wmdeploy.engines.base import BACKENDS, BASELINE, Settings
from wmdeploy.errors import BackendError, ClipError
from wmdeploy.files import real_path

LONGEST_HORIZON = 4096
LARGEST_BATCH = 1024


@dataclass(frozen=True)
class Effort:
    """How long the backends take turns at one stage.

    Attributes:
        runs: rounds, at least; fewer of a stage whose rounds take seconds.
        seconds: for each backend; when they are spent, the stage ends, precise or not.
        precision: half the width of the speed-up's 95% interval, relative, that is aimed at.
        block_ms: about how long a backend runs before the next has its turn.
    """

    runs: int = 12
    seconds: float = 3.0
    precision: float = 0.015
    block_ms: float = 50.0


@dataclass(frozen=True)
class BenchOptions:
    """What to compare.

    Attributes:
        clips: parity is measured on all, times on the first.
        horizon: frames imagined on each clip; None is 4·S.
        refill: as in `Session`, the baseline's too.
        batches: besides batch 1, whole frames and steps are timed for each that a backend takes.
        threads: of backends on the CPU, which run once for each number; empty: their own choice.
        fps: frames per second that are asked for in the pacing, which lasts `pace_seconds`; None:
            no pacing.
        swap: whether to find out which graph brings the error in.
        read: how the clips are read.
    """

    bundle: Path
    clips: tuple[Path, ...]
    backends: tuple[str, ...] = tuple(BACKENDS)
    context: int = 8
    horizon: int | None = None
    refill: int | None = None
    batches: tuple[int, ...] = (1,)
    threads: tuple[int, ...] = ()
    settings: Settings = Settings()
    effort: Effort = field(default_factory=Effort)
    fps: float | None = None
    pace_seconds: float = 5.0
    swap: bool = False
    read: ReadOptions = ReadOptions()


def check(options: BenchOptions, context: int, cpus: int) -> int:
    """The horizon, once every option has been found to be in its range.

    Args:
        context: S of the bundle.
        cpus: how many CPUs this process may use.

    Raises:
        BackendError: an unknown backend, or an option out of range.
    """
    seconds, refill = options.effort.seconds, options.refill
    if not 0 <= seconds < math.inf or not (refill is None or 1 <= refill < context):
        raise BackendError(
            f"bench: got {seconds} seconds and refill {refill}, expected finite seconds of 0 or "
            f"more and a refill of 1 to {context - 1}"
        )
    if not 0 < options.effort.precision < 1:
        raise BackendError(
            f"--within: got {100 * options.effort.precision:g}, expected percents above 0 and "
            "below 100"
        )
    horizon = 4 * context if options.horizon is None else options.horizon
    if not 1 <= options.context <= context or not 1 <= horizon <= LONGEST_HORIZON:
        raise BackendError(
            f"bench: got context {options.context} and horizon {horizon}, expected a context of "
            f"1 to {context} and a horizon of 1 to {LONGEST_HORIZON}"
        )
    for option, numbers, most in (
        ("--batch", options.batches, LARGEST_BATCH),
        ("--threads", options.threads, cpus),
    ):
        if not all(1 <= number <= most for number in numbers):
            told = ", ".join(map(str, numbers))
            raise BackendError(f"{option}: got {told}, expected numbers of 1 to {most}")
    fps, lasts = options.fps, options.pace_seconds
    if fps is not None and not (0 < fps <= 1000 and 0 < lasts < math.inf and fps * lasts >= 2):
        raise BackendError(
            f"bench: got {fps:g} frames per second for {lasts:g} seconds, expected at most 1000 "
            "and long enough for two frames"
        )
    if not options.clips:
        raise BackendError("bench: got no clip, expected at least one")
    return horizon


def check_backends(names: tuple[str, ...]) -> None:
    """
    Raises:
        BackendError: one is unknown.
    """
    unknown = [name for name in names if name not in BACKENDS]
    if unknown:
        raise BackendError(f"backend: got {unknown[0]!r}, expected one of {', '.join(BACKENDS)}")


def jobs(options: BenchOptions, clips: tuple[Path, ...], horizon: int, scratch: Path) -> list[Job]:
    """A job for each worker, the baseline's first."""
    names = dict.fromkeys((BASELINE, *options.backends))
    variants = [(name, *variant) for name in names for variant in _threads(name, options)]
    baseline = scratch / "0"
    return [
        Job(
            bundle=real_path(options.bundle),
            backend=name,
            label=label,
            settings=dataclasses.replace(options.settings, threads=threads),
            clips=clips,
            context=options.context,
            horizon=horizon,
            refill=options.refill,
            directory=scratch / str(number),
            cases=baseline if number else None,
        )
        for number, (name, label, threads) in enumerate(variants)
    ]


def _threads(name: str, options: BenchOptions) -> Iterator[tuple[str, int | None]]:
    """The labels of a backend, each with its number of threads."""
    from wmdeploy.engines.devices import runs_on_cpu

    numbers = tuple(dict.fromkeys(options.threads))
    if not numbers or not runs_on_cpu(name, options.settings):
        yield name, None
    elif len(numbers) == 1:
        yield name, numbers[0]
    else:
        for number in numbers:
            yield f"{name} ({number} thread{'' if number == 1 else 's'})", number


def clip_names(paths: tuple[Path, ...]) -> list[str]:
    """What the report calls clips: file names, or paths where two have the same name."""
    names = [path.name for path in paths]
    return [
        name if names.count(name) == 1 else str(p) for name, p in zip(names, paths, strict=True)
    ]


def write_clips(
    options: BenchOptions, bundle: Bundle, horizon: int, scratch: Path, remarks: list[str]
) -> tuple[Path, ...]:
    """The frames that the workers need, decoded and resized once.

    Args:
        remarks: gets the notes of the clips.

    Raises:
        ClipError: a clip cannot be read, is shorter than the context, or is not of the model's
            game.
    """
    files = []
    for number, clip in enumerate(options.clips):
        path = scratch / f"clip-{number}.npz"
        read = _read(clip, bundle, options, horizon)
        remarks += read.remarks
        arrays = {"frames": read.frames}
        if bundle.manifest.wiring.window_actions and read.actions is not None:
            arrays["actions"] = read.actions
        np.savez(path, allow_pickle=False, **arrays)
        files.append(path)
    return tuple(files)


def _read(path: Path, bundle: Bundle, options: BenchOptions, horizon: int) -> Clip:
    size, context = int(bundle.manifest.graphs["encoder"].inputs[0].shape[1]), options.context
    have = count_frames(path, options.read)
    if have < context:
        raise ClipError(f"{path}: has {have} frames, expected at least the context, {context}")
    count = min(have, context + horizon)
    clip = read_clip(path, size=size, count=count, options=options.read)
    if not bundle.manifest.wiring.window_actions:
        return clip
    if clip.actions is None:
        raise ClipError(f"{path}: has no actions, and the model is conditioned on them")
    known = bundle.manifest.wiring.num_actions
    if clip.actions.max() >= known:
        raise ClipError(
            f"{path}: has actions up to {clip.actions.max()}, the model knows {known}; "
            "give a clip of the model's game with --clip"
        )
    return clip
