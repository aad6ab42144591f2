"""The TensorRT packages: which are installed, what they can target, and where they differ.

`tensorrt` 10.x and 11.x and `tensorrt_rtx` 1.x share one Python API. The differences that matter to
us are all here: TensorRT-RTX builds for several architectures, on a machine without a GPU too, has
no timing cache, and compiles its kernels where it runs, which a runtime cache remembers. TensorRT
builds for the GPU that is there.
"""

import importlib
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from wmdeploy.doctor import Finding
from wmdeploy.errors import BackendError, MissingError
from wmdeploy.files import cache_file, check_inside, read_document, staged_file
from wmdeploy.gpu import gpu
from wmdeploy.install import install_command

MODULES = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
INSTALL = {
    "tensorrt": "pip install tensorrt-cu13 (docs/tensorrt.md says from where)",
    "tensorrt-rtx": install_command("rtx"),
}
# The first whose GroupNormalization has a scale for each channel; older ones have one for each
# group, and give other numbers (TensorRT's documentation of add_normalization_v2).
OLDEST = {"tensorrt": "10.15", "tensorrt-rtx": "1.4"}
LARGEST_CACHE = 2**30  # bytes
LayerTimes = list[list[tuple[str, float]]]  # by run: the layers in order, and the ms of each
CURRENT = "current"  # the architecture of the GPU that is there


