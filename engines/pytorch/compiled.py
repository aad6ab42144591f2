"""Backends `compile` and `compile-fp16`: torch.compile, as strong competitors.

`compile` takes the modules that were exported, with their KV cache: weights are frozen into the
code, kernels are chosen by max-autotune, and on a GPU convolutions are channels-last and runs are
CUDA graphs. `compile-fp16` is what a user writes first: `torch.compile(model.half())`, the whole
window for every frame. Compilation happens when an engine first runs a batch size, and takes from
seconds to minutes. torch keeps its CUDA graphs by thread: on a GPU, run an engine only in the
thread that ran it first.
"""

import shutil
from collections.abc import Callable
from typing import Any

import torch

from wmdeploy.bundle import Bundle
from wmdeploy.engines.base import Settings
from wmdeploy.engines.devices import float16_device, pytorch_device, torch_threads
from wmdeploy.engines.pytorch.eager import bundled_model
from wmdeploy.errors import MissingError
from wmdeploy.families import family_of
from wmdeploy.programs.arrays import TorchArrays
from wmdeploy.programs.engine import Backend, powers_of_two
from wmdeploy.programs.modules import ModuleEngine

InductorOptions = dict[str, str | int | bool | Callable[..., Any]]


def load(bundle: Bundle, settings: Settings) -> Backend:
    """The graphs' modules in the bundle's layout and precision, not yet compiled.

    Raises:
        BundleError: the bundle carries no model, or it was altered.
        MissingError: there is no C++ compiler for torch.compile to use, or no such device.
    """
    device = pytorch_device("compile", settings)
    check_compiler("compile")
    threads = torch_threads(device, settings)
    gpu = device.type == "cuda"
    options: InductorOptions = {"freezing": True, "max_autotune": True, "triton.cudagraphs": gpu}
    recipe = bundle.manifest.recipe
    model = bundled_model(bundle)
    deployed = family_of(model).deployment(model, recipe.layout, recipe.precision)
    deployed = deployed.with_decoder(settings.decoder)
    engines = {}
    # all are built before any is moved: in float32 they share the model's weights
    for name, graph in [(name, build()) for name, build in deployed.graphs.items()]:
        module = graph.module.to(device)
        if gpu:
            module = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        run = torch.compile(module, dynamic=False, options=options)
        # a CUDA graph's results lie in its own memory, which the next run writes over
        engines[name] = ModuleEngine(name, graph, device, run, copy=gpu)
    return Backend(
        name="compile",
        precision=recipe.precision,
        device=device.type,
        arrays=TorchArrays(device),
        engines=engines,
        programs=deployed.programs,
        encode_batch=1,
        buckets=powers_of_two(None),
        threads=threads,
    )


def load_half(bundle: Bundle, settings: Settings) -> Backend:
    """The baseline in float16, compiled with torch.compile's defaults; on a GPU only.

    Raises:
        BundleError, MissingError: as `load`.
    """
    device = float16_device("compile-fp16", settings)
    check_compiler("compile-fp16")
    model = bundled_model(bundle)
    deployed = family_of(model).baseline_deployment(model, "fp16").with_decoder(settings.decoder)
    engines = {}
    for name, build in deployed.graphs.items():
        graph = build()
        run = torch.compile(graph.module.to(device))
        engines[name] = ModuleEngine(name, graph, device, run)
    return Backend(
        name="compile-fp16",
        precision="fp16",
        device=device.type,
        arrays=TorchArrays(device),
        engines=engines,
        programs=deployed.programs,
        encode_batch=1,
        buckets=powers_of_two(None),
    )


def check_compiler(backend: str) -> None:
    """
    Raises:
        MissingError: there is no C++ compiler.
    """
    if not any(shutil.which(compiler) for compiler in ("g++", "clang++", "c++")):
        raise MissingError(
            f"backend {backend}: torch's compiler needs a C++ compiler and none is on the PATH; "
            "install g++ (Debian, Ubuntu: apt install g++)"
        )
