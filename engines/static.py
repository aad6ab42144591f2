"""Engines whose tensors never move: what CUDA graphs, and programs bound to addresses, need.

A program reads and writes the same buffers at every run. The KV cache is not copied from a step to
the next: it is the session's, in two arrays that take turns, so each batch size has two programs:

    reads a, writes b        reads b, writes a
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor

from wmdeploy.programs.contract import TensorSpec

WARM_UPS = 3
Buffers = dict[str, Tensor]
Launch = Callable[[], None]
# Inputs and outputs at their addresses -> a function that enqueues one run on the current stream.
Bind = Callable[[Buffers, Buffers], Launch]


class StaticEngine:
    """One graph.

    A run reads a row's state where it lies and writes the new one where the caller says: nothing is
    copied, and for each pair of places there is a program. Other inputs are copied to buffers of
    the engine's own, and other outputs lie in such, until its next run.

    Args:
        state: the inputs that are a row's state, which a session keeps at addresses that come
            again (`wmdeploy.programs.engine.FixedMemory`).
        bind: prepares one program.
    """

    def __init__(
        self,
        *,
        name: str,
        inputs: tuple[TensorSpec, ...],
        outputs: tuple[TensorSpec, ...],
        state: frozenset[str],
        device: torch.device,
        bind: Bind,
    ) -> None:
        self.name, self.inputs, self.outputs = name, inputs, outputs
        self._state, self._device = state, device
        self._bind: Bind | None = bind
        self._own: dict[int, Buffers] = {}  # by batch
        # by the addresses they are bound to
        self._programs: dict[tuple[int | str, ...], _Program] = {}

    @torch.inference_mode()
    def run(
        self, feeds: Mapping[str, Tensor], into: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        spec = self.inputs[0]
        batch = feeds[spec.name].shape[spec.batch_axis]
        into = into or {}
        assert self._bind is not None, "the engine was closed"
        own = self._own.setdefault(batch, {})
        for spec in self.inputs:
            if spec.name not in self._state:
                self._buffer(own, spec, batch).copy_(feeds[spec.name], non_blocking=True)
        places = [feeds[name] for name in self._state] + list(into.values())
        addresses = [tensor.data_ptr() for tensor in places]
        key: tuple[int | str, ...] = (batch, *into, *addresses)
        program = self._programs.get(key)
        if program is None:
            held = {name: feeds[name] for name in self._state} | dict(into)
            inputs, outputs = (
                {
                    s.name: held[s.name] if s.name in held else self._buffer(own, s, batch)
                    for s in specs
                }
                for specs in (self.inputs, self.outputs)
            )
            program = self._programs[key] = _Program(outputs, self._bind(inputs, outputs))
        program.launch()
        return program.outputs

    def synchronize(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)

    def close(self) -> None:
        self._programs.clear()
        self._own.clear()
        self._bind = None

    def _buffer(self, own: Buffers, spec: TensorSpec, batch: int) -> Tensor:
        """The engine's own memory of a tensor, made when it is first needed."""
        if spec.name not in own:
            kind = getattr(torch, spec.dtype)
            own[spec.name] = torch.zeros(spec.sizes(batch), dtype=kind, device=self._device)
        return own[spec.name]


class _Program:
    def __init__(self, outputs: Buffers, launch: Launch) -> None:
        self.outputs, self.launch = outputs, launch


@cache
def capture_stream() -> torch.cuda.Stream:
    """The one stream of all captures: a pool's memory and cuBLAS's workspace belong to a stream.

    torch.cuda.graph's documentation asks for it where captures share a pool.
    """
    return torch.cuda.Stream()


def captured(enqueue: Callable[[torch.cuda.Stream], object], pool: Any = None) -> Launch:
    """A CUDA graph of what `enqueue` puts on the stream it is given.

    Warmed up first, because libraries allocate and choose kernels at their first runs, which must
    not be captured. The graph may be launched on any stream. What `enqueue` raises is raised.

    Args:
        pool: memory shared with graphs that never run at the same time.
    """
    stream = capture_stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_UPS):
            enqueue(stream)
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    reason: Exception | None = None
    try:
        with torch.cuda.graph(graph, pool=pool, stream=stream):
            try:
                enqueue(stream)
            except Exception as error:
                reason = error
                raise
    except Exception as error:  # of a broken capture, torch raises what ending it says
        raise (reason or error) from None
    return graph.replay


@contextmanager
def on_stream(stream: torch.cuda.Stream) -> Iterator[None]:
    """Run on another stream, in order with what is on the current one before and after."""
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        yield
    torch.cuda.current_stream().wait_stream(stream)
