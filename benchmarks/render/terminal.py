"""A report as rich tables for the terminal."""

from typing import Any

from rich.table import Table
from rich.text import Text

from wmdeploy.benchmarks.render.format import figure, narrow_table
from wmdeploy.benchmarks.report import Parity, Report, Row
from wmdeploy.benchmarks.stages import STAGES
from wmdeploy.benchmarks.stats import percentile

_WORDS = {"pass": "passed", "fail": "failed", "skipped": "skipped"}
_BINDS = {"compute": "ops", "bandwidth": "bytes"}


def report_tables(report: Report) -> list[Table]:
    """Latency by stage, batches and pacing if they were asked for, memory, parity, swaps."""
    batches = [_batches(report)] if any(row.batch > 1 for row in report.rows) else []
    pacing = [_pacing(report)] if report.pacing else []
    on_gpu = any(row.memory is not None and row.memory.gpu_used is not None for row in report.rows)
    memory = [_memory(report)] if on_gpu else []
    swaps = [_swaps(report)] if report.swaps else []
    return [_latency(report), *batches, *pacing, *memory, *swaps, _parity(report)]


def _latency(report: Report) -> Table:
    ceilings = report.environment["ceilings"].items()
    on_gpu = any(row.device_p50_ms is not None for row in report.rows)
    table = narrow_table(
        f"{report.bundle['name']}: latency, batch 1",
        "speed-up: median over rounds in which the backends took turns, ± half of its 95% "
        "interval; in yellow where the machine was too noisy. "
        "floor: bytes over bandwidth or operations over their rate, the larger, both measured "
        f"now: {'; '.join(_ceiling(name, figures) for name, figures in ceilings)}. "
        "Weights that stay in a cache can beat it. "
        + ("device: between two CUDA events. " if on_gpu else "")
        + "parity: worst frame, or the largest error of the output",
        ("stage", "backend"),
        (
            "runs", "p50 ms", "p99 ms", *(["device ms"] if on_gpu else []), "per s",
            "speed-up", "floor ms", "of floor",
        ),
    )  # fmt: skip
    table.add_column("parity", justify="right")
    for column in table.columns:
        column.no_wrap = column.header in ("stage", "backend", "speed-up", "of floor", "parity")
    single = [row for row in report.rows if row.batch == 1 and row.p50_ms is not None]
    for stage in STAGES:
        rows = [row for row in single if row.stage == stage]
        for row in rows:
            table.add_row(
                Text(stage.removesuffix("_call"), style="bold") if row is rows[0] else "",
                row.backend,
                str(len(row.samples_ms)),
                figure(row.p50_ms),
                figure(row.p99_ms),
                *([figure(row.device_p50_ms)] if on_gpu else []),
                figure(row.frames_per_s),
                Text(_speedup(row), style="yellow" if row.noisy else ""),
                figure(row.floor_ms),
                ""
                if row.of_floor is None
                else f"{row.of_floor:.0%} {_BINDS.get(row.bound or '', '')}",
                _short_parity(row.parity),
                style="red" if row.verdict == "fail" else None,
                end_section=row is rows[-1],
            )
    return table


def _speedup(row: Row) -> str:
    """Such as "1.86x ±0.5%"; the baseline's own and single runs have no interval."""
    if row.speedup is None:
        return ""
    if row.speedup_low is None or row.speedup_high in (None, row.speedup_low):
        return f"{row.speedup:.2f}x"
    half = (row.speedup_high - row.speedup_low) / 2 / row.speedup
    return f"{row.speedup:.2f}x ±{100 * half:.1f}%"


def _ceiling(device: str, figures: dict[str, Any]) -> str:
    half = figures.get("half_gflop_s")
    rates = f"{figures['gflop_s']:,.0f} GFLOP/s in float32"
    rates += f", {half:,.0f} in float16" if half else f" with {figures['threads']} threads"
    return f"{device} {figures['bandwidth_gb_s']:,.0f} GB/s, {rates}"


def _batches(report: Report) -> Table:
    """Frames of all sessions together, and memory, as sessions are added."""
    table = narrow_table(
        "batches: sessions that run together",
        "per second: frames, or steps without rendering, of all sessions together. "
        "memory: with what the smaller batches needed",
        ("backend",),
        (
            "sessions", "frame p50 ms", "frames per s", "gain", "floor ms", "imagine p50 ms",
            "steps per s", "memory MB",
        ),
    )  # fmt: skip
    rows = {(r.backend, r.stage, r.batch): r for r in report.rows if r.p50_ms is not None}
    for backend in dict.fromkeys(row.backend for row in report.rows):
        sizes = sorted(b for name, stage, b in rows if (name, stage) == (backend, "frame"))
        for batch in sizes:
            frame, imagine = rows[backend, "frame", batch], rows[backend, "imagine", batch]
            one = rows[backend, "frame", 1]
            table.add_row(
                backend if batch == sizes[0] else "",
                str(batch),
                figure(frame.p50_ms),
                figure(frame.frames_per_s),
                f"{(frame.frames_per_s or 0) / (one.frames_per_s or 1):.2f}x",
                figure(frame.floor_ms),
                figure(imagine.p50_ms),
                figure(imagine.frames_per_s),
                figure(frame.memory_mb),
                end_section=batch == sizes[-1],
            )
    return table


