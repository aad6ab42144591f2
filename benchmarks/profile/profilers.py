"""The profiler of each backend that has one."""

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from typing import TYPE_CHECKING

from wmdeploy.benchmarks.profile.nodes import Profiler
from wmdeploy.benchmarks.profile.onnx_nodes import names_in_model
from wmdeploy.bundle import MODEL_DIRECTORY, Bundle
from wmdeploy.engines.base import BACKENDS, Settings, load_backend
from wmdeploy.errors import BackendError

if TYPE_CHECKING:
    from wmdeploy.benchmarks.profile.pytorch_nodes import PytorchProfiler

MODULES_AS_THEY_ARE = ("eager", "eager-fp16")  # the others of PyTorch compile or capture them


def check_profiled(backend: str) -> None:
    """
    Raises:
        BackendError: the backend is unknown, or has no profiler.
    """
    have = ", ".join(name for name, entry in BACKENDS.items() if entry.profiler)
    if backend not in BACKENDS:
        raise BackendError(f"backend: got {backend!r}, expected one of {have}")
    if BACKENDS[backend].profiler is None:
        raise BackendError(
            f"backend: got {backend!r}, which has no profiler of nodes; expected one of {have}"
        )


@contextmanager
def opened(backend: str, bundle: Bundle, settings: Settings) -> Iterator[Profiler]:
    """A backend that is loaded within the block, with its profiler.

    Raises:
        BackendError: as `check_profiled`.
        MissingError, BundleError: the backend cannot be loaded.
    """
    check_profiled(backend)
    kind = BACKENDS[backend].profiler
    if kind == "torch":
        from wmdeploy.benchmarks.profile.pytorch_nodes import kernels_in_profile

        with kernels_in_profile() if backend.startswith("compile") else nullcontext():
            profiler: Profiler = _pytorch(backend, bundle, settings)
            with closing(profiler.backend):
                yield profiler
        return
    loaded = load_backend(backend, bundle, settings)
    name_of, notes = _names(bundle)
    if kind == "onnxruntime":
        from wmdeploy.benchmarks.profile.onnxruntime_nodes import OnnxRuntimeProfiler

        profiler = OnnxRuntimeProfiler(loaded, bundle, settings, name_of)
    else:
        from wmdeploy.benchmarks.profile.tensorrt_nodes import TensorRtProfiler

        profiler = TensorRtProfiler(loaded, bundle, name_of)
    profiler.notes += notes
    with closing(loaded):
        yield profiler


def _names(
    bundle: Bundle,
) -> tuple[Callable[[str], Callable[[str], str] | None], list[str]]:
    """By graph, how its modules are called; and whether these are names of the model."""
    carried = any(name.startswith(f"{MODEL_DIRECTORY}/") for name in bundle.manifest.files)
    if carried and importlib.util.find_spec("torch"):
        return lambda graph: names_in_model(bundle, graph), []
    why = "torch is not installed" if carried else "the bundle carries no model"
    note = f"modules have their names in each graph instead of those in the model, as {why}"
    return lambda graph: None, [note]


def _pytorch(backend: str, bundle: Bundle, settings: Settings) -> "PytorchProfiler":
    from wmdeploy.benchmarks.profile.pytorch_nodes import PytorchProfiler
    from wmdeploy.engines.pytorch.eager import baseline, baseline_device, bundled_model
    from wmdeploy.families.precision import allow_tf32

    if backend not in MODULES_AS_THEY_ARE:
        return PytorchProfiler(load_backend(backend, bundle, settings), {})
    allow_tf32(settings.tf32)
    device = baseline_device(backend, settings)
    model = bundled_model(bundle)
    sources = {id(module): name for name, module in model.named_modules() if name}
    loaded = baseline(model, device, "fp32" if backend == "eager" else "fp16")
    return PytorchProfiler(loaded, sources)
