"""A report's tables, as terminal, Markdown and page show them: columns are in `columns.py`.

Columns that no row fills are left out.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec

from wmdeploy.benchmarks.render import columns as of
from wmdeploy.benchmarks.render.columns import Cell, Column, Item
from wmdeploy.benchmarks.report import Report, Row, flatten
from wmdeploy.benchmarks.stages import COMMON, Stage, StageName, stages_of
from wmdeploy.programs.contract import FULL

LONGEST = 300  # characters of a value of the environment
STUDENT = (
    "Decoder: {}. Full: its frames against those of the full decoder in float32, which no verdict "
    "looks at. Times of the baseline are with the full decoder."
)
WORDS = {"pass": "passed", "fail": "failed", "skipped": "skipped"}


@dataclass(frozen=True, kw_only=True)
class Table:
    """`numeric` are the headings whose columns stand on the right, `wide` those of the page."""

    title: str
    headings: tuple[str, ...]
    rows: list[list[Cell]]
    caption: str = ""
    numeric: frozenset[str] = frozenset()
    wide: frozenset[str] = frozenset()

    def narrow(self) -> "Table":
        """Without the columns that are for the page only."""
        kept = [i for i, heading in enumerate(self.headings) if heading not in self.wide]
        return Table(
            title=self.title,
            headings=tuple(self.headings[i] for i in kept),
            rows=[[row[i] for i in kept] for row in self.rows],
            caption=self.caption,
            numeric=self.numeric,
        )


def stages_in(report: Report) -> dict[StageName, Stage]:
    """All stages of a report, in its order; what is no common one is taken for a graph's."""
    others = (row.stage for row in report.rows if row.stage not in COMMON)
    return stages_of(dict.fromkeys([*report.bundle.graphs, *others]))


def latency(report: Report) -> Table:
    """All stages at batch 1."""
    ceilings = report.environment.ceilings.items()
    captions = [
        "Speed-up: the median over rounds in which the backends took turns, ± half of its 95% "
        "interval; yellow: the machine was too noisy",
        "Floor: bytes over bandwidth or operations over their rate, whichever is larger; both were "
        "measured in this run: "
        + "; ".join(
            f"{device} {c.bandwidth_gb_s:,.0f} GB/s, {c.gflop_s:,.0f} GFLOP/s in float32"
            + (
                f", {c.half_gflop_s:,.0f} in float16"
                if c.half_gflop_s
                else f" with {c.threads} threads"
            )
            for device, c in ceilings
        )
        + ". Weights that stay in a cache can beat it",
        "Parity: the worst frame, or the largest error of the output",
    ]
    if any(row.device_p50_ms is not None for row in report.rows):
        captions.insert(2, "Device: between two CUDA events")
    rows = [row for row in report.rows if row.batch == 1 and row.is_timed]
    columns = [of.stage_column(list(stages_in(report))), *of.LATENCY]
    decoder = report.environment.settings.decoder
    if decoder != FULL:
        captions.append(f"Decoder: {decoder}; the baseline's times are with the full one")
    return filled_table(
        f"{report.bundle.name}: latency, batch 1", rows, columns, f"{'. '.join(captions)}."
    )


def summary(report: Report) -> Table:
    """The stages that matter most, and backends without times, for a pull request."""
    shown = [stage for stage in stages_in(report).values() if stage.summary]
    shown.sort(key=lambda stage: not stage.session)  # stable
    rows = [r for stage in shown for r in report.rows if r.stage == stage.name and r.is_timed]
    return filled_table("summary", rows, of.SUMMARY)


def batches(report: Report) -> Table:
    """Whole frames and steps of several sessions together; no rows where only one session ran."""
    stages = stages_in(report)
    rows = [row for row in report.rows if stages[row.stage].batched and row.is_timed]
    rows = rows if any(row.batch > 1 for row in rows) else []
    single = {(r.backend, r.stage): r.frames_per_s for r in rows if r.batch == 1}

    def gain(row: Row) -> Cell:
        one = single.get((row.backend, row.stage))
        return of.number((row.frames_per_s or 0) / one if one else None, ".2f")

    return filled_table(
        "batches: sessions that run together",
        rows,
        [of.stage_column(list(stages)), *of.BATCHES, Column[Row](heading="gain", cell=gain)],
        "Per s: frames, or steps without rendering, of all sessions together. "
        "Gain: over one session. "
        "Memory: includes what the smaller batches needed.",
    )


def memory(report: Report) -> Table:
    """The same memory as each of those who count it sees it; no rows without a GPU."""
    used = [(r.backend, r.memory) for r in report.frames() if r.memory is not None]
    on_gpu = any(memory.gpu_used is not None for _, memory in used)
    return filled_table(
        "memory in MB, batch 1",
        used if on_gpu else [],
        of.MEMORY,
        "Process: on the GPU, with CUDA's context, as the driver counts. Growth: what came into "
        "use on the GPU while the process was at work. GPU: everything in use there, other "
        "backends included. Torch: the most that its allocator held. Engines: what they report "
        "themselves. Host: peak resident.",
    )


