"""Times of nodes from torch's profiler: eager PyTorch by module, what is compiled by kernel.

Hooks put the name of each module around its operations. A node is an operation of PyTorch that a
module calls, with all that it calls itself; on a GPU its time is that of its kernels. Modules that
were compiled or captured run no hooks, so that their nodes belong to the whole graph.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.autograd.profiler_util import FunctionEvent
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)
from torch.profiler import ProfilerActivity

from wmdeploy.benchmarks.profile.nodes import Run, TimedNode
from wmdeploy.programs.arrays import Array
from wmdeploy.programs.contract import TensorSpec
from wmdeploy.programs.engine import Backend, Engine

RUN, MODULE = "wmdeploy run", "wmdeploy module "  # names of ranges in the profile


class PytorchProfiler:
    """See `wmdeploy.benchmarks.profile.nodes.Profiler`.

    Args:
        sources: the names of the model's modules by their ids; empty where none run as they are.
    """

    def __init__(self, backend: Backend, sources: Mapping[int, str]) -> None:
        self.backend, self._sources = backend, sources
        self.notes: list[str] = []
        if not sources:
            self.notes.append(f"{backend.name} runs no modules: nodes belong to the whole graph")

    def open(self, graph: str, folder: Path) -> "PytorchGraph":
        return PytorchGraph(self.backend.engines[graph], self._sources, self.backend.on_gpu)


class PytorchGraph:
    """See `wmdeploy.benchmarks.profile.nodes.GraphProfiler`; its engine runs the backend's own."""

    def __init__(self, engine: Engine, sources: Mapping[int, str], on_gpu: bool) -> None:
        self.engine: Engine = _Marked(engine)
        self._sources, self._on_gpu = sources, on_gpu
        self._runs: list[Run] = []

    @contextmanager
    def block(self) -> Iterator[None]:
        activities = [ProfilerActivity.CPU]
        if self._on_gpu:
            activities.append(ProfilerActivity.CUDA)
        with torch.profiler.profile(activities=activities) as profiler, self._naming_modules():
            yield
        events: Any = profiler.events()
        marked = sorted((e for e in events if e.name == RUN), key=lambda e: e.time_range.start)
        # a GPU has a range of the same name for what ran there
        self._runs += [
            list(nodes_of(event, self.engine.name, self._on_gpu))
            for event in marked
            if event.device_type == torch.autograd.DeviceType.CPU
        ]

    def end(self) -> list[Run]:
        return self._runs

    @contextmanager
    def _naming_modules(self) -> Iterator[None]:
        ranges: list[Any] = []

        def enter(module: nn.Module, inputs: object) -> None:
            name = self._sources.get(id(module), type(module).__name__)
            ranges.append(torch.profiler.record_function(f"{MODULE}{name}"))
            ranges[-1].__enter__()

        def leave(module: nn.Module, inputs: object, outputs: object) -> None:
            ranges.pop().__exit__(None, None, None)

        if not self._sources:
            yield
            return
        before, after = register_module_forward_pre_hook(enter), register_module_forward_hook(leave)
        try:
            yield
        finally:
            before.remove()
            after.remove()


class _Marked:
    """An engine whose runs are ranges in the profile."""

    def __init__(self, inner: Engine) -> None:
        self.name = inner.name
        self.inputs: tuple[TensorSpec, ...] = inner.inputs
        self.outputs: tuple[TensorSpec, ...] = inner.outputs
        self._inner = inner

    def run(
        self, feeds: Mapping[str, Array], into: Mapping[str, Array] | None = None
    ) -> dict[str, Array]:
        with torch.profiler.record_function(RUN):
            return self._inner.run(feeds, into)

    def synchronize(self) -> None:
        self._inner.synchronize()

    def close(self) -> None:
        """The inner engine is its backend's to close."""


def nodes_of(run: FunctionEvent, graph: str, on_gpu: bool) -> Iterator[TimedNode]:
    """The nodes of one run.

    Args:
        run: the event of its range.
        graph: its name, which stands for what is in no module.
    """
    begin = run.time_range.start

    def visit(event: FunctionEvent, module: str) -> Iterator[TimedNode]:
        if on_gpu:
            for kernel in event.kernels:  # launched by the module itself, as by a CUDA graph
                yield node(event, module, kernel.name, kernel.duration)
        for child in sorted(event.cpu_children, key=lambda child: child.time_range.start):
            if child.name.startswith(MODULE):
                yield from visit(child, child.name.removeprefix(MODULE))
            elif "::" not in child.name and child.cpu_children:  # a range, as of compiled code
                yield from visit(child, module)
            elif not on_gpu:
                yield node(child, module, child.name, child.time_range.elapsed_us())
            elif spent := kernel_us(child):
                yield node(child, module, child.name, spent)

    def node(event: FunctionEvent, module: str, name: str, us: float) -> TimedNode:
        start = (event.time_range.start - begin) / 1e3
        operation = name.split("::")[-1]
        return TimedNode(name=name, operation=operation, module=module, start_ms=start, ms=us / 1e3)

    return visit(run, graph)


@contextmanager
def kernels_in_profile() -> Iterator[None]:
    """Within the block torch.compile writes code whose CPU kernels the profiler sees.

    What this process compiled before is forgotten at both ends: it would be used again as it is.
    """
    from torch import compiler
    from torch._inductor import config

    compiler.reset()
    try:
        with config.patch({"cpp.enable_kernel_profile": True}):
            yield
    finally:
        compiler.reset()


def kernel_us(event: FunctionEvent) -> float:
    """Of the kernels that an operation launches, and those that it calls."""
    own = sum(kernel.duration for kernel in event.kernels)
    return float(own + sum(kernel_us(child) for child in event.cpu_children))
