"""Where a backend runs: refused where there is no such device, never changed."""

import torch

from wmdeploy.engines.base import BACKENDS, Settings
from wmdeploy.errors import MissingError
from wmdeploy.programs.modules import CPU


def cuda_device(backend: str) -> torch.device:
    """The first GPU.

    Raises:
        MissingError: torch has no CUDA, or finds no GPU.
    """
    if torch.version.cuda is None:
        raise MissingError(f"backend {backend}: this torch is a CPU build; it needs one with CUDA")
    if not torch.cuda.is_available():
        raise MissingError(f"backend {backend}: torch finds no NVIDIA GPU or driver here")
    return torch.device("cuda")


def runs_on_cpu(backend: str, settings: Settings) -> bool:
    """Whether a backend of `BACKENDS` would compute on the CPU.

    Raises:
        MissingError: its entry leaves the device open, a GPU was asked for, and there is none.
    """
    device = BACKENDS[backend].device
    return device == "cpu" or (device == "any" and pytorch_device(backend, settings) == CPU)


def torch_threads(device: torch.device, settings: Settings) -> int | None:
    """Let torch compute with as many threads as were asked for, in this process.

    Returns:
        How many it computes with on the CPU; None on a GPU.
    """
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    return torch.get_num_threads() if device.type == "cpu" else None


def pytorch_device(backend: str, settings: Settings) -> torch.device:
    """Where a PyTorch backend runs: as asked, or a GPU if torch finds one.

    Raises:
        MissingError: a GPU was asked for and there is none.
    """
    if settings.device == "cuda" or (settings.device == "auto" and torch.cuda.is_available()):
        return cuda_device(backend)
    return CPU


def float16_device(backend: str, settings: Settings) -> torch.device:
    """A GPU.

    Raises:
        MissingError: on a CPU, where PyTorch computes a frame of the reference model in float16 in
            three minutes, against half a second in float32 (two cores): no figure worth having.
    """
    device = pytorch_device(backend, settings)
    if device.type == "cpu":
        raise MissingError(f"backend {backend}: needs a GPU; on a CPU, float16 is only emulated")
    return device
