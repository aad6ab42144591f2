"""Reports of schema 3 made of random numbers, for what is made from reports. No test is in here."""

import base64
import io
from typing import Any

import numpy as np
from PIL import Image

from wmdeploy.benchmarks.report import SCHEMA, Curve, Memory, Pacing, Parity, Report, Row
from wmdeploy.benchmarks.stages import STAGES

TIMES = {  # ms of the baseline; of "fast", the ratio
    "load": (900.0, 1.2), "first_call": (250.0, 1.1), "encode": (16.0, 1.1), "prefill": (8.0, 6.0),
    "step": (11.0, 29.0), "decode": (30.0, 1.4), "frame": (45.0, 1.9), "imagine": (13.0, 20.0),
    "slide": (13.0, 7.0),
}  # fmt: skip
HORIZONS = (1, 8, 32, 64)
ROUNDS = 20


def made_report(
    seed: int = 0,
    backends: tuple[str, ...] = ("eager", "ort-cpu", "compile"),
    half_width: float = 0.015,
    batches: tuple[int, ...] = (1, 4),
    slower: dict[str, float] | None = None,
) -> Report:
    """A run of a machine whose ratios have 95% intervals of about `half_width` on each side.

    Args:
        slower: by stage, how much longer the last backend takes, 1.1 for 10%.
    """
    rng = np.random.default_rng(seed)
    exact = np.random.default_rng(7)  # parity is the same in every run
    curves = [_curve(name, clip, exact) for name in backends[1:] for clip in ("a.mkv", "b.mkv")]
    parity = {
        name: _rollout_parity([c for c in curves if c.backend == name]) for name in backends[1:]
    }
    rows = []
    for stage in (stage for stage in STAGES if stage in TIMES):
        for batch in batches if stage in ("frame", "imagine") else (1,):
            rounds = TIMES[stage][0] * batch * np.exp(rng.normal(0, 0.05, ROUNDS))  # drifts
            for position, name in enumerate(backends):
                ratio = 1.0 if position == 0 else TIMES[stage][1] * (1 + 0.3 * (position - 1))
                if slower and position == len(backends) - 1:
                    ratio /= slower.get(stage, 1.0)
                spread = half_width * np.sqrt(ROUNDS) / 1.96 / 1.25  # 1.25: median, not mean
                ratios = ratio * np.exp(rng.normal(0, spread if position else 0, ROUNDS))
                given = parity.get(name) if stage in ("frame", "imagine", "slide") else None
                if stage in ("encode", "prefill", "step", "decode") and position:
                    given = Parity(2e-5 * position, 1e-6, 1.0)
                rows.append(
                    _row(rng, name, stage, batch, rounds, ratios, None if batch > 1 else given)
                )
    return Report(
        schema=SCHEMA,
        environment=_environment(),
        bundle=_bundle(),
        rows=rows,
        warnings=["ort-cpu: threads are more than free cores"],
        curves=curves,
        swaps={name: {"encoder": 92.1, "prefill": 88.0, "step": 81.2, "decoder": 79.9}
               for name in backends[1:]},
        pacing=[
            Pacing(name, 30.0, 90, 3 * i, 0.4 + i, _floats(20 + rng.gamma(2.0, 1.0 + i, 90)))
            for i, name in enumerate(backends)
        ],
        strips={name: png() for name in backends[1:]},
    )  # fmt: skip


def png(width: int = 384, height: int = 128) -> str:
    """A picture as `Report.strips` has them."""
    ramp = np.linspace(0, 255, width, dtype=np.uint8)
    pixels = np.stack(np.broadcast_arrays(ramp[None], ramp[None, ::-1], np.uint8(90)), axis=-1)
    file = io.BytesIO()
    Image.fromarray(np.repeat(pixels, height, axis=0)).save(file, format="PNG")
    return base64.b64encode(file.getvalue()).decode()


def _row(
    rng: np.random.Generator,
    name: str,
    stage: str,
    batch: int,
    rounds: np.ndarray,
    ratios: np.ndarray,
    parity: Parity | None,
) -> Row:
    single = stage in ("load", "first_call")
    times = rounds / ratios
    speedup, low, high = float(np.median(ratios)), None, None
    if not single and name != "eager":
        drawn = np.median(rng.choice(ratios, (500, len(ratios))), axis=1)
        low, high = (float(x) for x in np.percentile(drawn, [2.5, 97.5]))
    samples = np.repeat(times, 4) * np.exp(np.abs(rng.normal(0, 0.02, 4 * len(times))))
    samples = times[:1] if single else samples
    p50, p90, p99 = (float(x) for x in np.percentile(samples, [50, 90, 99]))
    engines = {} if name in ("eager", "compile") else {"weights": 52.0, "scratch": 11.0}
    resident = 520.0 + 30 * batch + 60 * len(name)
    return Row(
        name, "fp32", "cpu", stage, batch, p50, p90, p99,
        None if single else batch * 1e3 / p50, speedup, low, high,
        None if single else 0.8 * p50, None if single else 0.8, None if single else "compute",
        memory_mb=resident, memory=Memory(resident, engines=engines), parity=parity,
        verdict="pass", threads=2, warmup=3, samples_ms=_floats(samples),
        round_ms=[] if single else _floats(times),
    )  # fmt: skip


def _curve(name: str, clip: str, rng: np.random.Generator) -> Curve:
    free = 84 - 0.05 * np.arange(128) + rng.normal(0, 0.7, 128)
    forced = 86 + rng.normal(0, 0.7, 60)
    return Curve(name, clip, _floats(free), _floats(forced), 0.9999, 0.998, 17)


def _floats(values: np.ndarray) -> list[float]:
    return [float(value) for value in values]


def _rollout_parity(curves: list[Curve]) -> Parity:
    worst = {str(h): min(min(c.free_db[:h]) for c in curves) for h in HORIZONS}
    mean = {h: value + 2 for h, value in worst.items()}
    return Parity(1.0, 5e-4, 1.0, mean, worst, 0.9999)


def _environment() -> dict[str, Any]:
    return {
        "date": "2026-11-23T04:41:43+00:00",
        "cpu": "AMD EPYC",
        "gpu": None,
        "cores": 2,
        "packages": {"wmdeploy": "0.1.0", "torch": "2.13.0"},
        "ceilings": {"cpu": {"bandwidth_gb_s": 42.3, "gflop_s": 174.1, "threads": 2}},
        "settings": {"device": "auto", "tf32": False, "threads": None},
        "load_average": 0.8,
    }


def _bundle() -> dict[str, Any]:
    weights = {"encoder": 22_524_800, "prefill": 12_883_968, "step": 12_883_968,
               "decoder": 23_319_424}  # fmt: skip
    flops = {"encoder": 3_849_322_496, "prefill": 201_457_664, "step": 6_422_528,
             "decoder": 5_225_054_208}  # fmt: skip
    other = {"encoder": 5_747_584, "prefill": 46_438_400, "step": 46_438_400, "decoder": 6_541_312}
    return {
        "name": "small",
        "recipe": {"source": "preset small, seed 0", "layout": "token", "precision": "fp32"},
        "model": {"vqvae": {"image_size": 128}, "temporal": {"layers": 4, "context": 32}},
        "graph_flops": flops,
        "graph_weight_bytes": weights,
        "graph_bytes": {name: size + 1_200_000 for name, size in weights.items()},
        "other_layout": {"layout": "latent", "graph_weight_bytes": other},
        "bundle_bytes": 130_963_837,
        "clips": ["a.mkv", "b.mkv"],
        "context": 8,
        "horizon": 128,
        "refill": None,
    }
