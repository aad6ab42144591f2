"""What the bench and its workers say to each other.

A worker is started with a job, and says `Loaded` when it is ready. Then each command is one JSON
line on its standard input, and each answer one line on its standard output behind `ANSWER`, because
libraries may print there too. Large arrays go through files in the job's directory.
"""

from dataclasses import dataclass
from pathlib import Path

import msgspec

from wmdeploy.benchmarks.report import Memory
from wmdeploy.benchmarks.stages import StageName
from wmdeploy.codes import CodeCount
from wmdeploy.engines.base import Settings
from wmdeploy.gpu import GpuState
from wmdeploy.manifest import Precision, Weights

ANSWER = "wmdeploy bench> "
# How the last line on standard error begins where a worker ends with an error of ours.
MISSING = "missing: "  # this machine lacks what the backend needs
REFUSED = "error: "
CASES_FILE = "cases.npz"  # written by the baseline: feeds and expected outputs of each graph

TIES_FILE = "ties.npz"  # written by the baseline beside a backend's rollouts, see `tied`
SAME_CODES = "same-codes"  # folder of what a backend records from the baseline's codes


def rollout_file(clip: int) -> str:
    """Where a worker leaves what it made of the clip of that number."""
    return f"rollout-{clip}.npz"


def full_file(clip: int) -> str:
    """Where the baseline leaves what the full decoder makes of that clip, where another renders."""
    return f"full-{clip}.npz"


@dataclass(frozen=True)
class Samples:
    """Raw times of each run in ms: `wall` end to end, `device` between two CUDA events."""

    wall: list[float]
    device: list[float] | None = None


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a worker is for.

    Attributes:
        label: what the report calls it; a backend runs more than once where threads are swept.
        clips: .npz files with `frames` and, for a model with actions, `actions`.
        directory: its own; `baseline` is the baseline's, which has the expected outputs.
    """

    bundle: Path
    backend: str
    label: str
    settings: Settings
    clips: tuple[Path, ...]
    context: int
    horizon: int
    refill: int | None
    directory: Path
    baseline: Path

    @property
    def is_baseline(self) -> bool:
        return self.directory == self.baseline


class Warm(msgspec.Struct, tag=True, frozen=True):
    """Get a stage ready and run it until it is warm."""

    stage: StageName
    batch: int


class Block(msgspec.Struct, tag=True, frozen=True):
    """Time a stage that was warmed, at the batch size of the last warm-up.

    Attributes:
        untimed: runs before those that count, as others have had the processor's caches.
    """

    stage: StageName
    runs: int
    untimed: int


class MeasureMemory(msgspec.Struct, tag=True, frozen=True):
    """Say how much memory is held."""


class Record(msgspec.Struct, tag=True, frozen=True):
    """Write rollouts and the graphs' outputs into the job's directory.

    Attributes:
        same_codes: from the baseline's codes where its own tie, into the folder `SAME_CODES` there.
    """

    same_codes: bool = False


class CountTies(msgspec.Struct, tag=True, frozen=True):
    """Compare a backend's codes with the baseline's, which alone is asked.

    Attributes:
        directory: where the backend recorded; if codes tie, `TIES_FILE` is written there.
    """

    directory: str
    precision: Precision


class RunAtRate(msgspec.Struct, tag=True, frozen=True):
    """Give frames at a fixed rate."""

    fps: float
    seconds: float


class Substitute(msgspec.Struct, tag=True, frozen=True):
    """Find out which graph brings the error in, over so many frames."""

    frames: int


Command = Warm | Block | MeasureMemory | Record | CountTies | RunAtRate | Substitute


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """`threads` is None on a GPU.

    `device` is "cpu" or "cuda". `stages` are those that the backend has at batch 1, in the order in
    which they are timed.
    """

    precision: Precision
    device: str
    has_gpu: bool
    threads: int | None
    max_batch: int | None
    stages: list[StageName]
    load_ms: float
    first_call_ms: float
    weights: Weights = "float"


@dataclass(frozen=True)
class Warmed:
    """`newest_ms` is what a run takes now."""

    runs: int
    newest_ms: float


@dataclass(frozen=True)
class Timed:
    """`gpu`: its clocks right after the block."""

    samples: Samples
    gpu: GpuState | None


@dataclass(frozen=True)
class MeasuredMemory:
    memory: Memory


@dataclass(frozen=True)
class Recorded:
    pass


@dataclass(frozen=True)
class CountedTies:
    """By clip; empty where the model has no codes."""

    counts: list[CodeCount]


@dataclass(frozen=True)
class FixedRateTimes:
    """See `wmdeploy.benchmarks.report.FixedRate`."""

    frames: int
    misses: int
    jitter_ms: float
    latency_ms: list[float]
    gpu: GpuState | None = None


@dataclass(frozen=True)
class Substituted:
    """Worst-frame PSNR in dB by graph; or why there is none."""

    worst_db: dict[str, float]
    skipped: str | None = None


Answer = (
    Loaded | Warmed | Timed | MeasuredMemory | Recorded | CountedTies | FixedRateTimes | Substituted
)
