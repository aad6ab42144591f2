"""Reports made of chosen or random numbers, for what is made from reports. No test is in here."""

import base64
import dataclasses
import io
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from wmdeploy.benchmarks.environment import Ceilings, Effort, Environment
from wmdeploy.benchmarks.report import (
    SCHEMA,
    BundleFacts,
    Curve,
    FixedRate,
    GraphFacts,
    Memory,
    Parity,
    Report,
    Row,
)
from wmdeploy.benchmarks.stages import StageName, find_stage, stages_of
from wmdeploy.engines.base import Settings
from wmdeploy.files import write_document
from wmdeploy.manifest import Recipe

TIMES: dict[StageName, tuple[float, float]] = {  # ms of the baseline; of the second, the ratio
    "load": (900.0, 1.2), "first_call": (250.0, 1.1), "encoder": (16.0, 1.1), "prefill": (8.0, 6.0),
    "step": (11.0, 29.0), "decoder": (30.0, 1.4), "frame": (45.0, 1.9), "imagine": (13.0, 20.0),
    "slide": (13.0, 7.0),
}  # fmt: skip
HORIZONS = (1, 8, 32, 64)
ROUNDS = 20
RECIPE = Recipe(
    source="preset small, seed 0",
    layout="token",
    precision="fp32",
    max_batch=4,
    opset=23,
    slim=False,
    clip="sha256:0",
    tools={"torch": "2.13.0"},
)
ENVIRONMENT = Environment(
    date="2026-11-23T04:41:43+00:00",
    cpu="AMD EPYC",
    gpu=None,
    cores=2,
    memory_gb=16.0,
    system="Linux 6.1",
    python="3.12.3",
    packages={"wmdeploy": "0.1.0", "torch": "2.13.0"},
    load_average=0.8,
    affinity=[0, 1],
    ceilings={"cpu": Ceilings(42.3, 174.1, 2)},
    settings=Settings(),
    effort=Effort(),
)
GRAPHS = {
    name: GraphFacts(
        flops=flops,
        weight_bytes=weights,
        moved_bytes=weights + 1_200_000,
        other_layout_weight_bytes=other,
    )
    for name, flops, weights, other in (
        ("encoder", 3_849_322_496, 22_524_800, 5_747_584),
        ("prefill", 201_457_664, 12_883_968, 46_438_400),
        ("step", 6_422_528, 12_883_968, 46_438_400),
        ("decoder", 5_225_054_208, 23_319_424, 6_541_312),
    )
}
BUNDLE = BundleFacts(
    name="small",
    manifest_sha256="0" * 64,
    recipe=RECIPE,
    model={"vqvae": {"image_size": 128}, "temporal": {"layers": 4, "context": 32}},
    context_length=32,
    graphs=GRAPHS,
    bundle_bytes=130_963_837,
    clips=["a.mkv", "b.mkv"],
    context=8,
    horizon=128,
)


def row_of(backend: str = "eager", stage: StageName = "frame", **values: Any) -> Row:
    """A row without times that passes, of float32 on the CPU at batch 1."""
    given = {"precision": "fp32", "device": "cpu", "batch": 1, "verdict": "pass"} | values
    return Row(backend=backend, stage=stage, **given)  # type: ignore[arg-type]


def report_of(rows: Iterable[Row] = (), **values: Any) -> Report:
    """A valid report of these rows, and of nothing else that could be left out."""
    given = {"baseline": "eager", "environment": ENVIRONMENT, "bundle": BUNDLE} | values
    return Report(schema=SCHEMA, rows=list(rows), **given)  # type: ignore[arg-type]


def with_environment(report: Report, **values: Any) -> Report:
    environment = dataclasses.replace(report.environment, **values)
    return dataclasses.replace(report, environment=environment)


def with_bundle(report: Report, **values: Any) -> Report:
    return dataclasses.replace(report, bundle=dataclasses.replace(report.bundle, **values))


def with_rows(report: Report, change: Callable[[Row], Row | None]) -> Report:
    """`change` gets each row and gives it back, another one, or None to leave it out."""
    rows = [changed for row in report.rows if (changed := change(row)) is not None]
    return dataclasses.replace(report, rows=rows)


def with_rows_of(report: Report, backend: str, /, **values: Any) -> Report:
    """Other values in all rows of a backend."""
    return with_rows(
        report, lambda row: dataclasses.replace(row, **values) if row.backend == backend else row
    )


def with_parity(report: Report, backend: str, stage: StageName, **values: Any) -> Report:
    """Other parity of a backend at a stage."""

    def change(row: Row) -> Row:
        if (row.backend, row.stage) != (backend, stage) or row.parity is None:
            return row
        return dataclasses.replace(row, parity=dataclasses.replace(row.parity, **values))

    return with_rows(report, change)


def with_curves(report: Report, change: Callable[[Curve], Curve]) -> Report:
    return dataclasses.replace(report, curves=[change(curve) for curve in report.curves])


