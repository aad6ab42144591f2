"""What this machine is, and how fast it can be: the ceilings that the floor column uses."""

import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec
import psutil

from wmdeploy.benchmarks.environment import Ceilings, Machine
from wmdeploy.gpu import gpu
from wmdeploy.progress import Progress

MODULE = "wmdeploy.benchmarks.bench.machine"


def measure_ceilings(device: str, tf32: bool = False) -> Ceilings:
    """Bandwidth of a copy (bytes read plus bytes written), and the rate of multiply-adds.

    The rate is that of a matrix product or of a convolution, whichever is higher: they are done by
    different libraries, one of which may leave half of a processor unused (MKL on AMD's).

    Args:
        device: "cpu" or "cuda".
        tf32: whether float32 on a GPU may use TF32, as the backends then may.
    """
    import torch
    from torch.nn.functional import conv2d

    from wmdeploy.families.precision import allow_tf32

    allow_tf32(tf32)
    gpu = device == "cuda"
    source = torch.ones((256 if gpu else 64) * 2**20, device=device)  # far above any cache
    target = torch.empty_like(source)
    synchronize = torch.cuda.synchronize if gpu else lambda: None

    def rate(dtype: torch.dtype) -> float:
        side, images = (8192, 32) if gpu else (2048, 1)
        square = torch.ones(side, side, dtype=dtype, device=device)
        product = _best_seconds(lambda: square @ square, synchronize)
        channels, height = 128, 128
        like: dict[str, Any] = {"dtype": dtype, "device": device}
        weight = torch.ones(channels, channels, 3, 3, **like)
        pixels = torch.ones(images, channels, height, height, **like)
        weight, pixels = (t.to(memory_format=torch.channels_last) for t in (weight, pixels))
        convolved = _best_seconds(lambda: conv2d(pixels, weight, padding=1), synchronize)
        operations = 2 * 9 * channels**2 * pixels[:, 0].numel()
        return max(2 * side**3 / product, operations / convolved) / 1e9

    with torch.inference_mode():
        copy = _best_seconds(lambda: target.copy_(source), synchronize)
        return Ceilings(
            bandwidth_gb_s=2 * source.nbytes / copy / 1e9,
            gflop_s=rate(torch.float32),
            threads=torch.get_num_threads(),
            half_gflop_s=rate(torch.float16) if gpu else None,
        )


def _best_seconds(
    run: Callable[[], object], synchronize: Callable[[], None], seconds: float = 0.6
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


# TensorRT, cuDNN and cuBLAS have a distribution for each version of CUDA.
PACKAGES = (
    "wmdeploy", "torch", "triton", "onnx", "onnxruntime", "onnxruntime-gpu",
    "tensorrt", "tensorrt-cu12", "tensorrt-cu13", "tensorrt-rtx",
    "nvidia-cudnn-cu12", "nvidia-cudnn-cu13", "nvidia-cublas-cu12", "nvidia-cublas",
)  # fmt: skip


def this_machine() -> Machine:
    """What the report says of this machine; ask before anything runs, for the load average."""
    return Machine(
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        cpu=_cpu_name(),
        gpu=gpu(),
        cores=psutil.cpu_count(logical=False) or os.cpu_count() or 1,
        memory_gb=round(psutil.virtual_memory().total / 1e9, 1),
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        packages={name: version for name in PACKAGES if (version := _version(name))},
        load_average=os.getloadavg()[0],
    )


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


def ceilings_of(devices: Iterable[str], tf32: bool, progress: Progress) -> dict[str, Ceilings]:
    """The ceilings of each device, measured in a process of its own, which alone needs torch."""
    ceilings = {}
    names = sorted(set(devices))
    for number, device in enumerate(names):
        progress("ceilings", number, len(names), f"{device}: bandwidth and rate of operations")
        command = [sys.executable, "-P", "-m", MODULE, device, *(["--tf32"] if tf32 else [])]
        process = subprocess.run(command, check=True, stdout=subprocess.PIPE)
        ceilings[device] = msgspec.json.decode(process.stdout, type=Ceilings)
    return ceilings


def main() -> None:
    """Write a device's ceilings, as JSON."""
    measured = measure_ceilings(sys.argv[1], tf32="--tf32" in sys.argv[2:])
    sys.stdout.buffer.write(msgspec.json.encode(measured))


if __name__ == "__main__":
    main()
