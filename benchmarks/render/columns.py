"""What can stand in a table of a report: one definition of a column for every renderer."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from wmdeploy.benchmarks.render.format import figure, interval, speed_up, worst_db
from wmdeploy.benchmarks.report import Curve, FixedRate, Memory, OutputParity, Row
from wmdeploy.benchmarks.stages import StageName
from wmdeploy.benchmarks.stats import percentile

BOUNDS = {"compute": "ops", "bandwidth": "bytes"}
Item = TypeVar("Item")


@dataclass(frozen=True)
class Cell:
    """`sort` is the number that a column is sorted by, where the text alone does not say it."""

    text: str
    sort: float | None = None
    mark: str = ""  # pass, fail, skipped or warn


@dataclass(frozen=True, kw_only=True)
class Column(Generic[Item]):
    """How a column is filled from an item of a table, and where it is shown.

    Attributes:
        words: it holds words, which stand on the left.
        wide: too much for a terminal and for Markdown; on the page only.
    """

    heading: str
    cell: Callable[[Item], Cell]
    words: bool = False
    wide: bool = False


def number(value: float | int | None, form: str) -> Cell:
    return Cell("") if value is None else Cell(format(value, form), float(value))


def _figure(value: float | None) -> Cell:
    return Cell(figure(value), value)


def _speed_up(row: Row) -> Cell:
    return Cell(speed_up(row), row.speedup, "warn" if row.noisy else "")


def _of_floor(row: Row) -> Cell:
    if row.of_floor is None:
        return Cell("")
    return Cell(f"{row.of_floor:.0%} {BOUNDS.get(row.bound or '', '')}".rstrip(), row.of_floor)


def _row_parity(row: Row) -> Cell:
    if worst := worst_db(row):
        return Cell(f"{worst} dB", float(worst))
    return number(row.parity.max_abs if row.parity else None, ".1e")


def stage_column(stages: Sequence[StageName]) -> Column[Row]:
    """Sorted in the order of `stages`, which has all of the rows."""

    def cell(row: Row) -> Cell:
        return Cell(row.stage.removesuffix("_call"), float(stages.index(row.stage)))

    return Column(heading="stage", cell=cell, words=True)


def verdict(row: Row, baseline: str = "") -> Cell:
    return Cell("baseline" if row.backend == baseline else row.verdict, mark=row.verdict)


def _verdict_with_reason(row: Row) -> Cell:
    text = row.verdict if row.reason is None else f"{row.verdict}: {row.reason}"
    return Cell(text, mark=row.verdict)


def _batch_stage(row: Row) -> Cell:
    return Cell(row.stage if row.batch == 1 else f"{row.stage}, batch {row.batch}")


def _engines(memory: Memory) -> str:
    return ", ".join(f"{label} {size:.0f}" for label, size in memory.engines.items())


def _agreement(row: Row) -> Cell:
    return number(row.parity.code_agreement if row.parity else None, ".3%")


def _full(row: Row, name: Literal["full_worst_db", "full_mean_db"]) -> Cell:
    return number(getattr(row.parity, name) if row.parity else None, ".1f")


def worst_db_column(horizon: str) -> Column[Row]:
    def cell(row: Row) -> Cell:
        return number(row.worst_frame_db.get(horizon), ".1f")

    return Column(heading=f"worst dB to {horizon}", cell=cell)


def mean_db_column(horizon: str) -> Column[Row]:
    def cell(row: Row) -> Cell:
        mean = (row.parity and row.parity.psnr_db) or {}
        return number(mean.get(horizon), ".1f")

    return Column(heading="mean dB", cell=cell)


def substitution_column(graph: str) -> Column[tuple[str, dict[str, float]]]:
    def cell(item: tuple[str, dict[str, float]]) -> Cell:
        worst = item[1]
        if graph not in worst:
            return Cell("")
        least = worst[graph] == min(worst.values())
        return Cell(f"{worst[graph]:.1f}", worst[graph], "warn" if least else "")

    return Column(heading=graph, cell=cell)


def _missed(rate: FixedRate) -> Cell:
    share = rate.misses / rate.frames if rate.frames else 0.0
    return Cell(f"{rate.misses} ({share:.1%})", share, "warn" if rate.misses else "")


def _latency(rate: FixedRate, q: float) -> Cell:
    return _figure(percentile(rate.latency_ms, q) if rate.latency_ms else None)


def _first_difference(curve: Curve) -> Cell:
    coded = curve.imagined_agreement is not None
    return _first(curve.first_difference) if coded else Cell("")


def _first_draw(curve: Curve) -> Cell:
    draws = any(output.agreement is not None for output in curve.outputs.values())
    return _first(curve.first_draw) if draws else Cell("")


def _first(horizon: int | None) -> Cell:
    return Cell("none", 1e9) if horizon is None else number(horizon, "d")


BACKEND = Column[Row](heading="backend", cell=lambda row: Cell(row.backend), words=True)
P50 = Column[Row](heading="p50 ms", cell=lambda row: _figure(row.p50_ms))
PER_SECOND = Column[Row](heading="per s", cell=lambda row: _figure(row.frames_per_s))
SPEED_UP = Column[Row](heading="speed-up", cell=_speed_up)
INTERVAL = Column[Row](
    heading="95% interval", cell=lambda row: Cell(interval(row), row.speedup_low), wide=True
)
FLOOR = Column[Row](heading="floor ms", cell=lambda row: _figure(row.floor_ms))
OF_FLOOR = Column[Row](heading="of floor", cell=_of_floor)
MEMORY_MB = Column[Row](heading="memory MB", cell=lambda row: _figure(row.memory_mb))

LATENCY: tuple[Column[Row], ...] = (
    BACKEND,
    Column(heading="runs", cell=lambda row: number(len(row.samples_ms), "d")),
    P50,
    Column(heading="p90 ms", cell=lambda row: _figure(row.p90_ms), wide=True),
    Column(heading="p99 ms", cell=lambda row: _figure(row.p99_ms)),
    Column(heading="device ms", cell=lambda row: _figure(row.device_p50_ms)),
    PER_SECOND,
    SPEED_UP,
    INTERVAL,
    FLOOR,
    OF_FLOOR,
    Column(heading="memory MB", cell=lambda row: _figure(row.memory_mb), wide=True),
    Column(heading="parity", cell=_row_parity),
    Column(heading="verdict", cell=_verdict_with_reason, words=True, wide=True),
)
SUMMARY: tuple[Column[Row], ...] = (
    Column(heading="stage", cell=_batch_stage, words=True),
    BACKEND,
    P50,
    SPEED_UP,
    MEMORY_MB,
    Column(heading="parity", cell=_row_parity),
    Column(heading="verdict", cell=_verdict_with_reason, words=True),
)
BATCHES: tuple[Column[Row], ...] = (
    BACKEND,
    Column(heading="sessions", cell=lambda row: number(row.batch, "d")),
    P50,
    PER_SECOND,
    SPEED_UP,
    INTERVAL,
    FLOOR,
    OF_FLOOR,
    MEMORY_MB,
)
MEMORY: tuple[Column[tuple[str, Memory]], ...] = (
    Column(heading="backend", cell=lambda item: Cell(item[0]), words=True),
    Column(heading="process", cell=lambda item: _figure(item[1].gpu_process)),
    Column(heading="growth", cell=lambda item: _figure(item[1].gpu_grown)),
    Column(heading="GPU", cell=lambda item: _figure(item[1].gpu_used)),
    Column(heading="torch", cell=lambda item: _figure(item[1].torch_peak)),
    Column(heading="engines", cell=lambda item: Cell(_engines(item[1]))),
    Column(heading="host", cell=lambda item: _figure(item[1].resident)),
)
PARITY_LEFT: tuple[Column[Row], ...] = (
    BACKEND,
    MEMORY_MB,
    Column(heading="codes", cell=_agreement),
)
PARITY_RIGHT: tuple[Column[Row], ...] = (
    Column(
        heading="forced dB",
        cell=lambda row: number(row.parity.forced_worst_db if row.parity else None, ".1f"),
    ),
    Column(heading="full, worst dB", cell=lambda row: _full(row, "full_worst_db")),
    Column(heading="full, mean dB", cell=lambda row: _full(row, "full_mean_db")),
    Column(
        heading="max of 255",
        cell=lambda row: number(row.parity.max_abs if row.parity else None, ".0f"),
    ),
)
CLIPS: tuple[Column[Curve], ...] = (
    Column(heading="backend", cell=lambda curve: Cell(curve.backend), words=True),
    Column(heading="clip", cell=lambda curve: Cell(curve.clip), words=True),
    Column(heading="worst dB, free", cell=lambda c: number(min(c.free_db, default=None), ".1f")),
    Column(heading="at horizon", cell=lambda c: number(c.worst_frame if c.free_db else None, "d")),
    Column(
        heading="worst dB, forced", cell=lambda c: number(min(c.forced_db, default=None), ".1f")
    ),
    Column(
        heading="worst dB, own codes", cell=lambda c: number(min(c.own_db, default=None), ".1f")
    ),
    Column(heading="codes", cell=lambda c: number(c.code_agreement, ".3%")),
    Column(heading="tied", cell=lambda c: number(c.codes.tied or None if c.codes else None, "d")),
    Column(heading="imagined codes", cell=lambda c: number(c.imagined_agreement, ".3%")),
    Column(heading="first other code at", cell=_first_difference),
    Column(heading="first other draw at", cell=_first_draw),
)
OUTPUTS: tuple[Column[tuple[str, str, OutputParity]], ...] = (
    Column(heading="backend", cell=lambda item: Cell(item[0]), words=True),
    Column(heading="output", cell=lambda item: Cell(item[1]), words=True),
    Column(heading="equal", cell=lambda item: number(item[2].agreement, ".3%")),
    Column(heading="largest error", cell=lambda item: number(item[2].relative, ".1e")),
    Column(heading="variation", cell=lambda item: number(item[2].variation, ".1e")),
)
FIXED_RATE: tuple[Column[FixedRate], ...] = (
    Column(heading="backend", cell=lambda rate: Cell(rate.backend), words=True),
    Column(heading="asked", cell=lambda rate: number(rate.frames, "d")),
    Column(heading="missed", cell=_missed),
    Column(heading="p50 ms", cell=lambda rate: _latency(rate, 50)),
    Column(heading="p99 ms", cell=lambda rate: _latency(rate, 99)),
    Column(heading="max ms", cell=lambda rate: _latency(rate, 100)),
    Column(heading="jitter ms", cell=lambda rate: _figure(rate.jitter_ms)),
)
