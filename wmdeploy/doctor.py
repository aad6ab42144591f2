"""What this machine and environment can do, and what each missing piece would enable."""

import ctypes
import importlib
import importlib.util
import platform
import shutil
import sys
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Literal

import psutil

from wmdeploy.gpu import gpu
from wmdeploy.install import install_command


@dataclass(frozen=True)
class Finding:
    """One line: `fix` is the command that brings what is missing, or what to do about a problem."""

    what: str
    description: str
    state: Literal["ok", "missing", "problem"]
    enables: str
    fix: str = ""


_LIBRARY = "libonnxruntime_providers_{}.so"


def findings() -> list[Finding]:
    """Everything worth knowing before asking why something does not run."""
    return [
        _python(),
        _memory(),
        _torch(),
        _package("onnx", "export, running bundles", install_command()),
        _package("onnxscript", "export", install_command("export")),
        _package("av", "videos in and out", install_command()),
        *_onnxruntime(),
        _package("openvino", "backend openvino", install_command("openvino")),
        _package("huggingface_hub", "hf:// sources, wmdeploy push", install_command("hub")),
        _gpu(),
        _compiler(),
        _package("gymnasium", "wmdeploy record", install_command("train")),
        _package("ale_py", "wmdeploy record", install_command("train")),
        _package("starlette", "wmdeploy play, serve", install_command("serve")),
        _package("ray", "wmdeploy serve on several machines", install_command("ray")),
        _package("stable_baselines3", "agents in world models", install_command("agents")),
    ]


def _python() -> Finding:
    version = platform.python_version()
    return Finding(
        "Python",
        version,
        "ok" if sys.version_info >= (3, 11) else "problem",
        "everything",
        "" if sys.version_info >= (3, 11) else "use Python 3.11 or newer",
    )


def _memory() -> Finding:
    cores = psutil.cpu_count(logical=False) or psutil.cpu_count()
    total = psutil.virtual_memory().total / 1e9
    return Finding("CPU", f"{cores} cores, {total:.0f} GB", "ok", "the reference preset needs 5 GB")


def _torch() -> Finding:
    enables = "train, export, backends eager, compile and aoti"
    if importlib.util.find_spec("torch") is None:
        return Finding("torch", "not installed", "missing", enables, install_command("export"))
    import torch

    if torch.cuda.is_available():
        name, (major, minor) = torch.cuda.get_device_name(), torch.cuda.get_device_capability()
        version = f"{torch.__version__}, {name} (sm_{major}{minor}), CUDA {torch.version.cuda}"
        try:
            return Finding(
                "torch", f"{version}, cuDNN {torch.backends.cudnn.version()}", "ok", enables
            )
        except RuntimeError as error:  # torch's word for a cuDNN that does not fit it
            reason = str(error).strip().splitlines()[0]
            fix = "take the other cuDNN out of LD_LIBRARY_PATH: torch brings its own"
            return Finding("torch", f"{version}; {reason}", "problem", enables, fix)
    reason = "CPU build" if torch.version.cuda is None else "no NVIDIA GPU or driver found"
    return Finding("torch", f"{torch.__version__}, {reason}", "ok", enables)


def _gpu() -> Finding:
    enables = "backends on a GPU"
    device = gpu()
    if device is None:
        fix = "an NVIDIA GPU with its driver; in a container, start it with GPU access"
        return Finding("GPU", "no NVIDIA GPU or driver", "missing", enables, fix)
    description = (
        f"{device.name}, {device.architecture}, {device.memory_mb / 1e3:.0f} GB, "
        f"driver {device.driver or 'unknown'}"
    )
    return Finding("GPU", description, "ok", enables)


def _onnxruntime() -> list[Finding]:
    """Both distributions write the same import name; with both, one silently hides the other."""
    installed = [name for name in ("onnxruntime", "onnxruntime-gpu") if _version(name)]
    enables = "export, backend ort-cpu"
    if not installed:
        fix = f"{install_command('cpu')}, or, never both, {install_command('gpu')}"
        return [Finding("onnxruntime", "not installed", "missing", enables, fix)]
    if len(installed) == 2:
        fix = "pip uninstall -y onnxruntime onnxruntime-gpu, then install one of them"
        description = "onnxruntime and onnxruntime-gpu both installed"
        return [Finding("onnxruntime", description, "problem", enables, fix)]
    try:
        import onnxruntime

        providers = ", ".join(
            p.removesuffix("ExecutionProvider") for p in onnxruntime.get_available_providers()
        )
    except ImportError as error:
        fix = f"pip install --force-reinstall {installed[0]}"
        return [Finding(installed[0], f"cannot be imported: {error}", "problem", enables, fix)]
    description = f"{_version(installed[0])}, providers {providers}"
    return [Finding(installed[0], description, "ok", enables), *_gpu_providers(onnxruntime)]


def _gpu_providers(onnxruntime: ModuleType) -> list[Finding]:
    """Whether the GPU providers that are compiled in can be loaded: their libraries are others'."""
    with suppress(ImportError):
        import torch  # noqa: F401  # brings CUDA's
    fixes = {
        "cuda": f"install a torch of CUDA {_cuda_of(onnxruntime)}: its libraries are used",
        "tensorrt": "install TensorRT as docs/tensorrt.md says",
    }
    findings = []
    for name, fix in fixes.items():
        library = Path(onnxruntime.__file__ or "").parent / "capi" / _LIBRARY.format(name)
        if library.is_file():
            what, enables = f"onnxruntime's {name}", f"backend ort-{name}"
            with suppress(Exception):  # whose package, where there is one, loads its libraries
                importlib.import_module("tensorrt")
            try:
                ctypes.CDLL(str(library.with_name(_LIBRARY.format("shared"))), ctypes.RTLD_GLOBAL)
                ctypes.CDLL(str(library))
                findings.append(Finding(what, "loads", "ok", enables))
            except OSError as error:
                findings.append(Finding(what, str(error).splitlines()[0], "problem", enables, fix))
    return findings


def _cuda_of(onnxruntime: ModuleType) -> str:
    """The version of CUDA that onnxruntime-gpu was built for, such as "13.0"."""
    info = importlib.import_module("onnxruntime.capi.build_and_package_info")
    return str(getattr(info, "cuda_version", None) or "as onnxruntime's")


def _package(module: str, enables: str, fix: str) -> Finding:
    if importlib.util.find_spec(module) is None:
        return Finding(module, "not installed", "missing", enables, fix)
    distribution = metadata.packages_distributions().get(module, [module])[0]
    return Finding(module, _version(distribution) or "installed", "ok", enables)


def _compiler() -> Finding:
    enables = "backends compile and aoti on a CPU"
    for name in ("g++", "clang++", "c++"):
        if path := shutil.which(name):
            return Finding("C++ compiler", path, "ok", enables)
    fix = "apt install g++   (Debian, Ubuntu)"
    return Finding("C++ compiler", "not on the PATH", "missing", enables, fix)


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