@dataclass(frozen=True)
class Flavour:
    """One installed TensorRT package; `trt` is its Python module."""

    name: str
    trt: ModuleType

    @property
    def version(self) -> str:
        return str(self.trt.__version__)

    @property
    def architectures(self) -> tuple[str, ...]:
        """What it builds for whatever GPU is there, such as "sm_86"; empty for `tensorrt`."""
        if self.name != "tensorrt-rtx":
            return ()
        names = self.trt.ComputeCapability.__members__
        versions = sorted(
            (name for name in names if name.startswith("SM")), key=lambda n: int(n[2:])
        )
        return tuple(f"sm_{name[2:]}" for name in versions)

    def network_flags(self) -> int:
        """Strong typing: 10.x asks for it, from 11 on there is nothing else."""
        flag = getattr(self.trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
        return 0 if flag is None else 1 << int(flag)

    def is_malformed(self, plan: bytes) -> bool:
        """Whether the runtime says that these bytes are no plan; only TensorRT-RTX can be asked."""
        runtime = self.trt.Runtime(_silent(self.trt))  # it would also say that there is no GPU
        if not hasattr(runtime, "get_engine_validity"):
            return False
        _, diagnostics = runtime.get_engine_validity(plan)
        return bool(int(diagnostics) & int(self.trt.EngineInvalidityDiagnostics.MALFORMED_ENGINE))

    def target(self, config: Any, architectures: tuple[str, ...]) -> None:
        """Tell the builder what the plan is to run on."""
        if not self.architectures:
            return
        # without it no CUDA graph can be captured around the engine
        config.set_flag(self.trt.BuilderFlag.REQUIRE_USER_ALLOCATION)
        config.num_compute_capabilities = len(architectures)
        for i, name in enumerate(architectures):
            member = f"SM{name.removeprefix('sm_')}"
            config.set_compute_capability(self.trt.ComputeCapability.__members__[member], i)

    def open_timing_cache(self, config: Any, architectures: tuple[str, ...]) -> None:
        """Let the builder use what earlier builds have timed; TensorRT-RTX times nothing."""
        if self.name == "tensorrt":
            path = self._timing_cache(architectures)
            cache = read_document(path, LARGEST_CACHE) if path.is_file() else b""
            config.set_timing_cache(config.create_timing_cache(cache), ignore_mismatch=False)

    def keep_timing_cache(self, config: Any, architectures: tuple[str, ...]) -> None:
        """Store what this build has timed, for the next one."""
        if self.name == "tensorrt":
            cache = self._timing_cache(architectures)
            check_inside(cache, cache.parent)
            with staged_file(cache) as partial:
                partial.write_bytes(config.get_timing_cache().serialize())

    def _timing_cache(self, architectures: tuple[str, ...]) -> Path:
        return cache_file(f"timing-{self.version}-{'-'.join(architectures)}.cache")

    def new_context(self, engine: Any, cache: Path) -> "Context":
        """An execution context whose scratch memory the caller allocates.

        TensorRT-RTX takes kernels that it has compiled before from `cache`.
        """
        managed = self.trt.ExecutionContextAllocationStrategy.USER_MANAGED
        if self.name == "tensorrt":
            return Context(engine.create_execution_context(managed))
        config = engine.create_runtime_config()
        config.set_execution_context_allocation_strategy(managed)
        eager = self.trt.DynamicShapesKernelSpecializationStrategy.EAGER
        config.dynamic_shapes_kernel_specialization_strategy = eager
        kernels = config.create_runtime_cache()
        if cache.is_file():
            kernels.deserialize(read_document(cache, LARGEST_CACHE))
        config.set_runtime_cache(kernels)
        return Context(engine.create_execution_context(config), config, kernels)

    def layer_profiler(self, times: LayerTimes) -> Any:
        """An IProfiler that adds each layer to the newest run of `times`."""
        trt = self.trt

        class Profiler(trt.IProfiler):  # type: ignore[name-defined]
            def __init__(self) -> None:
                trt.IProfiler.__init__(self)

            def report_layer_time(self, layer_name: str, ms: float) -> None:
                times[-1].append((layer_name, ms))

        return Profiler()


@dataclass(frozen=True)
class Context:
    """An execution context, None if it could not be made, and what must live as long as it."""

    trt: Any
    config: Any = None
    kernels: Any = None

    def keep_compiled_kernels(self, cache: Path) -> None:
        """Store what TensorRT-RTX has compiled, for the next process; TensorRT compiles nothing."""
        if self.kernels is not None:
            check_inside(cache, cache.parent)
            with staged_file(cache) as partial:
                partial.write_bytes(self.kernels.serialize())


def _silent(trt: ModuleType) -> Any:
    class Logger(trt.ILogger):  # type: ignore[name-defined]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            pass

    return Logger()


def load_flavour(name: str) -> Flavour:
    """A flavour by name; `auto` takes `tensorrt` where it is installed, else `tensorrt-rtx`.

    Raises:
        MissingError: it is not installed, or too old.
        BackendError: it is unknown.
    """
    if name != "auto" and name not in MODULES:
        raise BackendError(f"flavour: got {name!r}, expected auto, {', '.join(MODULES)}")
    wanted = tuple(MODULES) if name == "auto" else (name,)
    for candidate in wanted:
        module, _ = _import(candidate)
        if module is not None:
            return Flavour(candidate, module)
    reasons = "; ".join(f"{n}: {_import(n)[1]}, {INSTALL[n]}" for n in wanted)
    raise MissingError(f"no TensorRT here. {reasons}")


def check_architectures(flavour: Flavour, asked: tuple[str, ...], present: str | None) -> None:
    """Refuse what the flavour cannot build.

    Args:
        asked: "current", or names such as "sm_89".
        present: the architecture of the GPU that is there, or None.

    Raises:
        MissingError: there is no GPU for "current".
        BackendError: an architecture is unknown to the flavour.
    """
    targets = flavour.architectures
    support = f"{flavour.name} {flavour.version} knows {', '.join(targets)}"
    if CURRENT in asked and len(asked) > 1:
        raise BackendError(
            f"architectures: got {', '.join(asked)}, expected current alone, or names"
        )
    for name in asked:
        if name == CURRENT and present is None:
            hint = f"name one; {support}" if targets else "tensorrt builds on a GPU only"
            raise MissingError(
                f"architecture current: there is no NVIDIA GPU or driver here; {hint}"
            )
        if name == CURRENT and targets and present not in targets:
            raise BackendError(f"architecture current: this GPU is {present}, and {support}")
        if name != CURRENT and not targets:
            raise BackendError(
                f"architecture {name}: tensorrt builds for the GPU that is there; give current, "
                "or the flavour tensorrt-rtx"
            )
        if name != CURRENT and name not in targets:
            raise BackendError(f"architecture {name}: {support}; choose among these")


def flavour_findings() -> list[Finding]:
    """For the doctor: which flavours load, what they target, and whether this GPU is among it."""
    return [_finding(name) for name in MODULES]


def _finding(name: str) -> Finding:
    enables = f"build-engine, backend {name}"
    module, problem = _import(name)
    if module is None:
        state = "missing" if problem == "not installed" else "problem"
        return Finding(name, problem, state, enables, INSTALL[name])  # type: ignore[arg-type]
    flavour, device = Flavour(name, module), gpu()
    targets = flavour.architectures
    if not targets:
        description = f"{flavour.version}, builds for the GPU that is there"
        if device is None:
            return Finding(name, f"{description}: none", "problem", enables, "needs an NVIDIA GPU")
        return Finding(name, f"{description}: {device.architecture}", "ok", enables)
    description = f"{flavour.version}, builds for {', '.join(targets)}"
    if device is None:
        return Finding(name, description, "ok", f"{enables} (running needs an NVIDIA GPU)")
    if device.architecture not in targets:
        description += f"; not for this GPU, {device.architecture}"
        return Finding(name, description, "problem", enables, "use tensorrt on this GPU")
    return Finding(name, description, "ok", enables)


def _import(name: str) -> tuple[ModuleType | None, str]:
    """The module, or why there is none."""
    try:
        module = importlib.import_module(MODULES[name])
    except ModuleNotFoundError:
        return None, "not installed"
    except Exception as error:  # a package without its libraries raises whatever its loader does
        return None, f"cannot be loaded ({str(error).splitlines()[0]})"
    if not hasattr(module, "Builder"):
        return None, "installed without its libraries"
    if not hasattr(module.INetworkDefinition, "add_normalization_v2"):
        return None, f"{module.__version__} is too old: {OLDEST[name]} or newer is needed"
    return module, ""
