"""torch.cuda on the CPU: streams, captures and graphs.

- A capture runs nothing that lasts: writes into tensors are recorded, and done when the graph is
  replayed, on the addresses of the capture.
- Results made inside a capture belong to its pool; any other replay of that pool spoils them.
- Where TF32 is allowed, factors of float32 products lose the bits that TF32 has not.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import torch._dynamo  # which a dispatch mode would otherwise import while it is on
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

CPU = torch.device("cpu")
aten = torch.ops.aten
# what copies a value to the host, or makes as many results as there are values
FORBIDDEN = {aten.item, aten._local_scalar_dense, aten.is_nonzero, aten.equal, aten.nonzero}
CONVOLUTIONS = {aten.convolution, aten.conv2d, aten.conv_transpose2d}
PRODUCTS = {aten.mm, aten.addmm, aten.bmm, aten.baddbmm, aten.linear, aten.matmul} | CONVOLUTIONS


class Stream:
    """One of `gpu`; everything on it is done at once, in order."""

    def __init__(self, gpu: "Gpu") -> None:
        self.gpu = gpu
        self.cuda_stream = len(gpu.streams)
        gpu.streams.append(self)

    def wait_stream(self, other: "Stream") -> None:
        self.gpu.check(other is not self, "a stream waits for itself")

    def synchronize(self) -> None:
        self.gpu.check_not_capturing("cudaStreamSynchronize")


class Graph:
    """torch.cuda.CUDAGraph: what was launched while it was captured."""

    def __init__(self, gpu: "Gpu") -> None:
        self.gpu = gpu
        self.launches: list[Callable[[], None]] = []
        self.made: list[Tensor] = []  # in the pool
        self.pool: object = None

    def replay(self) -> None:
        self.gpu.check(bool(self.launches), "an empty graph is replayed")
        self.gpu.check_not_capturing("cudaGraphLaunch")
        for other in self.gpu.graphs[self.pool]:
            if other is not self:
                for tensor in other.made:
                    spoil(tensor)
        with self.gpu.paused():
            for launch in self.launches:
                launch()
        self.gpu.replays += 1


class Gpu:
    """The state of the stand-in; `install` puts it in place of torch.cuda."""

    def __init__(self) -> None:
        self.streams: list[Stream] = []
        self.default = Stream(self)
        self.current = self.default
        self.capture: Graph | None = None
        self.broken: str | None = None  # why the capture is
        self.graphs: dict[object, list[Graph]] = {}
        self.pools = Counter[object]()  # bytes by pool and stream
        self.replays = 0
        self.sessions: list[Any] = []  # of ONNX Runtime

    def check(self, fine: bool, problem: str) -> None:
        if not fine:
            raise RuntimeError(f"CUDA error: {problem}")

    def check_not_capturing(self, call: str) -> None:
        if self.capture is not None:
            self.broken = f"operation not permitted when stream is capturing ({call})"
            raise RuntimeError(f"CUDA error: {self.broken}")

    def launch(self, stream: int, work: Callable[[], None]) -> None:
        """Work of a library on a stream: done now, or recorded."""
        if self.capture is None:
            with self.paused():
                work()
            return
        self.check(stream == self.current.cuda_stream, "work on a stream that is not captured")
        self.capture.launches.append(work)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """A block whose operators are a library's own."""
        capture, self.capture = self.capture, None
        try:
            yield
        finally:
            self.capture = capture

    @contextmanager
    def stream(self, stream: Stream) -> Iterator[None]:
        before, self.current = self.current, stream
        try:
            yield
        finally:
            self.current = before

    @contextmanager
    def graph(
        self, graph: Graph, pool: object = None, stream: Stream | None = None
    ) -> Iterator[None]:
        """As torch.cuda.graph: ended in any case, with an error of its own if it was broken."""
        self.check_not_capturing("cudaStreamBeginCapture")
        graph.pool = object() if pool is None else pool
        self.graphs.setdefault(graph.pool, []).append(graph)
        self.capture, self.broken = graph, None
        with self.stream(stream or Stream(self)):
            try:
                yield
            finally:
                self.capture = None
                self.pools[graph.pool, self.current.cuda_stream] += sum(
                    t.nbytes for t in graph.made
                )
                self.check(self.broken is None, f"capture_end: a broken capture ({self.broken})")

    def install(self, patch: pytest.MonkeyPatch) -> None:
        """Let torch and the engines find this GPU, its tensors on the CPU."""
        from wmdeploy.engines import devices, static
        from wmdeploy.engines.ort import gpu as ort_gpu
        from wmdeploy.engines.pytorch import cudagraph
        from wmdeploy.engines.trt import run as trt_run

        found: dict[str, Any] = {
            "is_available": lambda: True,
            "current_stream": lambda device=None: self.current,
            "default_stream": lambda device=None: self.default,
            "Stream": lambda device=None: Stream(self),
            "stream": self.stream,
            "CUDAGraph": lambda: Graph(self),
            "graph": self.graph,
            "graph_pool_handle": lambda: object(),
            "synchronize": lambda device=None: self.check_not_capturing("cudaDeviceSynchronize"),
            "get_device_capability": lambda device=None: (8, 9),
            "get_device_name": lambda device=None: "stand-in",
        }
        for name, value in found.items():
            patch.setattr(torch.cuda, name, value)
        patch.setattr(torch.version, "cuda", "13.0")
        for module in (cudagraph, devices, ort_gpu, trt_run):
            patch.setattr(module, "cuda_device", lambda backend: CPU)
        static.capture_stream.cache_clear()

    @contextmanager
    def running(self) -> Iterator[None]:
        """A block in which torch's operators are this GPU's."""
        with _Operators(self):
            yield


