"""What this machine is, and how fast it can be: the ceilings that the floor column uses."""

import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil


@dataclass(frozen=True)
class Ceilings:
    """The best of several runs: bytes moved per second, multiply-adds counted as two per second."""

    bandwidth_gb_s: float
    gemm_gflop_s: float
    threads: int


def measure_ceilings() -> Ceilings:
    """Bandwidth of a float32 copy (bytes read plus bytes written) and rate of a float32 product."""
    import torch

    source = torch.ones(64 * 2**20)  # 256 MiB, far above any cache
    target = torch.empty_like(source)
    square = torch.ones(3072, 3072)
    with torch.inference_mode():
        copy = _best_seconds(lambda: target.copy_(source))
        product = _best_seconds(lambda: square @ square)
    return Ceilings(
        bandwidth_gb_s=2 * source.nbytes / copy / 1e9,
        gemm_gflop_s=2 * len(square) ** 3 / product / 1e9,
        threads=torch.get_num_threads(),
    )


def _best_seconds(run: Callable[[], object], seconds: float = 1.5) -> float:
    best, deadline = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < deadline:
        start = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - start)
    return best


def environment() -> dict[str, Any]:
    """Hardware, system and package versions, for the report."""
    packages = ("wmdeploy", "torch", "onnx", "onnxruntime", "onnxruntime-gpu", "tensorrt-rtx")
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": _cpu_name(),
        "cores": psutil.cpu_count(logical=False) or os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "packages": {name: version for name in packages if (version := _version(name))},
        "load_average": os.getloadavg()[0],
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((x.split(":", 1)[1].strip() for x in lines if x.startswith("model name")), "")
