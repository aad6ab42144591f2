"""How much memory a backend's process holds, by whom it is counted."""

import re
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
        torch_peak: the most that torch's allocator held; TensorRT's weights are not in it.
        engines: what the engines say of themselves, by label.
    """

    resident: float
    gpu_process: float | None = None
    gpu_used: float | None = None
    torch_peak: float | None = None
    engines: dict[str, float] = field(default_factory=dict)

    @property
    def headline(self) -> tuple[float, str]:
        """The figure for a table, and what it is."""
        if self.gpu_process is not None:
            return self.gpu_process, "GPU, process"
        if self.gpu_used is not None:
            return self.gpu_used, "GPU, all"
        return self.resident, "resident"


def measure_memory(on_gpu: bool, engines: dict[str, float]) -> Memory:
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
    )


def peak_resident_mb() -> float:
    """Peak resident memory of this process in 10^6 bytes; getrusage's would be the parent's too."""
    status = Path("/proc/self/status").read_text()
    found = re.search(r"^VmHWM:\s+(\d+) kB", status, flags=re.MULTILINE)
    if found is None:
        raise BackendError("bench: /proc/self/status has no VmHWM; Linux is needed")
    return int(found[1]) * 1024 / 1e6
