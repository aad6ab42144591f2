"""What runs only on an NVIDIA GPU, and how the library that tells of one is read."""

import os
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from engines.base import GPU_ONLY, Backend, Settings, load_backend
from engines.session import Session
from engines.trt.plans import BuildOptions, build_plans
from tests.conftest import MICRO, Bundles, future_pixels
from wmdeploy import gpu
from wmdeploy.errors import BackendError
from wmdeploy.models.world_model import WorldModel

S = MICRO.temporal.context
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no NVIDIA GPU here")
RUNNERS = [("eager", "fp32"), ("compile", "fp32"), ("cudagraph", "fp32"), ("ort-cuda", "fp32")]
RUNNERS += [(name, "fp16") for name in ("compile", *sorted(GPU_ONLY))]


@pytest.fixture(scope="module", params=RUNNERS, ids="-".join)
def backend(request: pytest.FixtureRequest, bundles: Bundles) -> Backend:
    """Each backend that this machine has, with its plans built where it wants some."""
    name, precision = request.param
    bundle = bundles(precision=precision)
    try:
        if name.startswith("tensorrt"):
            build_plans(BuildOptions(bundle.path, name))
            bundle = type(bundle).open(bundle.path)
        return load_backend(name, bundle, Settings("cuda"))
    except BackendError as error:
        pytest.skip(str(error))


def psnr(got: np.ndarray, expected: np.ndarray) -> float:
    mse = np.square(got.astype(float) - expected.astype(float)).mean()
    return float(10 * np.log10(255**2 / max(mse, 1e-9)))


@pytest.mark.gpu
@needs_gpu
def test_gpu_backend_imagines_what_the_baseline_imagines(
    backend: Backend, micro: WorldModel, frames: np.ndarray
) -> None:
    session = Session(backend)
    session.reset(frames[:3])
    imagined = np.concatenate([session.step() for _ in range(2 * S)])
    expected = future_pixels(micro, frames[:3], 2 * S)
    assert psnr(imagined[:1], expected[:1]) >= 45
    assert min(psnr(a, b) for a, b in zip(imagined, expected, strict=True)) >= 38


@pytest.mark.gpu
@needs_gpu
def test_captured_graphs_never_see_stale_keys(backend: Backend, frames: np.ndarray) -> None:
    """After a reset, after the window slides, when two sessions alternate, at another batch."""
    alone = Session(backend)
    alone.reset(frames[:3])
    expected = [alone.step() for _ in range(2 * S)]
    one, two, many = Session(backend), Session(backend), Session(backend, batch=2)
    for _ in range(2):
        one.reset(frames[:3])
        two.reset(frames[10:14])
        many.reset(frames[:3], rows=[0])
        many.reset(frames[20:22], rows=[1])
        for frame in expected:
            np.testing.assert_array_equal(one.step(), frame)
            two.step()
            assert psnr(many.step()[:1], frame) >= 38  # another batch, other kernels


@pytest.mark.gpu
@needs_gpu
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
