"""How the library that tells of an NVIDIA GPU is read."""

import os
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
            nvmlDeviceGetHandleByIndex=lambda index: ("index", index),
            nvmlDeviceGetHandleByUUID=lambda uuid: ("uuid", uuid),
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
    monkeypatch.setitem(sys.modules, "pynvml", Driver())
    assert gpu.gpu() == gpu.Gpu("NVIDIA H200", "sm_90", "580.1", 150e3, None)


def test_no_driver_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = Driver()
    monkeypatch.setitem(sys.modules, "pynvml", driver)
    driver.nvmlInit = driver.refuse
    assert gpu.gpu() is None and gpu.gpu_state() is None and gpu.process_memory_mb() is None
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert gpu.gpu() is None


@pytest.mark.parametrize(
    ("visible", "handle"),
    [("0", ("index", 0)), ("3,1", ("index", 3)), ("GPU-8a", ("uuid", "GPU-8a"))],
)
def test_first_visible_device_is_the_one_asked(
    visible: str, handle: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert gpu._first_visible(Driver()) == handle


def test_throttle_reasons_are_words_and_idling_is_none() -> None:
    assert gpu._reason_names(Driver(), 1 | 4) == ("SwPowerCap",)
    assert gpu._reason_names(Driver(), 1) == ()


def test_process_memory_is_of_this_process_alone() -> None:
    mine = SimpleNamespace(pid=os.getpid(), usedGpuMemory=2_000_000)
    other = SimpleNamespace(pid=1, usedGpuMemory=9_000_000)
    for processes, expected in (([other, mine], 2.0), ([other], None)):
        driver = Driver(nvmlDeviceGetComputeRunningProcesses=lambda device, p=processes: p)
        assert gpu._process_memory(driver, None) == expected
