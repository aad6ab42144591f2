"""The one dict of backends, and what is known of each before it is imported."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from wmdeploy.bundle import Bundle
from wmdeploy.errors import BackendError, MissingError, require
from wmdeploy.programs.contract import FULL
from wmdeploy.programs.engine import Backend


@dataclass(frozen=True)
class BackendEntry:
    """What is known of a backend before it is imported.

    Attributes:
        loader: "module:function"; the function takes a Bundle and Settings, and gives a Backend.
        device: where it runs: "cpu", "cuda" (an NVIDIA GPU), or "any", as `Settings.device` says.
        on_request: run only where it is asked for by name, as it takes minutes to load or run.
        profiler: what can time the nodes of its graphs; None: nothing that we use.
        integers: it runs bundles whose weights are integers: with those, or as a baseline with
            PyTorch's own. Others would run float weights in their place, or were never seen to
            run them.
    """

    loader: str
    device: Literal["cpu", "cuda", "any"]
    on_request: bool = False
    profiler: Literal["onnxruntime", "torch", "tensorrt"] | None = None
    integers: bool = False


def _pytorch(loader: str, device: Literal["cuda", "any"], integers: bool = False) -> BackendEntry:
    path = f"wmdeploy.engines.pytorch.{loader}"
    return BackendEntry(path, device, profiler="torch", integers=integers)


def _tensorrt(loader: str) -> BackendEntry:
    path = f"wmdeploy.engines.trt.run:{loader}"
    return BackendEntry(path, "cuda", profiler="tensorrt", integers=True)


def _ort_cuda(loader: str) -> BackendEntry:
    return BackendEntry(f"wmdeploy.engines.ort.gpu:{loader}", "cuda", profiler="onnxruntime")


BACKENDS = {
    "eager": _pytorch("eager:load", "any", integers=True),
    "eager-fp16": _pytorch("eager:load_half", "cuda", integers=True),
    "compile": _pytorch("compiled:load", "any"),
    "compile-fp16": _pytorch("compiled:load_half", "cuda", integers=True),
    "aoti": BackendEntry("wmdeploy.engines.pytorch.aoti:load", "any", on_request=True),
    "cudagraph": _pytorch("cudagraph:load", "cuda"),
    "ort-cpu": BackendEntry(
        "wmdeploy.engines.ort.cpu:load_cpu", "cpu", profiler="onnxruntime", integers=True
    ),
    "openvino": BackendEntry("wmdeploy.engines.openvino:load", "cpu", integers=True),
    "ort-cuda": _ort_cuda("load_cuda"),
    "ort-cuda-nhwc": _ort_cuda("load_cuda_nhwc"),
    "ort-tensorrt": BackendEntry("wmdeploy.engines.ort.gpu:load_tensorrt", "cuda"),
    "tensorrt": _tensorrt("load_tensorrt"),
    "tensorrt-rtx": _tensorrt("load_tensorrt_rtx"),
}
BASELINE = "eager"
DEFAULT_BACKENDS = tuple(name for name, entry in BACKENDS.items() if not entry.on_request)


@dataclass(frozen=True)
class Settings:
    """How to run what leaves a choice.

    `device` is of the backends whose entry says "any" ("auto": a GPU where torch finds one). `tf32`
    lets float32 products on a GPU lose precision for speed. `threads` is how many a backend on the
    CPU computes with; None: as many as it takes itself. `decoder` is the one that renders, of those
    that the model has.
    """

    device: Literal["auto", "cpu", "cuda"] = "auto"
    tf32: bool = False
    threads: int | None = None
    decoder: str = FULL


def load_backend(name: str, bundle: Bundle, settings: Settings | None = None) -> Backend:
    """Load a bundle's graphs.

    Raises:
        MissingError: this machine lacks something that the backend needs, or the backend does not
            run weights that are integers, as the bundle's are.
        BackendError: the backend is unknown, or refuses the bundle.
        BundleError: a file of the bundle is missing or altered.
        WmdeployError: it has no such decoder.
    """
    if name not in BACKENDS:
        raise BackendError(f"backend: got {name!r}, expected one of {', '.join(BACKENDS)}")
    settings, weights = settings or Settings(), bundle.manifest.recipe.weights
    if weights != "float" and not BACKENDS[name].integers:
        able = ", ".join(name for name, entry in BACKENDS.items() if entry.integers)
        raise MissingError(
            f"backend {name}: does not run {weights} weights, as {bundle.path} has them; choose "
            f"one of {able}, or export the model again with float weights"
        )
    if BACKENDS[name].device != "cpu":
        require("torch", extra="export", purpose=f"backend {name}")
        from wmdeploy.families.precision import allow_tf32

        allow_tf32(settings.tf32)
    module, _, function = BACKENDS[name].loader.partition(":")
    load: Callable[[Bundle, Settings], Backend] = getattr(importlib.import_module(module), function)
    return load(bundle.with_decoder(settings.decoder), settings)
