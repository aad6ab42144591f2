"""A benchmark's result: one JSON document, raw samples included. `render/` shows it."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import numpy as np

from wmdeploy.benchmarks.environment import Environment, Short
from wmdeploy.benchmarks.stages import StageName
from wmdeploy.codes import CodeCount
from wmdeploy.errors import WmdeployError
from wmdeploy.files import read_document, refuse_pointer
from wmdeploy.manifest import Exactness, Recipe

SCHEMA = 5
MOST_ROUNDS = 400  # of a stage
MOST_POOLED = 16  # reports that are read as one
LARGEST_REPORT = 64 * 2**20  # bytes; sixteen pooled ones take 10 MB

Verdict = Literal["pass", "fail", "skipped"]
Bound = Literal["bandwidth", "compute"]
AnyStage = Annotated[StageName, msgspec.Meta(pattern="^[A-Za-z0-9_-]{1,40}$")]  # as graphs' names


@dataclass(frozen=True, kw_only=True)
class GraphFacts:
    """What a run of a graph for one frame costs.

    Attributes:
        flops: multiply-adds count as two.
        weight_bytes: of its weights; `other_layout_weight_bytes` of those in the other layout.
        moved_bytes: what it must read or write at least: weights, inputs and outputs, each once.
    """

    flops: int
    weight_bytes: int
    moved_bytes: int
    other_layout_weight_bytes: int | None = None


@dataclass(frozen=True, kw_only=True)
class BundleFacts:
    """What was measured.

    Attributes:
        name: of the bundle's folder.
        model: the model's config.
        context_length: S, the slots of the window; `context` frames of each clip were given.
        horizon: frames that were imagined.
        bundle_bytes: of all its files; `layer_bytes` of them are of linear layers that may have
            weights of 8 bits, None where an older version wrote the report.
    """

    name: str
    manifest_sha256: str
    recipe: Recipe
    model: dict[str, Any]
    context_length: int
    graphs: Annotated[dict[str, GraphFacts], Short]
    bundle_bytes: int
    clips: Annotated[list[str], Short]
    context: int
    horizon: int
    refill: int | None = None
    other_layout: str | None = None
    layer_bytes: int | None = None


@dataclass(frozen=True, kw_only=True)
class Memory:
    """All in 10^6 bytes; None where it does not apply or the driver does not tell.

    Attributes:
        resident: the process's peak resident memory on the host.
        gpu_process: the process on the GPU as the driver (NVML) counts it, CUDA's context included.
        gpu_used: everything in use on the GPU, other processes included.
        gpu_grown: what came into use on the GPU while this process was the one at work: backends
            wait while another one works, so what is new is its own.
        torch_peak: the most that torch's allocator held; TensorRT's weights are not in it.
        engines: what the engines say of themselves, by label.
    """

    resident: float
    gpu_process: float | None = None
    gpu_used: float | None = None
    torch_peak: float | None = None
    engines: dict[str, float] = field(default_factory=dict)
    gpu_grown: float | None = None

    @property
    def headline(self) -> tuple[float, str]:
        """The figure for a table, and what it is."""
        if self.gpu_process is not None:
            return self.gpu_process, "GPU, process"
        if self.gpu_grown is not None:
            return self.gpu_grown, "GPU, growth"
        if self.gpu_used is not None:
            return self.gpu_used, "GPU, all"
        return self.resident, "resident"


@dataclass(frozen=True, kw_only=True)
class OutputParity:
    """A named output, such as logits, that follows true frames, beside the baseline's.

    Attributes:
        agreement: of integers, the share of equal ones.
        relative: of floats, the largest error over the baseline's largest value.
        variation: of logits, the mean total variation between the distributions that they stand
            for: how often what is drawn from them with the same noise may differ.
    """

    agreement: float | None = None
    relative: float | None = None
    variation: float | None = None


@dataclass(frozen=True, kw_only=True)
class Parity:
    """Errors against the baseline. None does not apply to the stage.

    `max_abs` and `mean_abs` are in the tensor's own unit (levels of 255 for frames). `psnr_db` is
    of the mean squared error over the first h frames imagined, `worst_frame_psnr_db` of the worst
    of them; keys are h. `forced_worst_db` is of the worst frame that follows true ones.
    `code_agreement` is the share of equal codes, `codes` what the others are. `outputs` are of all
    clips together, by name. Where a student decoder renders, here and in the baseline,
    `full_worst_db` and `full_mean_db` say how far the frames are from those of the full decoder;
    the verdict does not look at it.
    """

    max_abs: float | None = None
    mean_abs: float | None = None
    cosine: float | None = None
    psnr_db: dict[str, float] | None = None
    worst_frame_psnr_db: dict[str, float] | None = None
    code_agreement: float | None = None
    codes: CodeCount | None = None
    forced_worst_db: float | None = None
    full_worst_db: float | None = None
    full_mean_db: float | None = None
    outputs: dict[str, OutputParity] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
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
    precision: Exactness | None = None
    device: str | None = None
    stage: AnyStage
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

    @property
    def is_frame(self) -> bool:
        """Whether it is of whole frames of one session, the row that stands for its backend."""
        return (self.stage, self.batch) == ("frame", 1)

    @property
    def is_timed(self) -> bool:
        return self.p50_ms is not None

    @property
    def worst_frame_db(self) -> dict[str, float]:
        """PSNR of the worst frame up to each horizon; empty without frames to compare."""
        return (self.parity and self.parity.worst_frame_psnr_db) or {}


@dataclass(frozen=True, kw_only=True)
class FixedRate:
    """One backend asked for a frame at a fixed rate, as a game asks.

    Attributes:
        fps: frames asked for per second.
        frames: how many were asked for.
        misses: frames that were not ready when the next was due.
        latency_ms: of each frame, from when it was due (its action is at hand) until it was there.
        jitter_ms: standard deviation of the time between two frames that follow each other.
    """

    backend: str
    fps: float
    frames: int
    misses: int
    jitter_ms: float
    latency_ms: list[float]


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One backend against the baseline on one clip, frame by frame.

    Where codes tie, frames are those from the baseline's codes, but for `own_db`.

    Attributes:
        clip: the clip's name, as given.
        free_db: PSNR of each imagined frame with the baseline's, from the context on; the first is
            horizon 1.
        forced_db: the same where each frame is predicted from the clip's true frames before it;
            as many as the clip has after the context.
        code_agreement: share of equal codes of the clip's own frames; None of a model without.
        imagined_agreement: share of equal codes when each backend encodes its own imagined frames;
            None likewise.
        first_difference: the first horizon at which one of those codes differs; None if none does.
        codes: which of the clip's codes tie, and which are wrong.
        own_db: as `free_db`, from the backend's own codes; empty where no code of any clip ties.
        outputs: named outputs that follow true frames, by name.
        first_draw: the first horizon at which an integer output, such as what was drawn, differs;
            None if none does.
    """

    backend: str
    clip: str
    free_db: list[float]
    forced_db: list[float]
    code_agreement: float | None
    imagined_agreement: float | None
    first_difference: int | None
    codes: CodeCount | None = None
    own_db: list[float] = field(default_factory=list)
    outputs: dict[str, OutputParity] = field(default_factory=dict)
    first_draw: int | None = None

    @property
    def worst_frame(self) -> int:
        """The horizon (1 is the first) of the imagined frame that is furthest off."""
        return int(np.argmin(self.free_db)) + 1


