"""Engines whose tensors never move: what CUDA graphs, and programs bound to addresses, need.

A program reads and writes the same buffers at every run. The KV cache is not copied from a step to
the next: where an output is fed back, its buffer and the input's change roles, so each batch size
has two programs, one for each side:

    side 0: reads a, writes b        side 1: reads b, writes a

A feed that is not in its buffer already is copied there.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor

from wmdeploy.manifest import BATCH, TensorSpec, Wiring

WARM_UPS = 3
Buffers = dict[str, Tensor]
Launch = Callable[[], None]
# Inputs and outputs at their addresses -> a function that enqueues one run on the current stream.
Bind = Callable[[Buffers, Buffers], Launch]


class StaticEngine:
    """One graph. Outputs stay valid until its next run, those fed back until the one after that.

    Args:
        feedback: which input takes the place of which output in the next run.
        bind: prepares one program; called twice for each batch size where there is feedback.
    """

    def __init__(
        self,
        *,
        name: str,
        inputs: tuple[TensorSpec, ...],
        outputs: tuple[TensorSpec, ...],
        feedback: Mapping[str, str],
        device: torch.device,
        bind: Bind,
    ) -> None:
        self.name, self.inputs, self.outputs = name, inputs, outputs
        self._feedback, self._device = dict(feedback), device
        self._bind: Bind | None = bind
        self._sides: dict[int, list[_Side]] = {}

    @torch.inference_mode()
    def run(self, feeds: Mapping[str, Tensor]) -> dict[str, Tensor]:
        spec = self.inputs[0]
        batch = feeds[spec.name].shape[spec.shape.index(BATCH)]
        if batch not in self._sides:
            self._sides[batch] = self._prepare(batch, feeds)
        side = self._side_that_holds(self._sides[batch], feeds)
        for name, buffer in side.inputs.items():
            if feeds[name].data_ptr() != buffer.data_ptr():
                buffer.copy_(feeds[name], non_blocking=True)
        side.launch()
        return side.outputs

    def synchronize(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)

    def close(self) -> None:
        self._sides.clear()
        self._bind = None

    def _side_that_holds(self, sides: "list[_Side]", feeds: Mapping[str, Tensor]) -> "_Side":
        """The side with most of the fed-back tensors in place; the first where they are foreign."""

        def in_place(side: _Side) -> int:
            names = self._feedback
            return sum(feeds[n].data_ptr() == side.inputs[n].data_ptr() for n in names)

        return max(sides, key=in_place)

    def _prepare(self, batch: int, feeds: Mapping[str, Tensor]) -> "list[_Side]":
        assert self._bind is not None, "the engine was closed"
        given = {spec.name: self._buffer(spec, batch) for spec in self.inputs}
        for name, buffer in given.items():
            buffer.copy_(feeds[name])  # to warm up on: zeros may be no valid input
        made = {spec.name: self._buffer(spec, batch) for spec in self.outputs}
        pairs = [(given, made)]
        if self._feedback:
            pairs.append(
                (
                    given | {name: made[output] for name, output in self._feedback.items()},
                    made | {output: given[name] for name, output in self._feedback.items()},
                )
            )
        return [_Side(inputs, outputs, self._bind(inputs, outputs)) for inputs, outputs in pairs]

    def _buffer(self, spec: TensorSpec, batch: int) -> Tensor:
        shape = [batch if size == BATCH else size for size in spec.shape]
        return torch.zeros(shape, dtype=getattr(torch, spec.dtype), device=self._device)


class _Side:
    def __init__(self, inputs: Buffers, outputs: Buffers, launch: Launch) -> None:
        self.inputs, self.outputs, self.launch = inputs, outputs, launch


def feedback_of(graph: str, wiring: Wiring) -> dict[str, str]:
    """The inputs of a graph that its own outputs replace in the next run."""
    if graph != "step":
        return {}
    return {**dict(wiring.cache), wiring.token: wiring.feedback}


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
