"""Backend `compile`: torch.compile of the modules that were exported, as a strong competitor.

Weights are frozen into the compiled code and kernels are chosen by max-autotune. Compilation
happens when an engine first runs a batch size, and takes from seconds to minutes.
"""

import shutil
from collections.abc import Callable
from typing import Any

import torch

from engines.base import Backend
from engines.eager import ModuleEngine, bundled_model
from wmdeploy.bundle import Bundle
from wmdeploy.errors import BackendError
from wmdeploy.models.graphs import deployment

INDUCTOR_OPTIONS: dict[str, str | int | bool | Callable[..., Any]] = {
    "freezing": True,
    "max_autotune": True,
}


def load(bundle: Bundle) -> Backend:
    """The graphs' modules in the bundle's layout and precision, not yet compiled.

    Raises:
        BundleError: the bundle carries no model, or it was altered.
        BackendError: there is no C++ compiler for torch.compile to use.
    """
    if not any(shutil.which(compiler) for compiler in ("g++", "clang++", "c++")):
        raise BackendError(
            "backend compile: torch.compile needs a C++ compiler and none is on the PATH; "
            "install g++ (Debian, Ubuntu: apt install g++)"
        )
    recipe = bundle.manifest.recipe
    model = bundled_model(bundle)
    deployed = deployment(model, recipe.layout, recipe.precision)
    engines = {}
    for name, build in deployed.graphs.items():
        graph = build()
        module = torch.compile(graph.module, dynamic=False, options=INDUCTOR_OPTIONS)
        engines[name] = ModuleEngine(name, graph, module)
    device = torch.device("cpu")
    return Backend("compile", recipe.precision, device, engines, deployed.wiring, encode_batch=1)
