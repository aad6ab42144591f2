"""Where a backend runs: refused where there is no such device, never changed."""

import torch

from wmdeploy.engines.base import Settings
from wmdeploy.errors import MissingError

CPU = torch.device("cpu")


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


def cpu_threads(settings: Settings) -> None:
    """Let torch compute with as many threads as were asked for, in this process."""
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)


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
