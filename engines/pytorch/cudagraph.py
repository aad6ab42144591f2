"""Backend `cudagraph`: the bundle's PyTorch modules, each captured as a CUDA graph.

What is left of eager PyTorch when launching kernels one by one costs nothing: it tells how much of
a backend's gain is that alone.
"""

from typing import Any

import torch
from torch import nn

from wmdeploy.bundle import Bundle
from wmdeploy.engines.base import Settings
from wmdeploy.engines.devices import cuda_device
from wmdeploy.engines.pytorch.eager import bundled_model
from wmdeploy.engines.static import Bind, Buffers, Launch, StaticEngine, captured
from wmdeploy.families import family_of
from wmdeploy.programs.arrays import TorchArrays
from wmdeploy.programs.contract import state_inputs
from wmdeploy.programs.engine import Backend, FixedMemory, powers_of_two


def load(bundle: Bundle, settings: Settings) -> Backend:
    """The graphs' modules in the bundle's layout and precision, on the GPU.

    Raises:
        BundleError: the bundle carries no model, or it was altered.
        MissingError: there is no GPU.
    """
    device = cuda_device("cudagraph")
    recipe = bundle.manifest.recipe
    model = bundled_model(bundle)
    deployed = family_of(model).deployment(model, recipe.layout, recipe.precision)
    deployed = deployed.with_decoder(settings.decoder)
    # all are built before any is moved: in float32 they share the model's weights
    graphs = {name: build() for name, build in deployed.graphs.items()}
    arrays = TorchArrays(device)
    pool = torch.cuda.graph_pool_handle()  # one for all: they run one after the other
    engines = {
        name: StaticEngine(
            name=name,
            inputs=graph.inputs,
            outputs=graph.outputs,
            state=state_inputs(deployed.programs, name),
            device=device,
            bind=captured_module(graph.module.to(device), pool),
        )
        for name, graph in graphs.items()
    }
    return Backend(
        name="cudagraph",
        precision=recipe.precision,
        device=device.type,
        arrays=arrays,
        engines=engines,
        programs=deployed.programs,
        encode_batch=1,
        buckets=powers_of_two(None),
        memory=FixedMemory(arrays),
    )


def captured_module(module: nn.Module, pool: Any) -> Bind:
    def bind(inputs: Buffers, outputs: Buffers) -> Launch:
        @torch.inference_mode()
        def enqueue(stream: torch.cuda.Stream) -> None:
            run_into(module, inputs, outputs)

        return captured(enqueue, pool)

    return bind


def run_into(module: nn.Module, inputs: Buffers, outputs: Buffers) -> None:
    """Run a module on buffers, in the order of its arguments, and copy its results to others."""
    results = module(*inputs.values())
    values = results if isinstance(results, tuple) else (results,)
    for buffer, value in zip(outputs.values(), values, strict=True):
        buffer.copy_(value)
