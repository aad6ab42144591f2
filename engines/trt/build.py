"""One run of TensorRT's builder: an ONNX file to a serialized plan, with progress and Ctrl-C."""

import re
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import onnx

from wmdeploy.engines.trt.flavour import Flavour
from wmdeploy.engines.trt.rewrite import tensorrt_graph
from wmdeploy.errors import BackendError
from wmdeploy.programs.contract import BATCH, TensorSpec
from wmdeploy.progress import Progress

PERCENT = 100  # parts of a build, for its progress


@dataclass(frozen=True, kw_only=True)
class Order:
    """What to build: `batches` are the least, the tuned-for and the largest batch."""

    graph: str
    onnx: Path
    inputs: tuple[TensorSpec, ...]
    architectures: tuple[str, ...]
    batches: tuple[int, int, int]
    opt_level: int
    workspace_gib: float | None


@dataclass(frozen=True)
class Built:
    """A plan, and what the builder said of its memory on the device, in bytes."""

    plan: Any  # a buffer
    weight_bytes: int | None
    activation_bytes: int | None


def build(flavour: Flavour, order: Order, log: TextIO, progress: Progress) -> Built:
    """Build one plan. Ctrl-C cancels the build and is raised again once the builder has stopped.

    Args:
        log: all that TensorRT says goes there, a line for each message.

    Raises:
        BackendError: TensorRT refuses the graph, or cannot build it; with its first reason.
    """
    run = _Build(flavour, order, log, progress)
    with ThreadPoolExecutor(1) as pool:  # so that Ctrl-C reaches this thread while the other builds
        future = pool.submit(run.plan)
        try:
            plan = future.result()
        except KeyboardInterrupt:
            run.cancelled.set()
            future.exception()  # until the builder has noticed
            raise
    return Built(plan, run.memory.get("Weights"), run.memory.get("Activation"))


class _Build:
    def __init__(self, flavour: Flavour, order: Order, log: TextIO, progress: Progress) -> None:
        self.flavour, self.order, self.log = flavour, order, log
        self.errors: list[str] = []
        self.memory: dict[str, int] = {}
        self.cancelled = threading.Event()
        self.logger = _logger(flavour.trt, self.heard)
        self.monitor = _monitor(flavour.trt, order.graph, progress, self.cancelled)

    def plan(self) -> Any:
        trt, order = self.flavour.trt, self.order
        builder = trt.Builder(self.logger)
        network = builder.create_network(self.flavour.network_flags())
        parser = trt.OnnxParser(network, self.logger)
        graph = tensorrt_graph(onnx.load(order.onnx, load_external_data=False))
        if not parser.parse(graph.SerializeToString(), str(order.onnx)):
            errors = [parser.get_error(i) for i in range(parser.num_errors)]
            reasons = [f"{e.desc()} ({e.node_operator()} {e.node_name()})" for e in errors]
            raise self._error("cannot parse the graph", reasons)
        config = builder.create_builder_config()
        config.progress_monitor = self.monitor
        config.builder_optimization_level = order.opt_level
        if order.workspace_gib is not None:
            limit = int(order.workspace_gib * 2**30)
            config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, limit)
        config.add_optimization_profile(self._profile(builder))
        config.clear_flag(trt.BuilderFlag.TF32)  # float32 islands are float32
        self.flavour.target(config, order.architectures)
        self.flavour.open_timing_cache(config, order.architectures)
        plan = builder.build_serialized_network(network, config)
        if plan is None:
            raise self._error("cannot build the plan", self.errors)
        self.flavour.keep_timing_cache(config, order.architectures)
        return plan

    def heard(self, severity: Any, message: str) -> None:
        """All but the chatter goes to the log; errors and memory figures are kept."""
        kinds = self.flavour.trt.ILogger
        if severity != kinds.VERBOSE:
            # names of the graph's nodes are in it, and those are a stranger's
            text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in message)
            print(f"{self.order.graph} {severity}: {text}", file=self.log, flush=True)
        if severity in (kinds.ERROR, kinds.INTERNAL_ERROR):
            self.errors.append(message)
        if figure := re.match(r"Total (Weights|Activation) Memory: (\d+) bytes", message):
            self.memory[figure[1]] = int(figure[2])

    def _profile(self, builder: Any) -> Any:
        profile = builder.create_optimization_profile()
        for spec in self.order.inputs:
            shapes = [
                tuple(batch if size == BATCH else size for size in spec.shape)
                for batch in self.order.batches
            ]
            profile.set_shape(spec.name, *shapes)
        return profile

    def _error(self, what: str, reasons: list[str]) -> BackendError:
        if self.cancelled.is_set():
            return BackendError(f"{self.order.graph}: the build was cancelled")
        reason = reasons[0].splitlines()[0] if reasons else "no reason given"
        return BackendError(
            f"{self.order.graph}: {self.flavour.name} {self.flavour.version} {what}: {reason}"
        )


def _logger(trt: Any, heard: Callable[[Any, str], None]) -> Any:
    class Logger(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            heard(severity, message)

    return Logger()


def _monitor(trt: Any, graph: str, progress: Progress, cancelled: threading.Event) -> Any:
    """Report how far the build of a graph is, in percent, and stop it once `cancelled` is set."""
    phases = Phases()

    def show(phase: str) -> None:
        progress(graph, round(PERCENT * phases.done()), PERCENT, phase.lower())

    class Monitor(trt.IProgressMonitor):
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, name: str, parent: str | None, count: int) -> None:
            phases.start(name, parent, count)
            show(name)

        def step_complete(self, name: str, step: int) -> bool:
            phases.step(name, step + 1)
            show(name)
            return not cancelled.is_set()

        def phase_finish(self, name: str) -> None:
            phases.finish(name)
            show(name)

    return Monitor()


class Phases:
    """How far a build is, from its nested phases: each is a step of the one it lies in."""

    def __init__(self) -> None:
        self._open: dict[str, tuple[str | None, int, int]] = {}  # name: parent, steps done, steps
        self._most = 0.0

    def start(self, name: str, parent: str | None, count: int) -> None:
        self._open[name] = (parent, 0, max(1, count))

    def step(self, name: str, done: int) -> None:
        if name in self._open:
            parent, _, count = self._open[name]
            self._open[name] = (parent, done, count)

    def finish(self, name: str) -> None:
        parent, _, _ = self._open.pop(name, (None, 0, 1))
        if parent is None:
            self._most = 1.0

    def done(self) -> float:
        """From 0 to 1; never less than before."""
        roots = [name for name, (parent, _, _) in self._open.items() if parent not in self._open]
        self._most = max([self._most, *(self._fraction(root) for root in roots)])
        return self._most

    def _fraction(self, name: str) -> float:
        _, done, count = self._open[name]
        inner = [child for child, (parent, _, _) in self._open.items() if parent == name]
        within = max((self._fraction(child) for child in inner), default=0.0)
        return min(1.0, (done + within) / count)
