"""Backend `eager`: the baseline, PyTorch float32 with the whole window for every frame.

Also `eager-fp16`, the same in float16.
"""

import torch
from torch import nn

from wmdeploy.bundle import Bundle
from wmdeploy.engines.base import Settings
from wmdeploy.engines.devices import float16_device, pytorch_device, torch_threads
from wmdeploy.families import family_of, load_bundled_model
from wmdeploy.manifest import Precision
from wmdeploy.programs.contract import FULL
from wmdeploy.programs.engine import Backend
from wmdeploy.programs.modules import CPU, module_backend


def load(bundle: Bundle, settings: Settings) -> Backend:
    """The baseline, from the PyTorch model that the bundle carries.

    Raises:
        BundleError: the bundle carries no model, or it was altered.
        BackendError: there is no such device.
    """
    device = baseline_device("eager", settings)
    return baseline(bundled_model(bundle), device, decoder=settings.decoder)


def load_half(bundle: Bundle, settings: Settings) -> Backend:
    """The baseline's way of working in float16, with the float32 islands of the fp16 graphs.

    Raises:
        BundleError, BackendError: as `load`; also on a CPU.
    """
    device = baseline_device("eager-fp16", settings)
    return baseline(bundled_model(bundle), device, "fp16", settings.decoder)


def baseline_device(backend: str, settings: Settings) -> torch.device:
    """Where `eager` or `eager-fp16` runs, with as many threads as were asked for.

    Raises:
        MissingError: there is no such device.
    """
    if backend == "eager-fp16":
        return float16_device(backend, settings)
    device = pytorch_device(backend, settings)
    torch_threads(device, settings)
    return device


def bundled_model(bundle: Bundle) -> nn.Module:
    """The PyTorch model that the bundle carries.

    Raises:
        BundleError: there is none, it was altered, or its sizes are not the manifest's.
        CheckpointError: the family is unknown, or the manifest's sizes are no model's.
    """
    with bundle.model_to_load() as directory:
        return load_bundled_model(bundle.manifest, directory)


def baseline(
    model: nn.Module,
    device: torch.device = CPU,
    precision: Precision = "fp32",
    decoder: str = FULL,
) -> Backend:
    """The baseline of a model that is already loaded; in fp16 it is a rival of the baseline.

    Raises:
        WmdeployError: the model has no such decoder.
    """
    deployed = family_of(model).baseline_deployment(model, precision).with_decoder(decoder)
    name = "eager" if precision == "fp32" else "eager-fp16"
    return module_backend(deployed, name=name, precision=precision, device=device)
