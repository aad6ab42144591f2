"""Where and how a benchmark was measured, as its report says it."""

from dataclasses import dataclass, field
from typing import Annotated, Any

import msgspec

from wmdeploy.engines.base import Settings
from wmdeploy.gpu import Gpu, GpuState

Short = msgspec.Meta(max_length=2000)  # of whatever a report lists: more than any run has


@dataclass(frozen=True)
class Ceilings:
    """The best of several runs: bytes moved per second, multiply-adds counted as two per second.

    `gflop_s` is of float32, `half_gflop_s` of float16 (GPU only).
    """

    bandwidth_gb_s: float
    gflop_s: float
    threads: int
    half_gflop_s: float | None = None

    def rate(self, precision: str) -> float:
        """Operations per second of a precision, in 10^9; a CPU computes float16 in float32."""
        half = self.half_gflop_s
        return half if precision == "fp16" and half is not None else self.gflop_s

    def or_higher(self, other: "Ceilings | None") -> "Ceilings":
        """Of two measurements of one device, the higher figures: neighbours only take away."""
        if other is None:
            return self
        half = [c.half_gflop_s for c in (self, other) if c.half_gflop_s is not None]
        return Ceilings(
            max(self.bandwidth_gb_s, other.bandwidth_gb_s),
            max(self.gflop_s, other.gflop_s),
            self.threads,
            max(half, default=None),
        )


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
class GpuSample:
    """The state of the GPU after the block of a stage in which its clock was lowest."""

    stage: str
    batch: int
    state: GpuState


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Hardware, system and package versions.

    Attributes:
        date: of the start, UTC, ISO 8601.
        cores: physical ones.
        memory_gb: in 10^9 bytes.
        load_average: of the minute before.
    """

    date: str
    cpu: str
    gpu: Gpu | None
    cores: int
    memory_gb: float
    system: str
    python: str
    packages: Annotated[dict[str, str], Short]
    load_average: float

    @property
    def hardware(self) -> dict[str, Any]:
        """Processor, cores and GPU, by the name that a message gives them."""
        gpu = None if self.gpu is None else self.gpu.name
        return {"cpu": self.cpu, "cores": self.cores, "gpu": gpu}


@dataclass(frozen=True, kw_only=True)
class Environment(Machine):
    """Where and how it was measured.

    Attributes:
        affinity: the CPUs that the processes could use.
        ceilings: by device, such as "cpu".
        gpu_states: by backend.
    """

    affinity: Annotated[list[int], Short]
    ceilings: Annotated[dict[str, Ceilings], Short]
    settings: Settings
    effort: Effort
    gpu_states: Annotated[dict[str, list[GpuSample]], Short] = field(default_factory=dict)
