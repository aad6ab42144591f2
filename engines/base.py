"""What every backend offers, and the one dict of backends.

A backend loads each graph of a bundle as an engine; a session runs them. Importing this module
imports no backend.
"""

import importlib
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

from wmdeploy.bundle import Bundle
from wmdeploy.errors import BackendError
from wmdeploy.manifest import Precision, TensorSpec, Wiring

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class BackendEntry:
    """What is known of a backend before it is imported.

    Attributes:
        loader: "module:function"; the function takes a Bundle and Settings, and gives a Backend.
        device: where it runs: "cpu", "cuda" (an NVIDIA GPU), or "any", as `Settings.device` says.
        on_request: run only where it is asked for by name, as it takes minutes to load or run.
    """

    loader: str
    device: Literal["cpu", "cuda", "any"]
    on_request: bool = False


BACKENDS = {
    "eager": BackendEntry("wmdeploy.engines.pytorch.eager:load", "any"),
    "eager-fp16": BackendEntry("wmdeploy.engines.pytorch.eager:load_half", "cuda"),
    "compile": BackendEntry("wmdeploy.engines.pytorch.compiled:load", "any"),
    "compile-fp16": BackendEntry("wmdeploy.engines.pytorch.compiled:load_half", "cuda"),
    "aoti": BackendEntry("wmdeploy.engines.pytorch.aoti:load", "any", on_request=True),
    "cudagraph": BackendEntry("wmdeploy.engines.pytorch.cudagraph:load", "cuda"),
    "ort-cpu": BackendEntry("wmdeploy.engines.ort.cpu:load_cpu", "cpu"),
    "openvino": BackendEntry("wmdeploy.engines.openvino:load", "cpu"),
    "ort-cuda": BackendEntry("wmdeploy.engines.ort.gpu:load_cuda", "cuda"),
    "ort-cuda-nhwc": BackendEntry("wmdeploy.engines.ort.gpu:load_cuda_nhwc", "cuda"),
    "ort-tensorrt": BackendEntry("wmdeploy.engines.ort.gpu:load_tensorrt", "cuda"),
    "tensorrt": BackendEntry("wmdeploy.engines.trt.run:load_tensorrt", "cuda"),
    "tensorrt-rtx": BackendEntry("wmdeploy.engines.trt.run:load_tensorrt_rtx", "cuda"),
}
BASELINE = "eager"
DEFAULT_BACKENDS = tuple(name for name, entry in BACKENDS.items() if not entry.on_request)


@dataclass(frozen=True)
class Settings:
    """How to run what leaves a choice.

    `device` is of the backends whose entry says "any" ("auto": a GPU where torch finds one). `tf32`
    lets float32 products on a GPU lose precision for speed. `threads` is how many a backend on the
    CPU computes with; None: as many as it takes itself.
    """

    device: Literal["auto", "cpu", "cuda"] = "auto"
    tf32: bool = False
    threads: int | None = None


class Engine(Protocol):
    """One graph, loaded by one backend, ready to run.

    Tensors are torch tensors on the backend's device. Those that `run` returns may be overwritten
    by the next `run` of the same engine, unless they are among its feeds: a step gives its new
    cache while it reads the old one, so an engine with buffers of its own needs two sets of them.
    """

    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def run(self, feeds: "Mapping[str, torch.Tensor]") -> "dict[str, torch.Tensor]": ...

    def synchronize(self) -> None:
        """Return when the device has finished all work given to it."""
        ...

    def close(self) -> None:
        """Give back memory; the engine cannot be run afterwards."""
        ...


class Tenant(Protocol):
    """Whoever holds tensors that the engines gave."""

    def keep_copies(self) -> None: ...


class Tenancy:
    """The session that ran a backend's engines last, while it lives."""

    def __init__(self) -> None:
        self._tenant: weakref.ref[Tenant] | None = None

    @property
    def tenant(self) -> Tenant | None:
        return None if self._tenant is None else self._tenant()

    @tenant.setter
    def tenant(self, tenant: Tenant) -> None:
        self._tenant = weakref.ref(tenant)


@dataclass(frozen=True, kw_only=True)
class Backend:
    """The engines of one bundle by graph name, and how a session connects them.

    Sessions share a backend's engines, in turns; `tenancy` knows whose turn it was last.
    `encode_batch` is how many frames of a context are encoded at once, where that is no multiple of
    the session's rows; 1 where every batch size costs a compilation or memory. `max_batch` is the
    largest batch its graphs take; None: any. `threads` is how many compute a graph on the CPU;
    None: it runs on a GPU. `statistics` are what the engines say of their own memory, in 10^6 bytes
    by label.
    """

    name: str
    precision: Precision
    device: "torch.device"
    engines: Mapping[str, Engine]
    wiring: Wiring
    encode_batch: int
    max_batch: int | None = None
    threads: int | None = None
    tenancy: Tenancy = field(default_factory=Tenancy)
    statistics: Callable[[], dict[str, float]] = dict

    def close(self) -> None:
        for engine in self.engines.values():
            engine.close()


def load_backend(name: str, bundle: Bundle, settings: Settings | None = None) -> Backend:
    """Load a bundle's graphs.

    Raises:
        MissingError: this machine lacks something that the backend needs.
        BackendError: the backend is unknown, or refuses the bundle.
        BundleError: a file of the bundle is missing or altered.
    """
    from wmdeploy.models.precision import allow_tf32

    if name not in BACKENDS:
        raise BackendError(f"backend: got {name!r}, expected one of {', '.join(BACKENDS)}")
    settings = settings or Settings()
    module, _, function = BACKENDS[name].loader.partition(":")
    load: Callable[[Bundle, Settings], Backend] = getattr(importlib.import_module(module), function)
    allow_tf32(settings.tf32)
    return load(bundle, settings)
