"""What to bench, checked before any work; and the workers that follow from it."""

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from wmdeploy.benchmarks.environment import Effort
from wmdeploy.benchmarks.parity.metrics import judged_window
from wmdeploy.benchmarks.protocol import Job
from wmdeploy.bundle import Bundle
from wmdeploy.clips.clip import Clip
from wmdeploy.clips.read import read_clip
from wmdeploy.clips.source import ReadOptions
from wmdeploy.engines.base import BACKENDS, BASELINE, DEFAULT_BACKENDS, Settings
from wmdeploy.errors import BackendError
from wmdeploy.files import real_path
from wmdeploy.programs.contract import Programs

LONGEST_HORIZON = 4096
LONGEST_CONTEXT = 4096  # of a model whose state takes up frame after frame
DEFAULT_CONTEXT = 8
LARGEST_BATCH = 1024


@dataclass(frozen=True, kw_only=True)
class BenchOptions:
    """What to compare.

    Attributes:
        clips: parity is measured on all, times on the first.
        context: frames given; None: 8, or as many as the model takes.
        horizon: frames imagined on each clip; None is 4·S, or 32 of a model without a window.
        refill: as in `Session`, the baseline's too.
        batches: besides batch 1, whole frames and steps are timed for each that a backend takes.
        threads: of backends on the CPU, which run once for each number; empty: their own choice.
        fps: frames per second that are asked for at a fixed rate, for `rate_seconds`;
            None: at no rate.
        swap: whether to find out which graph brings the error in.
        read: how the clips are read.
    """

    bundle: Path
    clips: tuple[Path, ...]
    backends: tuple[str, ...] = DEFAULT_BACKENDS
    context: int | None = None
    horizon: int | None = None
    refill: int | None = None
    batches: tuple[int, ...] = (1,)
    threads: tuple[int, ...] = ()
    settings: Settings = Settings()
    effort: Effort = field(default_factory=Effort)
    fps: float | None = None
    rate_seconds: float = 5.0
    swap: bool = False
    read: ReadOptions = ReadOptions()

    def horizon_for(self, window: int) -> int:
        """Frames that are imagined with a window of so many slots."""
        return 4 * window if self.horizon is None else self.horizon


def context_for(options: BenchOptions, programs: Programs) -> int:
    """How many frames are given."""
    return default_context(programs) if options.context is None else options.context


def default_context(programs: Programs) -> int:
    """How many frames are given where nobody says how many."""
    most = DEFAULT_CONTEXT if programs.absorb else min(DEFAULT_CONTEXT, programs.context)
    return max(programs.least, most)


def check(options: BenchOptions, programs: Programs, cpus: int) -> None:
    """Refuse an option out of its range.

    Args:
        programs: of the bundle.
        cpus: how many CPUs this process may use.

    Raises:
        BackendError: an option is out of range, or the model has no frames to compare.
    """
    context = programs.context
    if not programs.render:
        raise BackendError("bench: the model renders no frames, and frames are what is compared")
    seconds, refill = options.effort.seconds, options.refill
    if not 0 <= seconds < math.inf or not (refill is None or programs.least <= refill < context):
        few, many = programs.least, context - 1
        allowed = f"a refill of {few} to {many}" if few <= many else "no refill"
        raise BackendError(
            f"bench: got {seconds} seconds and refill {refill}, expected finite seconds of 0 or "
            f"more and {allowed}"
        )
    if not 0 < options.effort.precision < 1:
        raise BackendError(
            f"precision: got {100 * options.effort.precision:g}%, expected more than 0% and less "
            "than 100%"
        )
    horizon = options.horizon_for(judged_window(programs))
    least, most = programs.least, LONGEST_CONTEXT if programs.absorb else context
    frames = context_for(options, programs)
    if not least <= frames <= most or not 1 <= horizon <= LONGEST_HORIZON:
        raise BackendError(
            f"bench: got context {frames} and horizon {horizon}, expected a context of "
            f"{least} to {most} and a horizon of 1 to {LONGEST_HORIZON}"
        )
    for option, numbers, most in (
        ("batch", options.batches, LARGEST_BATCH),
        ("threads", options.threads, cpus),
    ):
        if not all(1 <= number <= most for number in numbers):
            given = ", ".join(map(str, numbers))
            raise BackendError(f"{option}: got {given}, expected numbers of 1 to {most}")
    fps, lasts = options.fps, options.rate_seconds
    if fps is not None and not (0 < fps <= 1000 and 0 < lasts < math.inf and fps * lasts >= 2):
        raise BackendError(
            f"bench: got {fps:g} frames per second for {lasts:g} seconds, expected at most 1000 "
            "and long enough for two frames"
        )
    if not options.clips:
        raise BackendError("bench: got no clip, expected at least one")


def check_backends(names: tuple[str, ...]) -> None:
    """
    Raises:
        BackendError: one is unknown.
    """
    unknown = [name for name in names if name not in BACKENDS]
    if unknown:
        raise BackendError(f"backend: got {unknown[0]!r}, expected one of {', '.join(BACKENDS)}")


def jobs(
    options: BenchOptions, clips: tuple[Path, ...], programs: Programs, scratch: Path
) -> list[Job]:
    """A job for each worker, the baseline's first."""
    names = dict.fromkeys((BASELINE, *options.backends))
    variants = [(name, *variant) for name in names for variant in _threads(name, options)]
    return [
        Job(
            bundle=real_path(options.bundle),
            backend=name,
            label=label,
            settings=dataclasses.replace(options.settings, threads=threads),
            clips=clips,
            context=context_for(options, programs),
            horizon=options.horizon_for(judged_window(programs)),
            refill=options.refill,
            directory=scratch / str(number),
            baseline=scratch / "0",
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
    options: BenchOptions, bundle: Bundle, scratch: Path, remarks: list[str]
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
        read = _read(clip, bundle, options)
        remarks += read.remarks
        arrays = {"frames": read.frames}
        if bundle.manifest.programs.action is not None and read.actions is not None:
            arrays["actions"] = read.actions
        np.savez(path, allow_pickle=False, **arrays)
        files.append(path)
    return tuple(files)


def _read(path: Path, bundle: Bundle, options: BenchOptions) -> Clip:
    programs = bundle.manifest.programs
    context = context_for(options, programs)
    graph, name = programs.frame_input()
    (pixels,) = (spec for spec in bundle.manifest.graphs[graph].inputs if spec.name == name)
    # of a model that draws noise, frames that follow true ones are judged
    fewest = context + 1 if programs.noise else context
    count = context + options.horizon_for(judged_window(programs))
    clip = read_clip(
        path, size=int(pixels.shape[1]), count=count, fewest=fewest, options=options.read
    )
    clip.check_actions(programs.num_actions, programs.action_size)
    return clip
