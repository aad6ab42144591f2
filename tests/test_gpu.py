"""How the library that tells of an NVIDIA GPU is read."""

import os
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from wmdeploy import gpu


@pytest.mark.gpu
def test_driver_knows_the_gpu_that_torch_knows() -> None:
    device = gpu.gpu()
    assert device is not None and device.name == torch.cuda.get_device_name()
    assert device.architecture == "sm_{}{}".format(*torch.cuda.get_device_capability())
    state = gpu.gpu_state()
    assert state is not None and state.sm_clock_mhz > 0


class Driver(SimpleNamespace):
    """NVML as its library looks, with one device."""

    class NVMLError(Exception):
        pass

    def __init__(self, **answers: Any) -> None:
        super().__init__(
            nvmlInit=lambda: None,
            nvmlShutdown=lambda: None,
            nvmlDeviceGetCount=lambda: 2,
            nvmlDeviceGetUUID=lambda index: ("GPU-77f1-20", "GPU-8a00-4b")[index],
            nvmlDeviceGetHandleByIndex=lambda index: index,
            nvmlDeviceGetHandleByUUID=lambda uuid: uuid,
            nvmlDeviceGetCudaComputeCapability=lambda device: (9, 0),
            nvmlDeviceGetName=lambda device: "NVIDIA H200",
            nvmlSystemGetDriverVersion=lambda: "580.1",
            nvmlDeviceGetMemoryInfo=lambda device: SimpleNamespace(total=150e9),
            nvmlDeviceGetEnforcedPowerLimit=self.refuse,
            nvmlClocksThrottleReasonAll=0xFF,
            nvmlClocksThrottleReasonGpuIdle=1,
            nvmlClocksThrottleReasonSwPowerCap=4,
        )
        self.__dict__.update(answers)

    def refuse(self, *arguments: object) -> None:
        raise self.NVMLError("not supported")


def test_gpu_is_described_as_far_as_the_driver_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setitem(sys.modules, "pynvml", Driver())
    assert gpu.gpu() == gpu.Gpu("NVIDIA H200", "sm_90", "580.1", 150e3, None)


def test_no_driver_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    driver = Driver()
    monkeypatch.setitem(sys.modules, "pynvml", driver)
    driver.nvmlInit = driver.refuse
    assert gpu.gpu() is None and gpu.gpu_state() is None and gpu.process_memory_mb() is None
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert gpu.gpu() is None


@pytest.mark.parametrize(
    ("visible", "order", "index"),
    [
        ("0", "PCI_BUS_ID", 0),
        ("1", "PCI_BUS_ID", 1),
        ("0", "FASTEST_FIRST", 1),  # CUDA calls the second one 0
        ("GPU-8a0", "PCI_BUS_ID", 1),  # CUDA takes the beginning of a UUID
        ("MIG-5", "PCI_BUS_ID", "MIG-5"),
    ],
)
def test_first_visible_device_is_the_one_asked(
    visible: str, order: str, index: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_DEVICE_ORDER", order)
    fastest = SimpleNamespace(uuid="8a00-4b")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda number: fastest)
    assert gpu._handle(Driver(), visible) == index


def test_hidden_gpu_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", Driver())
    for hidden in ("", "-1"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
        assert gpu.gpu() is None


@pytest.mark.parametrize("nvml", ["not installed", "does not tell"])
def test_torch_tells_what_nvml_does_not(nvml: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    driver = None
    if nvml == "does not tell":
        driver = Driver()
        driver.nvmlDeviceGetName = driver.refuse
    monkeypatch.setitem(sys.modules, "pynvml", driver)
    assert gpu.gpu() is None
    found = SimpleNamespace(name="NVIDIA A2", major=8, minor=6, total_memory=16e9)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda number: found)
    assert gpu.gpu() == gpu.Gpu("NVIDIA A2", "sm_86", None, 16e3, None)


def test_cuda_counts_gpus_as_their_driver_does() -> None:
    code = "import wmdeploy.engines.base, os; print(os.environ['CUDA_DEVICE_ORDER'])"
    environment = {k: v for k, v in os.environ.items() if k != "CUDA_DEVICE_ORDER"}
    told = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert told.stdout.strip() == "PCI_BUS_ID"


def test_throttle_reasons_are_words_and_idling_is_none() -> None:
    assert gpu._reason_names(Driver(), 1 | 4) == ("SwPowerCap",)
    assert gpu._reason_names(Driver(), 1) == ()


def test_process_memory_is_of_this_process_alone() -> None:
    mine = SimpleNamespace(pid=os.getpid(), usedGpuMemory=2_000_000)
    other = SimpleNamespace(pid=1, usedGpuMemory=9_000_000)
    for processes, expected in (([other, mine], 2.0), ([other], None)):
        driver = Driver(nvmlDeviceGetComputeRunningProcesses=lambda device, p=processes: p)
        assert gpu._process_memory(driver, None) == expected