def made_report(
    seed: int = 0,
    backends: tuple[str, ...] = ("eager", "ort-cpu", "compile"),
    half_width: float = 0.015,
    batches: tuple[int, ...] = (1, 4),
    slower: dict[str, float] | None = None,
) -> Report:
    """A run of a machine whose ratios have 95% intervals of about `half_width` on each side.

    Args:
        backends: the first is the baseline.
        slower: by stage, how much longer the last backend takes, 1.1 for 10%.
    """
    rng = np.random.default_rng(seed)
    exact = np.random.default_rng(7)  # parity is the same in every run
    curves = [_curve(name, clip, exact) for name in backends[1:] for clip in ("a.mkv", "b.mkv")]
    parity = {
        name: _rollout_parity([c for c in curves if c.backend == name]) for name in backends[1:]
    }
    rows = []
    for stage in (stage for stage in stages_of(GRAPHS) if stage in TIMES):
        for batch in batches if find_stage(stage).batched else (1,):
            # they vary together, round by round
            rounds = TIMES[stage][0] * batch * np.exp(rng.normal(0, 0.05, ROUNDS))
            for position, name in enumerate(backends):
                ratio = 1.0 if position == 0 else TIMES[stage][1] * (1 + 0.3 * (position - 1))
                if slower and position == len(backends) - 1:
                    ratio /= slower.get(stage, 1.0)
                spread = half_width * np.sqrt(ROUNDS) / 1.96 / 1.25  # 1.25: median, not mean
                ratios = ratio * np.exp(rng.normal(0, spread if position else 0, ROUNDS))
                given = parity.get(name) if find_stage(stage).session else None
                if find_stage(stage).graph and position:
                    given = Parity(max_abs=2e-5 * position, mean_abs=1e-6, cosine=1.0)
                row = _timed(rng, row_of(name, stage, batch=batch), rounds, ratios)
                row = dataclasses.replace(row, parity=None if batch > 1 else given)
                rows.append(row)
    return report_of(
        rows,
        baseline=backends[0],
        warnings=["ort-cpu: threads are more than free cores"],
        curves=curves,
        substitutions={name: {"encoder": 92.1, "prefill": 88.0, "step": 81.2, "decoder": 79.9}
               for name in backends[1:]},
        fixed_rate=[
            FixedRate(
                backend=name,
                fps=30.0,
                frames=90,
                misses=3 * i,
                jitter_ms=0.4 + i,
                latency_ms=_floats(20 + rng.gamma(2.0, 1.0 + i, 90)),
            )
            for i, name in enumerate(backends)
        ],
        worst_frames={name: png() for name in backends[1:]},
    )  # fmt: skip


def runs(first: int, count: int, **options: Any) -> dict[str, Report]:
    """Runs of one command, by a name each."""
    return {f"run-{seed}": made_report(seed, **options) for seed in range(first, first + count)}


def write_runs(folder: Path, reports: dict[str, Report]) -> str:
    """A new folder with a file for each; its path."""
    folder.mkdir()
    for name, report in reports.items():
        write_document(report, folder / f"{name}.json")
    return str(folder)


def png(width: int = 384, height: int = 128) -> str:
    """A picture as `Report.worst_frames` has them."""
    ramp = np.linspace(0, 255, width, dtype=np.uint8)
    pixels = np.stack(np.broadcast_arrays(ramp[None], ramp[None, ::-1], np.uint8(90)), axis=-1)
    file = io.BytesIO()
    Image.fromarray(np.repeat(pixels, height, axis=0)).save(file, format="PNG")
    return base64.b64encode(file.getvalue()).decode()


def _timed(rng: np.random.Generator, row: Row, rounds: np.ndarray, ratios: np.ndarray) -> Row:
    """A row with what follows from the baseline's rounds and its ratios, (rounds,) each."""
    single = find_stage(row.stage).once
    times = rounds / ratios
    speedup, low, high = float(np.median(ratios)), None, None
    if not single and np.ptp(ratios) > 0:
        drawn = np.median(rng.choice(ratios, (500, len(ratios))), axis=1)
        low, high = (float(x) for x in np.percentile(drawn, [2.5, 97.5]))
    samples = np.repeat(times, 4) * np.exp(np.abs(rng.normal(0, 0.02, 4 * len(times))))
    samples = times[:1] if single else samples
    p50, p90, p99 = (float(x) for x in np.percentile(samples, [50, 90, 99]))
    engines = {"weights": 52.0, "scratch": 11.0} if row.backend.startswith("ort") else {}
    resident = 520.0 + 30 * row.batch + 60 * len(row.backend)
    row = dataclasses.replace(
        row, p50_ms=p50, p90_ms=p90, p99_ms=p99, speedup=speedup,
        memory_mb=resident, memory=Memory(resident=resident, engines=engines),
        threads=2, warmup=3, samples_ms=_floats(samples),
    )  # fmt: skip
    if single:
        return row
    return dataclasses.replace(
        row, frames_per_s=row.batch * 1e3 / p50, speedup_low=low, speedup_high=high,
        floor_ms=0.8 * p50, of_floor=0.8, bound="compute", round_ms=_floats(times),
    )  # fmt: skip


def _curve(name: str, clip: str, rng: np.random.Generator) -> Curve:
    return Curve(
        backend=name,
        clip=clip,
        free_db=_floats(84 - 0.05 * np.arange(128) + rng.normal(0, 0.7, 128)),
        forced_db=_floats(86 + rng.normal(0, 0.7, 60)),
        code_agreement=0.9999,
        imagined_agreement=0.998,
        first_difference=17,
    )


def _floats(values: np.ndarray) -> list[float]:
    return [float(value) for value in values]


def _rollout_parity(curves: list[Curve]) -> Parity:
    worst = {str(h): min(min(c.free_db[:h]) for c in curves) for h in HORIZONS}
    mean = {h: value + 2 for h, value in worst.items()}
    return Parity(max_abs=1.0, mean_abs=5e-4, cosine=1.0, psnr_db=mean,
                  worst_frame_psnr_db=worst, code_agreement=0.9999)  # fmt: skip
