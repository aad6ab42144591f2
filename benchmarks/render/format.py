"""How a figure of a report is written."""

import shlex
from collections.abc import Iterable, Sequence

from wmdeploy.benchmarks.report import Report, Row
from wmdeploy.engines.base import BACKENDS
from wmdeploy.programs.contract import FULL

STUDENT = "student"  # in the config of the family whose models may have one


def about(report: Report) -> str:
    """One line: what was measured, and where."""
    bundle, environment = report.bundle, report.environment
    what = [bundle.recipe.types, f"{bundle.recipe.layout} layout",
            f"context {bundle.context}", f"horizon {bundle.horizon}"]  # fmt: skip
    gpu = "" if environment.gpu is None else environment.gpu.name
    where = [gpu, environment.cpu, f"{environment.cores} cores"]
    return "; on ".join(", ".join(filter(None, part)) for part in (what, where))


def profile_command(report: Report, bundle: str) -> str | None:
    """What shows where the time goes of the fastest backend that passed and has a profiler.

    Args:
        bundle: its path.
    """
    able = {name for name, entry in BACKENDS.items() if entry.profiler}
    fastest = _fastest(row for row in report.frames() if row.backend in able)
    if fastest is None:
        return None
    return f"wmdeploy profile {shlex.quote(bundle)} --backend {fastest.backend}"


def gains(report: Report) -> list[str]:
    """What a student decoder and weights of 8 bits would gain where neither is used: sentences."""
    bundle, found = report.bundle, []
    frame = _fastest(report.frames())
    decoder = next(
        (row.p50_ms for row in report.rows if frame and row.stage == "decoder" and row.batch == 1
         and row.backend == frame.backend),
        None,
    )  # fmt: skip
    full = report.environment.settings.decoder == FULL
    if frame and frame.p50_ms and decoder and full and STUDENT in bundle.model:
        share = min(1.0, decoder / frame.p50_ms)
        there = bundle.model[STUDENT] is not None
        found.append(
            f"The decoder takes {share:.0%} of a frame of {frame.backend}. A student of it"
            + (" is in the bundle" if there else ", which `wmdeploy distill` makes,")
            + (", and" if there else "")
            + " has about a tenth of its operations, with which a frame would be about "
            f"{1 / (1 - 0.9 * share):.1f} times as fast. `wmdeploy bench` measures how far its "
            "pictures are from the full decoder's."
        )
    if bundle.recipe.weights == "float" and bundle.layer_bytes:
        part = "a quarter" if bundle.recipe.precision == "fp32" else "half"
        found.append(
            f"Large linear layers have {figure(bundle.layer_bytes / 1e6)} of the bundle's "
            f"{figure(bundle.bundle_bytes / 1e6)} MB. With weights of 8 bits, which `wmdeploy "
            f"export` stores if asked, they take about {part} of that, for ort-cpu and openvino."
        )
    return found


def _fastest(rows: Iterable[Row]) -> Row | None:
    """Of those that passed and have times."""
    passed = [row for row in rows if row.verdict == "pass" and row.p50_ms]
    return min(passed, key=lambda row: row.p50_ms or 0.0, default=None)


def figure(value: float | None) -> str:
    """Three significant digits at most, without exponents."""
    if value is None:
        return ""
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def milliseconds(value: float) -> str:
    """As `figure`, also of microseconds, and of what a difference is below 0."""
    if abs(value) < 1:
        return f"{value:.3f}"
    return figure(value) if value > 0 else f"-{figure(-value)}"


def speed_up(row: Row) -> str:
    """Such as "1.86x ±0.5%"; the baseline's own and single runs have no interval."""
    if row.speedup is None:
        return ""
    if row.speedup_low is None or row.speedup_high in (None, row.speedup_low):
        return f"{row.speedup:.2f}x"
    half = (row.speedup_high - row.speedup_low) / 2 / row.speedup
    return f"{row.speedup:.2f}x ±{100 * half:.1f}%"


def interval(row: Row) -> str:
    """The 95% interval of the speed-up."""
    low, high = row.speedup_low, row.speedup_high
    return "" if low is None or high is None or low == high else f"{low:.2f} to {high:.2f}"


def worst_db(row: Row) -> str:
    """PSNR of the worst frame of the longest rollout."""
    worst = row.worst_frame_db
    return f"{min(worst.values()):.1f}" if worst else ""


def some(names: Sequence[str], most: int = 3) -> str:
    """The first names, and how many more there are."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")
