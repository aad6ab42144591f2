"""A report as rich tables for the terminal."""

from typing import Any

from rich.table import Table
from rich.text import Text

from benchmarks.parity import Parity
from benchmarks.report import STAGES, Report, Row

MEANINGS = {
    "load": "files to engines, hashes checked",
    "first_call": "first frame after loading, compilation included",
    "encode": "one frame to its token",
    "prefill": "a full window through the transformer",
    "step": "one transformer step (baseline: the whole window)",
    "decode": "one token to its frame",
    "download": "one frame from the GPU to the host",
    "frame": "a whole frame of a rollout, window full",
    "imagine": "one step without rendering, last slot of the window",
    "slide": "one step without rendering, window sliding",
}


def report_tables(report: Report) -> list[Table]:
    """Latency by stage, batches if any were asked for, memory if it is on a GPU, and parity."""
    batches = [_batches(report)] if any(row.batch > 1 for row in report.rows) else []
    on_gpu = any(row.memory is not None and row.memory.gpu_used is not None for row in report.rows)
    memory = [_memory(report)] if on_gpu else []
    return [_latency(report), *batches, *memory, _parity(report)]


def _latency(report: Report) -> Table:
    ceilings = report.environment["ceilings"].items()
    on_gpu = any(row.device_p50_ms is not None for row in report.rows)
    kinds = sorted({row.memory.headline[1] for row in report.rows if row.memory is not None})
    table = Table(
        title=f"{report.bundle['name']}: latency, batch 1",
        caption=(
            "floor: bytes over bandwidth or operations over matrix rate, the larger, both measured "
            f"now: {'; '.join(_ceiling(name, figures) for name, figures in ceilings)}. Weights "
            "that stay in a cache can beat it. "
            + ("device: between two CUDA events. " if on_gpu else "")
            + f"memory: of the backend's process ({', '.join(kinds)})"
        ),
        title_justify="left",
        caption_justify="left",
    )
    table.add_column("stage")
    table.add_column("backend")
    table.add_column("runs", justify="right")
    for heading in ("p50 ms", "p90 ms", "p99 ms", "per s", "speed-up", "floor ms", "of floor"):
        table.add_column(heading, justify="right")
    if on_gpu:
        table.add_column("device ms", justify="right")
    table.add_column("memory MB", justify="right")
    table.add_column("parity", justify="right")
    table.add_column("verdict")
    single = [row for row in report.rows if row.batch == 1 and row.p50_ms is not None]
    for stage in STAGES:
        rows = [row for row in single if row.stage == stage]
        for row in rows:
            first = row is rows[0]
            table.add_row(
                Text(stage, style="bold") if first else "",
                row.backend,
                str(len(row.samples_ms)),
                _number(row.p50_ms),
                _number(row.p90_ms),
                _number(row.p99_ms),
                _number(row.frames_per_s),
                "" if row.speedup is None else f"{row.speedup:.2f}x",
                _number(row.floor_ms),
                "" if row.of_floor is None else f"{row.of_floor:.0%}",
                *([_number(row.device_p50_ms)] if on_gpu else []),
                _number(row.memory_mb),
                _short_parity(row.parity),
                row.verdict,
                style="red" if row.verdict == "fail" else None,
                end_section=row is rows[-1],
            )
    return table


def _ceiling(device: str, figures: dict[str, Any]) -> str:
    half = figures.get("half_gemm_gflop_s")
    rates = f"{figures['gemm_gflop_s']:,.0f} GFLOP/s in float32"
    rates += f", {half:,.0f} in float16" if half else f" with {figures['threads']} threads"
    return f"{device} {figures['bandwidth_gb_s']:,.0f} GB/s, {rates}"