class _Operators(TorchDispatchMode):
    def __init__(self, gpu: Gpu) -> None:
        super().__init__()
        self.gpu = gpu

    def __torch_dispatch__(
        self, operator: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs, packet = kwargs or {}, operator.overloadpacket
        if packet in FORBIDDEN:
            self.gpu.check_not_capturing(str(packet))
        run = _with_tf32(operator) if packet in PRODUCTS and _tf32(packet) else operator
        graph = self.gpu.capture
        if graph is None:
            return run(*args, **kwargs)
        if operator._schema.is_mutable:
            graph.launches.append(lambda: run(*args, **kwargs))
            return kwargs["out"] if "out" in kwargs else args[0]
        result = run(*args, **kwargs)
        tensors = [t for t in tree_leaves(result) if isinstance(t, Tensor)]
        given = {_place(t) for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        if any(_place(t) not in given for t in tensors):  # no view: memory of the pool
            graph.made += tensors

            def again() -> None:
                for old, new in zip(tensors, tree_leaves(run(*args, **kwargs)), strict=True):
                    old.copy_(new)

            graph.launches.append(again)
        return result


def _place(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def spoil(tensor: Tensor) -> None:
    """What is in memory that another graph has written over."""
    tensor.fill_(float("nan") if tensor.is_floating_point() else 77)


def _tf32(packet: Any) -> bool:
    flags = torch.backends.cudnn if packet in CONVOLUTIONS else torch.backends.cuda.matmul
    return bool(flags.allow_tf32)


def _with_tf32(operator: Any) -> Callable[..., Any]:
    def run(*args: Any, **kwargs: Any) -> Any:
        return operator(*tree_map(round_to_tf32, args), **kwargs)

    return run


def round_to_tf32(value: Any) -> Any:
    """A float32 tensor without the last 13 bits of its fractions; all else as it is."""
    if not isinstance(value, Tensor) or value.dtype != torch.float32 or value.ndim < 2:
        return value
    return (value.view(torch.int32) & ~0x1FFF).view(torch.float32)
