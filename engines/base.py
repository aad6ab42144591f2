"""The one dict of backends, and what is known of each before it is imported."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from wmdeploy.bundle import Bundle
from wmdeploy.errors import BackendError, require
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
    """

    loader: str
    device: Literal["cpu", "cuda", "any"]
    on_request: bool = False
    profiler: Literal["onnxruntime", "torch", "tensorrt"] | None = None


BACKENDS = {
    "eager": BackendEntry("wmdeploy.engines.pytorch.eager:load", "any", profiler="torch"),
    "eager-fp16": BackendEntry(
        "wmdeploy.engines.pytorch.eager:load_half", "cuda", profiler="torch"
    ),
    "compile": BackendEntry("wmdeploy.engines.pytorch.compiled:load", "any", profiler="torch"),
    "compile-fp16": BackendEntry(
        "wmdeploy.engines.pytorch.compiled:load_half", "cuda", profiler="torch"
    ),
    "aoti": BackendEntry("wmdeploy.engines.pytorch.aoti:load", "any", on_request=True),
    "cudagraph": BackendEntry("wmdeploy.engines.pytorch.cudagraph:load", "cuda", profiler="torch"),
    "ort-cpu": BackendEntry("wmdeploy.engines.ort.cpu:load_cpu", "cpu", profiler="onnxruntime"),
    "openvino": BackendEntry("wmdeploy.engines.openvino:load", "cpu"),
    "ort-cuda": BackendEntry("wmdeploy.engines.ort.gpu:load_cuda", "cuda", profiler="onnxruntime"),
    "ort-cuda-nhwc": BackendEntry(
        "wmdeploy.engines.ort.gpu:load_cuda_nhwc", "cuda", profiler="onnxruntime"
    ),
    "ort-tensorrt": BackendEntry("wmdeploy.engines.ort.gpu:load_tensorrt", "cuda"),
    "tensorrt": BackendEntry("wmdeploy.engines.trt.run:load_tensorrt", "cuda", profiler="tensorrt"),
    "tensorrt-rtx": BackendEntry(
        "wmdeploy.engines.trt.run:load_tensorrt_rtx", "cuda", profiler="tensorrt"
    ),
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
        MissingError: this machine lacks something that the backend needs.
        BackendError: the backend is unknown, or refuses the bundle.
        BundleError: a file of the bundle is missing or altered.
        WmdeployError: it has no such decoder.
    """
    if name not in BACKENDS:
        raise BackendError(f"backend: got {name!r}, expected one of {', '.join(BACKENDS)}")
    settings = settings or Settings()
    if BACKENDS[name].device != "cpu":
        require("torch", extra="export", purpose=f"backend {name}")
        from wmdeploy.families.precision import allow_tf32

        allow_tf32(settings.tf32)
    module, _, function = BACKENDS[name].loader.partition(":")
    load: Callable[[Bundle, Settings], Backend] = getattr(importlib.import_module(module), function)
    return load(bundle.with_decoder(settings.decoder), settings)
