"""How much memory a backend's process holds, by whom it is counted."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wmdeploy.benchmarks.report import Memory
from wmdeploy.errors import BackendError
from wmdeploy.gpu import process_memory_mb


class MemoryMeter:
    """Memory of this process, which takes turns with others on the same GPU."""

    def __init__(self) -> None:
        self._grown: float | None = None

    @contextmanager
    def working(self, on_gpu: bool) -> Iterator[None]:
        """What comes into use on the GPU inside the block is this process's own."""
        before = _gpu_used_mb() if on_gpu else None
        try:
            yield
        finally:
            after = _gpu_used_mb() if on_gpu else None
            if before is not None and after is not None:
                self._grown = (self._grown or 0.0) + after - before

    def measure(self, on_gpu: bool, engines: dict[str, float]) -> Memory:
        """What this process holds now."""
        resident = peak_resident_mb()
        if not on_gpu:
            return Memory(resident=resident, engines=engines)
        import torch

        free, total = torch.cuda.mem_get_info()
        return Memory(
            resident=resident,
            gpu_process=process_memory_mb(),
            gpu_used=(total - free) / 1e6,
            torch_peak=torch.cuda.max_memory_reserved() / 1e6,
            engines=engines,
            gpu_grown=self._grown,
        )


def peak_resident_mb() -> float:
    """Peak resident memory of this process in 10^6 bytes; getrusage's would be the parent's too."""
    status = Path("/proc/self/status").read_text()
    peak = re.search(r"^VmHWM:\s+(\d+) kB", status, flags=re.MULTILINE)
    if peak is None:
        raise BackendError("bench: /proc/self/status has no VmHWM; Linux is needed")
    return int(peak[1]) * 1024 / 1e6


def _gpu_used_mb() -> float | None:
    """In use on the GPU by all processes, read without a CUDA context; None without NVML."""
    import torch

    try:
        return torch.cuda.device_memory_used(0) / 1e6
    except Exception:  # NVML's own type among others; some drivers tell nothing in a container
        return None
