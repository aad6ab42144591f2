"""The NVIDIA GPU of this machine, if there is one, through its driver's library (NVML).

Read without torch, so that it also tells what torch cannot use; torch is asked what NVML does not
tell. The first GPU is the one that CUDA calls 0: `wmdeploy` lets CUDA count them as NVML does.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Gpu:
    """The first GPU. `architecture` is such as "sm_89"; memory in 10^6 bytes, power in watts.

    `driver` and `power_limit_w` are None where only torch tells of the GPU.
    """

    name: str
    architecture: str
    driver: str | None
    memory_mb: float
    power_limit_w: float | None


@dataclass(frozen=True)
class GpuState:
    """What moves while a benchmark runs: clocks in MHz, and why they are held down, if they are."""

    sm_clock_mhz: int
    memory_clock_mhz: int
    temperature_c: int
    power_w: float | None
    throttle_reasons: tuple[str, ...]


def gpu() -> Gpu | None:
    """The first GPU; None without one or without its driver."""
    return _ask(_describe, _described_by_torch)


def gpu_state() -> GpuState | None:
    """Of the first GPU; None as above, or where NVML cannot tell."""
    return _ask(_state)


def process_memory_mb() -> float | None:
    """What this process holds on the first GPU, CUDA's own context included, in 10^6 bytes.

    None as above, or where the driver does not see this process, as in some containers.
    """
    return _ask(_process_memory)


def _ask(
    question: Callable[[Any, Any], Answer], otherwise: Callable[[], Answer | None] = lambda: None
) -> Answer | None:
    """NVML's answer, or the other one where it is not installed or has none; None: no driver."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip()
    if visible in ("", "-1"):  # hidden, as CUDA understands it
        return None
    try:
        import pynvml  # the module of nvidia-ml-py
    except ImportError:
        return otherwise()
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    try:
        return question(pynvml, _handle(pynvml, visible))
    except pynvml.NVMLError:
        return otherwise()
    finally:
        pynvml.nvmlShutdown()


def _handle(nvml: Any, visible: str) -> Any:
    """NVML's handle of a device by CUDA's name for it: a number, or a UUID or how one begins."""
    if visible.isdigit() and os.environ.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID":
        return nvml.nvmlDeviceGetHandleByIndex(int(visible))
    if visible.isdigit():  # another order, which CUDA alone knows
        import torch

        visible = f"GPU-{torch.cuda.get_device_properties(0).uuid}"
    for index in range(nvml.nvmlDeviceGetCount()):
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        if str(nvml.nvmlDeviceGetUUID(handle)).startswith(visible):
            return handle
    return nvml.nvmlDeviceGetHandleByUUID(visible)  # a part of a device: MIG


def _described_by_torch() -> Gpu | None:
    import torch

    if not torch.cuda.is_available():
        return None
    device = torch.cuda.get_device_properties(0)
    architecture = f"sm_{device.major}{device.minor}"
    return Gpu(device.name, architecture, None, device.total_memory / 1e6, None)


def _describe(nvml: Any, device: Any) -> Gpu:
    major, minor = nvml.nvmlDeviceGetCudaComputeCapability(device)
    limit = _or_none(nvml, lambda: nvml.nvmlDeviceGetEnforcedPowerLimit(device) / 1e3)
    return Gpu(
        name=str(nvml.nvmlDeviceGetName(device)),
        architecture=f"sm_{major}{minor}",
        driver=str(nvml.nvmlSystemGetDriverVersion()),
        memory_mb=nvml.nvmlDeviceGetMemoryInfo(device).total / 1e6,
        power_limit_w=limit,
    )


def _state(nvml: Any, device: Any) -> GpuState:
    reasons = nvml.nvmlDeviceGetCurrentClocksThrottleReasons(device)
    return GpuState(
        sm_clock_mhz=nvml.nvmlDeviceGetClockInfo(device, nvml.NVML_CLOCK_SM),
        memory_clock_mhz=nvml.nvmlDeviceGetClockInfo(device, nvml.NVML_CLOCK_MEM),
        temperature_c=nvml.nvmlDeviceGetTemperature(device, nvml.NVML_TEMPERATURE_GPU),
        power_w=_or_none(nvml, lambda: nvml.nvmlDeviceGetPowerUsage(device) / 1e3),
        throttle_reasons=_reason_names(nvml, reasons),
    )


def _reason_names(nvml: Any, reasons: int) -> tuple[str, ...]:
    """The driver's bits in words: "SwPowerCap", "HwThermalSlowdown"; an idle clock is no reason."""
    prefix = "nvmlClocksThrottleReason"
    names = [name for name in dir(nvml) if name.startswith(prefix)]
    words = {getattr(nvml, name): name.removeprefix(prefix) for name in names}  # one for each bit
    ignored = ("All", "None", "GpuIdle")
    return tuple(name for bit, name in words.items() if bit & reasons and name not in ignored)


def _process_memory(nvml: Any, device: Any) -> float | None:
    for process in nvml.nvmlDeviceGetComputeRunningProcesses(device):
        if process.pid == os.getpid() and process.usedGpuMemory is not None:
            return float(process.usedGpuMemory) / 1e6
    return None


def _or_none(nvml: Any, read: Callable[[], float]) -> float | None:
    try:
        return read()
    except nvml.NVMLError:  # not every driver tells, in containers above all
        return None