@dataclass(frozen=True, kw_only=True)
class Report:
    """All of one run.

    Attributes:
        baseline: the label that the others are compared with.
        curves: parity frame by frame, for each backend and clip.
        substitutions: by backend and graph: worst-frame PSNR in dB of a rollout in which that graph
            alone is the backend's and the others are PyTorch's in float32; only where it was asked
            for.
        worst_frames: by backend: a PNG in base64: the worst frame of the baseline, of the backend,
            and their difference, amplified.
        options_sha256: of all that decides what the report says, where a sweep asked for it.
    """

    schema: int
    baseline: str
    environment: Environment
    bundle: BundleFacts
    rows: Annotated[list[Row], Short]
    warnings: Annotated[list[str], Short] = field(default_factory=list)
    curves: Annotated[list[Curve], Short] = field(default_factory=list)
    substitutions: Annotated[dict[str, dict[str, float]], Short] = field(default_factory=dict)
    fixed_rate: Annotated[list[FixedRate], Short] = field(default_factory=list)
    worst_frames: Annotated[dict[str, str], Short] = field(default_factory=dict)
    options_sha256: str | None = None

    def frames(self) -> list[Row]:
        """Rows of whole frames of one session: one for each backend."""
        return [row for row in self.rows if row.is_frame]


class _Numbered(msgspec.Struct):
    schema: int


def read_json(path: Path) -> Report:
    """The report in a file.

    Raises:
        WmdeployError: it cannot be read, is no report, lists more than any of ours, or is of
            another schema than `SCHEMA`.
    """
    refuse_pointer(path, WmdeployError)
    try:
        document = read_document(path, LARGEST_REPORT)
        schema = msgspec.json.decode(document, type=_Numbered).schema
        if schema != SCHEMA:
            other = "update wmdeploy" if schema > SCHEMA else "run wmdeploy bench again"
            raise WmdeployError(f"{path}: has schema {schema}, expected {SCHEMA}; {other}")
        return msgspec.json.decode(document, type=Report)
    except OSError as error:
        raise WmdeployError(f"{path}: cannot be read ({error.strerror})") from error
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise WmdeployError(
            f"{path}: is no report ({error}); give what wmdeploy bench --json wrote"
        ) from error


Key = tuple[str, StageName, int]  # backend, stage, batch


def rows_by_key(report: Report, name: str = "a report") -> dict[Key, Row]:
    """Rows by backend, stage and batch; `name` is for a message.

    Raises:
        WmdeployError: two rows are of the same.
    """
    rows: dict[Key, Row] = {}
    for row in report.rows:
        key = row.backend, row.stage, row.batch
        if key in rows:
            raise WmdeployError(
                f"{name} has two rows of {row.backend}, {row.stage}, batch {row.batch}; give "
                "what wmdeploy bench --json wrote"
            )
        rows[key] = row
    return rows


def flatten(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, with dots in the names."""
    values: dict[str, Any] = {}
    for name, inner in value.items():
        if isinstance(inner, dict):
            values |= flatten(inner, f"{prefix}{name}.")
        else:
            values[f"{prefix}{name}"] = inner
    return values
