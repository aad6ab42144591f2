"""The benchmark's result: one JSON document, raw samples included. Not how it is shown."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import msgspec

from wmdeploy.benchmarks.parity.metrics import Curve, Parity
from wmdeploy.benchmarks.worker.memory import Memory
from wmdeploy.errors import WmdeployError
from wmdeploy.files import read_document, refuse_pointer

SCHEMA = 3  # 1: ceilings of one device; 2: backends timed one after the other, one clip
MOST_ROUNDS = 400  # of a stage
MOST_POOLED = 16  # reports that are read as one
LARGEST_REPORT = 64 * 2**20  # bytes; sixteen pooled ones take 10 MB
MOST_ENTRIES = 2000  # rows, and whatever else a report lists: more than any run has
STAGES = (
    "load", "first_call", "encode", "prefill", "step", "decode", "download", "frame", "imagine",
    "slide",
)  # fmt: skip

Verdict = Literal["pass", "fail", "skipped"]
Bound = Literal["bandwidth", "compute"]


@dataclass(frozen=True)
class Row:
    """One backend at one stage. Times are wall time in ms; memory is in 10^6 bytes.

    `device_p50_ms` is the median between two CUDA events; `memory_mb` is the headline of `memory`.
    `frames_per_s` counts those of all `batch` sessions. Parity is measured at batch 1, which alone
    has it; the verdict is the backend's, and `reason` why it failed or was skipped. In a row of
    stage `frame` that passes, `reason` is what was tied.

    Backends take turns: in every round each runs a few times. `round_ms` are the medians of each
    round, in the order of the rounds, which are the same for all backends of a stage and batch.
    `speedup` is the median over rounds of the baseline's round over this one's, `speedup_low` and
    `speedup_high` its 95% interval by bootstrap. `warmup` runs came before the first round;
    `noisy` says that the interval is wider than what was asked for.

    `floor_ms` is the least time this machine could take: the larger of bytes over its bandwidth and
    operations over their rate, both measured in the same run; `bound` says which; `of_floor`
    is floor_ms / p50_ms.
    """

    backend: str
    precision: str | None
    device: str | None
    stage: str
    batch: int
    p50_ms: float | None = None
    p90_ms: float | None = None
    p99_ms: float | None = None
    frames_per_s: float | None = None
    speedup: float | None = None
    speedup_low: float | None = None
    speedup_high: float | None = None
    floor_ms: float | None = None
    of_floor: float | None = None
    bound: Bound | None = None
    device_p50_ms: float | None = None
    memory_mb: float | None = None
    memory: Memory | None = None
    parity: Parity | None = None
    verdict: Verdict = "skipped"
    reason: str | None = None
    threads: int | None = None
    warmup: int | None = None
    noisy: bool = False
    samples_ms: list[float] = field(default_factory=list)
    round_ms: list[float] = field(default_factory=list)
    device_samples_ms: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Pacing:
    """One backend asked for a frame at a fixed rate, as a game asks.

    Attributes:
        fps: frames asked for per second.
        frames: how many were asked for.
        misses: frames that were not ready when the next was due.
        latency_ms: of each frame, from the moment it was due (its action known) until it was there.
        jitter_ms: standard deviation of the time between two frames that follow each other.
    """

    backend: str
    fps: float
    frames: int
    misses: int
    jitter_ms: float
    latency_ms: list[float]


@dataclass(frozen=True)
class Report:
    """All of one run.

    Attributes:
        environment: hardware, versions, settings, ceilings (see `bench/machine.py`).
        bundle: what was measured: recipe, sizes, work of each graph, clips, context, horizon.
        curves: parity frame by frame, for each backend and clip.
        swaps: by backend and graph: worst-frame PSNR in dB of a rollout in which that graph alone
            is the backend's and the others are PyTorch's in float32; only where it was asked for.
        strips: by backend: a PNG in base64: the worst frame of the baseline, of the backend, and
            their difference, amplified.
    """

    schema: int
    environment: dict[str, Any]
    bundle: dict[str, Any]
    rows: list[Row]
    warnings: list[str] = field(default_factory=list)
    curves: list[Curve] = field(default_factory=list)
    swaps: dict[str, dict[str, float]] = field(default_factory=dict)
    pacing: list[Pacing] = field(default_factory=list)
    strips: dict[str, str] = field(default_factory=dict)


def read_json(path: Path) -> Report:
    """The report in a file, of this or an older schema; what that did not have is empty.

    Raises:
        WmdeployError: it cannot be read, is no report, has more than one of ours has, or is of a
            schema newer than this version's.
    """
    refuse_pointer(path, WmdeployError)
    try:
        report = msgspec.json.decode(read_document(path, LARGEST_REPORT), type=Report)
    except OSError as error:
        raise WmdeployError(f"{path}: cannot be read ({error.strerror})") from error
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise WmdeployError(
            f"{path}: is no report of wmdeploy bench ({error}); give what --json wrote"
        ) from error
    if report.schema > SCHEMA:
        raise WmdeployError(
            f"{path}: has schema {report.schema}, expected at most {SCHEMA}; update wmdeploy"
        )
    for name, entries in vars(report).items():
        if isinstance(entries, list | dict) and len(entries) > MOST_ENTRIES:
            raise WmdeployError(
                f"{path}: lists {len(entries)} {name}, expected at most {MOST_ENTRIES}; "
                "give what --json wrote"
            )
    return report
