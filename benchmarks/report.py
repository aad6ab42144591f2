"""The benchmark's result: one JSON document, raw samples included. Not how it is shown."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import msgspec

from benchmarks.memory import Memory
from benchmarks.parity import Parity
from benchmarks.timing import Samples, percentile

SCHEMA = 2  # 1 had the ceilings of one device
STAGES = (
    "load", "first_call", "encode", "prefill", "step", "decode", "download", "frame", "imagine",
    "slide",
)  # fmt: skip

Verdict = Literal["pass", "fail", "skipped"]


@dataclass(frozen=True)
class Row:
    """One backend at one stage. Times are wall time in ms; memory is in 10^6 bytes.

    `device_p50_ms` is the median between two CUDA events; `memory_mb` is the headline of `memory`.
    `frames_per_s` counts those of all `batch` sessions. Parity is measured at batch 1, which alone
    has it; the verdict is the backend's.

    `floor_ms` is the least time this machine could take: the larger of bytes over its bandwidth and
    operations over its matrix rate, both measured in the same run; `of_floor` is floor_ms / p50_ms.
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
    floor_ms: float | None = None
    of_floor: float | None = None
    device_p50_ms: float | None = None
    memory_mb: float | None = None
    memory: Memory | None = None
    parity: Parity | None = None
    verdict: Verdict = "skipped"
    reason: str | None = None
    samples_ms: list[float] = field(default_factory=list)
    device_samples_ms: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Report:
    schema: int
    environment: dict[str, Any]
    bundle: dict[str, Any]
    rows: list[Row]
    warnings: list[str] = field(default_factory=list)


def timed_row(
    backend: str,
    stage: str,
    samples: Samples,
    *,
    batch: int,
    precision: str,
    device: str,
    floor_ms: float | None,
    baseline_p50_ms: float | None,
    memory: Memory,
    parity: Parity | None,
    verdict: Verdict,
    reason: str | None,
) -> Row:
    """A row with all that follows from its raw samples."""
    p50 = percentile(samples.wall, 50)
    counted = stage not in ("load", "first_call", "prefill", "download")
    return Row(
        backend=backend,
        precision=precision,
        device=device,
        stage=stage,
        batch=batch,
        p50_ms=p50,
        p90_ms=percentile(samples.wall, 90),
        p99_ms=percentile(samples.wall, 99),
        frames_per_s=batch * 1e3 / p50 if counted else None,
        speedup=None if baseline_p50_ms is None else baseline_p50_ms / p50,
        floor_ms=floor_ms,
        of_floor=None if floor_ms is None else floor_ms / p50,
        device_p50_ms=percentile(samples.device, 50) if samples.device else None,
        memory_mb=memory.headline[0],
        memory=memory,
        parity=parity,
        verdict=verdict,
        reason=reason,
        samples_ms=samples.wall,
        device_samples_ms=samples.device or [],
    )


def read_json(path: Path) -> Report:
    """The report in a file; msgspec's ValidationError says what is wrong with another file."""
    return msgspec.json.decode(path.read_bytes(), type=Report)