def _batches(report: Report) -> Table:
    """Frames of all sessions together, and memory, as sessions are added."""
    table = Table(
        title="batches: sessions that run together",
        caption="per second: frames, or steps without rendering, of all sessions together. "
        "memory: with what the smaller batches needed",
        title_justify="left",
        caption_justify="left",
    )
    table.add_column("backend")
    for heading in (
        "sessions", "frame p50 ms", "frames per s", "gain", "floor ms", "imagine p50 ms",
        "steps per s", "memory MB",
    ):  # fmt: skip
        table.add_column(heading, justify="right")
    rows = {(r.backend, r.stage, r.batch): r for r in report.rows if r.p50_ms is not None}
    for backend in dict.fromkeys(row.backend for row in report.rows):
        sizes = sorted(b for name, stage, b in rows if (name, stage) == (backend, "frame"))
        for batch in sizes:
            frame, imagine = rows[backend, "frame", batch], rows[backend, "imagine", batch]
            one = rows[backend, "frame", 1]
            table.add_row(
                backend if batch == sizes[0] else "",
                str(batch),
                _number(frame.p50_ms),
                _number(frame.frames_per_s),
                f"{(frame.frames_per_s or 0) / (one.frames_per_s or 1):.2f}x",
                _number(frame.floor_ms),
                _number(imagine.p50_ms),
                _number(imagine.frames_per_s),
                _number(frame.memory_mb),
                end_section=batch == sizes[-1],
            )
    return table


def _memory(report: Report) -> Table:
    """The same memory as each of those who count it sees it."""
    table = Table(
        title="memory in MB, batch 1",
        caption=(
            "process: on the GPU, with CUDA's context, as the driver counts; GPU: all that is in "
            "use there; torch: the most that its allocator held; engines: what they say of "
            "themselves; host: peak resident"
        ),
        title_justify="left",
        caption_justify="left",
    )
    table.add_column("backend")
    for heading in ("process", "GPU", "torch", "engines", "host"):
        table.add_column(heading, justify="right")
    for row in report.rows:
        if (row.stage, row.batch) == ("frame", 1) and row.memory is not None:
            found = row.memory
            engines = ", ".join(f"{label} {size:.0f}" for label, size in found.engines.items())
            figures = (_number(f) for f in (found.gpu_process, found.gpu_used, found.torch_peak))
            table.add_row(row.backend, *figures, engines, _number(found.resident))
    return table


def _parity(report: Report) -> Table:
    baseline = report.rows[0].backend
    precision = report.bundle["recipe"]["precision"]
    table = Table(
        title=f"parity with {baseline} in float32 ({precision} bundle, the same rollout)",
        caption=_skipped(report),
        title_justify="left",
        caption_justify="left",
    )
    frames = [row for row in report.rows if row.stage == "frame" and row.batch == 1]
    horizons = next((list(_worst(row)) for row in frames if _worst(row)), [])
    table.add_column("backend")
    table.add_column("codes", justify="right")
    for horizon in horizons:
        table.add_column(f"worst dB to {horizon}", justify="right")
    table.add_column("mean dB", justify="right")
    table.add_column("max error", justify="right")
    table.add_column("verdict")
    for row in (row for row in frames if row.verdict != "skipped"):
        table.add_row(row.backend, *_parity_cells(row, horizons), _verdict(row))
    return table


def _skipped(report: Report) -> str:
    """The backends that did not run, by reason."""
    reasons: dict[str, list[str]] = {}
    for row in report.rows:
        if row.stage == "frame" and row.verdict == "skipped":
            reasons.setdefault(row.reason or "", []).append(row.backend)
    return "\n".join(f"skipped: {', '.join(names)}: {why}" for why, names in reasons.items())


def _parity_cells(row: Row, horizons: list[str]) -> list[str]:
    parity = row.parity
    if parity is None or parity.psnr_db is None:
        return ["baseline" if row.verdict == "pass" else "", *[""] * (len(horizons) + 2)]
    codes = "" if parity.code_agreement is None else f"{parity.code_agreement:.2%}"
    worst = [f"{_worst(row)[h]:.1f}" for h in horizons]
    return [codes, *worst, f"{parity.psnr_db[horizons[-1]]:.1f}", f"{parity.max_abs:.0f} of 255"]


def _verdict(row: Row) -> Text:
    styles = {"pass": "green", "fail": "bold red", "skipped": "yellow"}
    words = row.verdict if row.reason is None else f"{row.verdict}: {row.reason}"
    return Text(words, style=styles[row.verdict])


def _worst(row: Row) -> dict[str, float]:
    return (row.parity and row.parity.worst_frame_psnr_db) or {}


def _short_parity(parity: Parity | None) -> str:
    if parity is None:
        return ""
    if parity.worst_frame_psnr_db:
        return f"{min(parity.worst_frame_psnr_db.values()):.1f} dB"
    return "" if parity.max_abs is None else f"{parity.max_abs:.1e}"


def _number(value: float | None) -> str:
    """Three significant digits at most, without exponents."""
    if value is None:
        return ""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