def _memory(report: Report) -> Table:
    """The same memory as each of those who count it sees it."""
    table = narrow_table(
        "memory in MB, batch 1",
        "process: on the GPU, with CUDA's context, as the driver counts; growth: what came into "
        "use on the GPU while the process was at work; GPU: all that is in use there, other "
        "backends included; torch: the most that its allocator held; engines: what they say of "
        "themselves; host: peak resident",
        ("backend",),
        ("process", "growth", "GPU", "torch", "engines", "host"),
    )
    for row in report.rows:
        if (row.stage, row.batch) == ("frame", 1) and row.memory is not None:
            found = row.memory
            engines = ", ".join(f"{label} {size:.0f}" for label, size in found.engines.items())
            counted = (found.gpu_process, found.gpu_grown, found.gpu_used, found.torch_peak)
            figures = map(figure, counted)
            table.add_row(row.backend, *figures, engines, figure(found.resident))
    return table


def _pacing(report: Report) -> Table:
    """Frames at a fixed rate, not back to back."""
    fps = report.pacing[0].fps
    table = narrow_table(
        f"pacing: {fps:g} frames per second asked for",
        f"latency: from the moment a frame was due until it was there; missed: later than the next "
        f"one was due ({1e3 / fps:.1f} ms), or never there; jitter: standard deviation of the time "
        "between two frames. Backends did not take turns here",
        ("backend",),
        ("asked", "missed", "p50 ms", "p99 ms", "max ms", "jitter ms"),
    )
    for paced in report.pacing:
        latency = paced.latency_ms
        table.add_row(
            paced.backend,
            str(paced.frames),
            Text(str(paced.misses), style="red" if paced.misses else ""),
            *(figure(percentile(latency, q)) for q in (50, 99, 100)),
            figure(paced.jitter_ms),
        )
    return table


def _swaps(report: Report) -> Table:
    """Worst frames where one graph alone is the backend's."""
    graphs = list(next(iter(report.swaps.values())))
    table = narrow_table(
        "which graph brings the error in: worst frame, dB",
        "that graph alone is the backend's, the others are PyTorch's in float32",
        ("backend",),
        graphs,
    )
    for backend, found in report.swaps.items():
        least = min(found.values())
        cells = (Text(f"{db:.1f}", style="bold" if db == least else "") for db in found.values())
        table.add_row(backend, *cells)
    return table


def _parity(report: Report) -> Table:
    baseline = report.rows[0].backend
    precision = report.bundle["recipe"]["precision"]
    frames = [row for row in report.rows if row.stage == "frame" and row.batch == 1]
    horizons = next((list(_worst(row)) for row in frames if _worst(row)), [])
    kinds = sorted({row.memory.headline[1] for row in frames if row.memory is not None})
    counted = f"memory: of the backend's process ({', '.join(kinds)})" if kinds else ""
    table = narrow_table(
        f"parity with {baseline} in float32 ({precision} bundle, the same rollouts), and memory",
        "\n".join(line for line in (counted, *_reasons(report)) if line),
        ("backend",),
        (
            "memory MB", "codes", *(f"worst dB to {horizon}" for horizon in horizons), "mean dB",
            "max of 255",
        ),
    )  # fmt: skip
    table.add_column("verdict")
    for column in (table.columns[0], table.columns[2], table.columns[-1]):
        column.no_wrap = True
    for row in (row for row in frames if row.verdict != "skipped"):
        cells = _parity_cells(row, horizons)
        verdict = Text(row.verdict, style="bold red" if row.verdict == "fail" else "green")
        table.add_row(row.backend, figure(row.memory_mb), *cells, verdict)
    return table


def _reasons(report: Report) -> list[str]:
    """Why backends failed or did not run, and what was tied, by reason: too long for a cell."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for row in report.rows:
        if (row.stage, row.batch) == ("frame", 1) and (row.verdict != "pass" or row.reason):
            reasons.setdefault((_WORDS[row.verdict], row.reason or ""), []).append(row.backend)
    return [f"{word}: {', '.join(names)}: {why}" for (word, why), names in reasons.items()]


def _parity_cells(row: Row, horizons: list[str]) -> list[str]:
    parity = row.parity
    if parity is None or parity.psnr_db is None:
        return ["baseline" if row.verdict == "pass" else "", *[""] * (len(horizons) + 2)]
    codes = "" if parity.code_agreement is None else f"{parity.code_agreement:.2%}"
    worst = [f"{_worst(row)[h]:.1f}" for h in horizons]
    return [codes, *worst, f"{parity.psnr_db[horizons[-1]]:.1f}", f"{parity.max_abs:.0f}"]


def _worst(row: Row) -> dict[str, float]:
    return (row.parity and row.parity.worst_frame_psnr_db) or {}


def _short_parity(parity: Parity | None) -> str:
    if parity is None:
        return ""
    if parity.worst_frame_psnr_db:
        return f"{min(parity.worst_frame_psnr_db.values()):.1f} dB"
    return "" if parity.max_abs is None else f"{parity.max_abs:.1e}"
