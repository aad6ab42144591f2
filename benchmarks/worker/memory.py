"""How much memory a backend's process holds, by whom it is counted."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from wmdeploy.errors import BackendError
from wmdeploy.gpu import process_memory_mb


@dataclass(frozen=True)
class Memory:
    """All in 10^6 bytes; None where it does not apply or the driver does not tell.

    Attributes:
        resident: the process's peak resident memory on the host.
        gpu_process: the process on the GPU as the driver (NVML) counts it, CUDA's context included.
        gpu_used: everything in use on the GPU, other processes included.
        gpu_grown: what came into use on the GPU while this process was the one at work: backends
            wait while another one works, so what is new is its own.
        torch_peak: the most that torch's allocator held; TensorRT's weights are not in it.
        engines: what the engines say of themselves, by label.
    """

    resident: float
    gpu_process: float | None = None
    gpu_used: float | None = None
    torch_peak: float | None = None
    engines: dict[str, float] = field(default_factory=dict)
    gpu_grown: float | None = None

    @property
    def headline(self) -> tuple[float, str]:
        """The figure for a table, and what it is."""
        if self.gpu_process is not None:
            return self.gpu_process, "GPU, process"
        if self.gpu_grown is not None:
            return self.gpu_grown, "GPU, growth"
        if self.gpu_used is not None:
            return self.gpu_used, "GPU, all"
        return self.resident, "resident"


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
            return Memory(resident, engines=engines)
        import torch

        free, total = torch.cuda.mem_get_info()
        return Memory(
            resident,
            gpu_process=process_memory_mb(),
            gpu_used=(total - free) / 1e6,
            torch_peak=torch.cuda.max_memory_reserved() / 1e6,
            engines=engines,
            gpu_grown=self._grown,
        )


def peak_resident_mb() -> float:
    """Peak resident memory of this process in 10^6 bytes; getrusage's would be the parent's too."""
    status = Path("/proc/self/status").read_text()
    found = re.search(r"^VmHWM:\s+(\d+) kB", status, flags=re.MULTILINE)
    if found is None:
        raise BackendError("bench: /proc/self/status has no VmHWM; Linux is needed")
    return int(found[1]) * 1024 / 1e6


def _gpu_used_mb() -> float | None:
    """In use on the GPU by all processes, read without a CUDA context; None without NVML."""
    import torch

    try:
        return torch.cuda.device_memory_used(0) / 1e6
    except Exception:  # NVML's own type among others; some drivers tell nothing in a container
        return None
