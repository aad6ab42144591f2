"""Backend `aoti`: torch's AOTInductor, the compiler of `compile` ahead of time, without Python.

Each exported module becomes a shared library for all batches, with its weights frozen into it. That
takes a minute or more for each graph while loading; the first run of a batch costs nothing more.
"""

import tempfile
from collections.abc import Callable
from typing import Any

import torch

from wmdeploy.bundle import Bundle
from wmdeploy.engines.base import Settings
from wmdeploy.engines.devices import pytorch_device, torch_threads
from wmdeploy.engines.pytorch.compiled import check_compiler
from wmdeploy.engines.pytorch.eager import bundled_model
from wmdeploy.errors import BackendError
from wmdeploy.families import Graph, family_of
from wmdeploy.programs.arrays import TorchArrays
from wmdeploy.programs.contract import BATCH, TensorSpec
from wmdeploy.programs.engine import Backend
from wmdeploy.programs.modules import ModuleEngine
from wmdeploy.text import one_line

SAMPLE_BATCH = 2  # torch.export specialises sizes 0 and 1


def load(bundle: Bundle, settings: Settings) -> Backend:
    """The graphs' modules in the bundle's layout and precision, compiled.

    Raises:
        BundleError: the bundle carries no model, or it was altered.
        MissingError: there is no C++ compiler, or no such device.
        BackendError: torch cannot compile a module.
    """
    device = pytorch_device("aoti", settings)
    check_compiler("aoti")
    threads = torch_threads(device, settings)
    recipe = bundle.manifest.recipe
    model = bundled_model(bundle)
    deployed = family_of(model).deployment(model, recipe.layout, recipe.precision)
    deployed = deployed.with_decoder(settings.decoder)
    engines = {}
    # all are built before any is moved: in float32 they share the model's weights
    for name, graph in [(name, build()) for name, build in deployed.graphs.items()]:
        graph.module.to(device)
        run = compiled_module(name, graph, device, recipe.max_batch)
        engines[name] = ModuleEngine(name, graph, device, run)
    return Backend(
        name="aoti",
        precision=recipe.precision,
        device=device.type,
        arrays=TorchArrays(device),
        engines=engines,
        programs=deployed.programs,
        encode_batch=recipe.max_batch,
        max_batch=recipe.max_batch,
        threads=threads,
    )


def compiled_module(
    name: str, graph: Graph, device: torch.device, max_batch: int
) -> Callable[..., Any]:
    """A module as a loaded package; the files that it was made from are gone.

    Raises:
        BackendError: torch cannot compile it.
    """
    batch = torch.export.Dim("batch", min=1, max=max(max_batch, SAMPLE_BATCH))
    samples = tuple(sample(spec, device) for spec in graph.inputs)
    with tempfile.TemporaryDirectory() as scratch, torch.no_grad():
        try:
            shapes = graph.dynamic_shapes(batch)
            program = torch.export.export(graph.module, samples, dynamic_shapes=shapes)
            package = torch._inductor.aoti_compile_and_package(
                program, package_path=f"{scratch}/{name}.pt2", inductor_configs={"freezing": True}
            )
        except Exception as error:  # torch's compilers have no common type of error
            raise BackendError(
                f"backend aoti: torch {torch.__version__} cannot compile the graph {name}: "
                f"{one_line(str(error), 300)}"
            ) from error
        return torch._inductor.aoti_load_package(package)


def sample(spec: TensorSpec, device: torch.device) -> torch.Tensor:
    shape = [SAMPLE_BATCH if size == BATCH else size for size in spec.shape]
    return torch.ones(shape, dtype=getattr(torch, spec.dtype), device=device)
