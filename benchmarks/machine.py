"""What this machine is, and how fast it can be: the ceilings that the floor column uses."""

import dataclasses
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

from wmdeploy.gpu import gpu


@dataclass(frozen=True)
class Ceilings:
    """The best of several runs: bytes moved per second, multiply-adds counted as two per second.

    `gemm_gflop_s` is of float32 products, `half_gemm_gflop_s` of float16 (GPU only).
    """

    bandwidth_gb_s: float
    gemm_gflop_s: float
    threads: int
    half_gemm_gflop_s: float | None = None

    def rate(self, precision: str) -> float:
        """Operations per second of a precision, in 10^9; a CPU computes float16 in float32."""
        half = self.half_gemm_gflop_s
        return half if precision == "fp16" and half is not None else self.gemm_gflop_s


def measure_ceilings(device: str, tf32: bool = False) -> Ceilings:
    """Bandwidth of a copy (bytes read plus bytes written) and rate of a square product.

    Args:
        device: "cpu" or "cuda".
        tf32: whether float32 products on a GPU may use TF32, as the backends then may.
    """
    import torch

    torch.backends.cuda.matmul.allow_tf32 = tf32
    gpu = device == "cuda"
    source = torch.ones((256 if gpu else 64) * 2**20, device=device)  # far above any cache
    target = torch.empty_like(source)
    synchronize = torch.cuda.synchronize if gpu else lambda: None

    def product_rate(dtype: torch.dtype) -> float:
        side = 8192 if gpu else 3072
        square = torch.ones(side, side, dtype=dtype, device=device)
        seconds = _best_seconds(lambda: square @ square, synchronize)
        return 2 * len(square) ** 3 / seconds / 1e9

    with torch.inference_mode():
        copy = _best_seconds(lambda: target.copy_(source), synchronize)
        return Ceilings(
            bandwidth_gb_s=2 * source.nbytes / copy / 1e9,
            gemm_gflop_s=product_rate(torch.float32),
            threads=torch.get_num_threads(),
            half_gemm_gflop_s=product_rate(torch.float16) if gpu else None,
        )


def _best_seconds(
    run: Callable[[], object], synchronize: Callable[[], None], seconds: float = 1.5
) -> float:
    run()  # libraries load at the first
    best, deadline = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < deadline:
        synchronize()
        start = time.perf_counter()
        run()
        synchronize()
        best = min(best, time.perf_counter() - start)
    return best


def environment() -> dict[str, Any]:
    """Hardware, system and package versions, for the report."""
    packages = (
        "wmdeploy", "torch", "onnx", "onnxruntime", "onnxruntime-gpu", "tensorrt", "tensorrt-rtx",
    )  # fmt: skip
    device = gpu()
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": _cpu_name(),
        "gpu": None if device is None else dataclasses.asdict(device),
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