def parity(report: Report) -> Table:
    """Each backend's rollout against the baseline's, the worst of all clips."""
    rows = [row for row in report.frames() if row.verdict != "skipped"]
    horizons = sorted({h for row in rows for h in row.worst_frame_db}, key=lambda h: (len(h), h))
    kinds = sorted({row.memory.headline[1] for row in rows if row.memory is not None})
    memory = [f"Memory: of the backend's process ({', '.join(kinds)})."] if kinds else []
    columns = [
        *of.PARITY_LEFT,
        *(of.worst_db_column(horizon) for horizon in horizons),
        of.mean_db_column(horizons[-1] if horizons else ""),
        *of.PARITY_RIGHT,
        Column[Row](
            heading="verdict", cell=lambda row: of.verdict(row, report.baseline), words=True
        ),
    ]
    decoder = report.environment.settings.decoder
    student = [] if decoder == FULL else [STUDENT.format(decoder)]
    same = "the same rollouts" if decoder == FULL else f"the same rollouts and decoder, {decoder}"
    return filled_table(
        f"parity with {report.baseline} in float32 ({report.bundle.recipe.types} bundle, "
        f"{same}), and memory",
        rows,
        columns,
        "\n".join([*memory, *student, *_reasons(report)]),
    )


def clips(report: Report) -> Table:
    """Each backend on each clip: worst frames, and how codes hold."""
    return filled_table("clips", report.curves, of.CLIPS)


def outputs(report: Report) -> Table:
    """Named outputs, such as logits and rewards; no rows where the model gives none."""
    items = [
        (row.backend, name, output)
        for row in report.frames()
        for name, output in (row.parity.outputs if row.parity else {}).items()
    ]
    return filled_table(
        "named outputs",
        items,
        of.OUTPUTS,
        "Of predictions that follow true frames. Equal: of integers. Largest error: relative to "
        "the baseline's largest value. Variation: of logits, the mean total variation, which is "
        "how often what is drawn from them may differ.",
    )


def substitutions(report: Report) -> Table:
    """Worst frame of rollouts in which one graph alone is the backend's."""
    graphs = dict.fromkeys(g for worst in report.substitutions.values() for g in worst)
    columns = [
        Column[tuple[str, dict[str, float]]](
            heading="backend", cell=lambda item: Cell(item[0]), words=True
        ),
        *(of.substitution_column(graph) for graph in graphs),
    ]
    return filled_table(
        "which graph brings the error in: worst frame, dB",
        report.substitutions.items(),
        columns,
        "That graph alone is the backend's, the others are PyTorch's in float32.",
    )


def fixed_rate(report: Report) -> Table:
    """Frames at a fixed rate, not back to back."""
    fps = report.fixed_rate[0].fps if report.fixed_rate else 1.0
    period = 1e3 / fps if fps > 0 else 0.0
    return filled_table(
        f"fixed rate: {fps:g} frames per second",
        report.fixed_rate,
        of.FIXED_RATE,
        f"Latency: from the moment a frame was due until it was there. Missed: later than the "
        f"next one was due ({period:.1f} ms), or never there. Jitter: standard deviation of "
        "the time between two frames. Backends did not take turns here.",
    )


def facts(report: Report) -> Table:
    """The environment and the bundle, one value a line; not what has a plot or is long."""
    environment = msgspec.to_builtins(report.environment)
    bundle = msgspec.to_builtins(report.bundle)
    values = {**flatten(environment), **flatten(bundle, "bundle.")}
    shown = [i for i in values.items() if not i[0].startswith(("gpu_states.", "bundle.graphs."))]
    return Table(
        title="environment",
        headings=("what", "value"),
        rows=[[Cell(name), Cell(_short(value))] for name, value in shown],
    )


def filled_table(
    title: str, items: Iterable[Item], columns: Sequence[Column[Item]], caption: str = ""
) -> Table:
    """A table with the columns that some row fills."""
    rows = [[column.cell(item) for column in columns] for item in items]
    kept = [i for i in range(len(columns)) if any(row[i].text for row in rows)]
    shown = [columns[i] for i in kept]
    return Table(
        title=title,
        headings=tuple(column.heading for column in shown),
        rows=[[row[i] for i in kept] for row in rows],
        caption=caption,
        numeric=frozenset(column.heading for column in shown if not column.words),
        wide=frozenset(column.heading for column in shown if column.wide),
    )


def _reasons(report: Report) -> list[str]:
    """Why backends failed or did not run, and what was tied, by reason: too long for a cell."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for row in report.frames():
        if row.verdict != "pass" or row.reason:
            reasons.setdefault((WORDS[row.verdict], row.reason or ""), []).append(row.backend)
    return [f"{word}: {', '.join(names)}: {why}" for (word, why), names in reasons.items()]


def _short(value: object) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    text = "none" if value is None else text
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
