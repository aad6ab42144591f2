"""`wmdeploy profile`: where the time of a frame goes, on one backend.

Each graph runs on what a rollout of real frames asks of it, without the profiler and with it, in
turns. What the nodes do not add up to is stated: what lies between them, what the profiler itself
costs, and what of a frame is in no graph.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

from wmdeploy.benchmarks.bench.machine import ceilings_of, this_machine
from wmdeploy.benchmarks.bench.options import default_context
from wmdeploy.benchmarks.bench.roofline import moved_bytes, shares, total
from wmdeploy.benchmarks.environment import Ceilings
from wmdeploy.benchmarks.profile.document import (
    SCHEMA,
    Frame,
    GraphCall,
    GraphProfile,
    Node,
    Profile,
)
from wmdeploy.benchmarks.profile.nodes import Profiler, summarise
from wmdeploy.benchmarks.profile.profilers import check_profiled, opened
from wmdeploy.benchmarks.worker.rollouts import Rollout
from wmdeploy.benchmarks.worker.timing import Workload, measure, warm_up
from wmdeploy.benchmarks.worker.workloads import (
    Feeds,
    engine_stage,
    record_feeds,
    session_stage,
)
from wmdeploy.bundle import Bundle
from wmdeploy.clips.read import read_clip
from wmdeploy.clips.source import ReadOptions
from wmdeploy.engines.base import Settings
from wmdeploy.errors import BackendError
from wmdeploy.files import real_path, sha256
from wmdeploy.leftovers import scratch_directory
from wmdeploy.manifest import MANIFEST_FILE
from wmdeploy.programs.contract import ProgramName, Programs
from wmdeploy.programs.engine import Engine
from wmdeploy.programs.session import Session
from wmdeploy.progress import Progress, silent

MOST_RUNS = 1000
SLOWED = 1.2  # times as long with the profiler: a note says so
BLOCK = 5  # runs before the other side has its turn


@dataclass(frozen=True, kw_only=True)
class ProfileOptions:
    """`graphs`: those whose nodes are timed, none for all; `runs`: of each graph, on each side."""

    bundle: Path
    clip: Path
    backend: str = "ort-cpu"
    graphs: tuple[str, ...] = ()
    runs: int = 30
    settings: Settings = Settings()
    read: ReadOptions = ReadOptions()


def profile(options: ProfileOptions, progress: Progress = silent) -> Profile:
    """Time a frame, its graphs, and their nodes.

    Raises:
        BackendError: the backend has no profiler or cannot run, there is no such graph, or the
            number of runs is out of range.
        MissingError: this machine lacks something that the backend needs.
        BundleError, ClipError: the bundle or the clip cannot be used.
    """
    check_profiled(options.backend)
    if not 1 <= options.runs <= MOST_RUNS:
        raise BackendError(f"runs: got {options.runs}, expected 1 to {MOST_RUNS}")
    machine = this_machine()
    whole = Bundle.open(options.bundle)
    bundle = whole.with_decoder(options.settings.decoder)
    manifest = bundle.manifest
    progress("load", 0, 1, options.backend)
    with opened(options.backend, whole, options.settings) as profiler:
        backend = profiler.backend
        wanted = _wanted(options, backend.programs)
        rollout, remarks = _rollout(options, profiler)
        notes = [*remarks, *profiler.notes]
        feeds = record_feeds(backend, rollout)
        notes += [f"{name}: no step of the rollout runs it" for name in wanted if name not in feeds]
        stage, frame = _frame_stage(rollout)
        turns = _Turns(profiler, feeds, frame, [])
        ceilings = _ceilings(backend.device, options.settings.tf32, notes, progress)
        graphs = {}
        for number, name in enumerate(feeds):
            progress("graphs", number, len(feeds), name)
            time_graph = turns.with_nodes if name in wanted else turns.plainly
            timed = time_graph(name, options.runs)
            graphs[name] = _with_floors(timed, name, bundle, ceilings, backend.precision)
        notes += _slowed(graphs)
        calls = _calls(backend.programs, frame_programs(backend.programs))
        return Profile(
            schema=SCHEMA,
            bundle=real_path(bundle.path).name,
            manifest_sha256=sha256(bundle.path / MANIFEST_FILE),
            backend=backend.name,
            precision=backend.precision,
            layout=manifest.recipe.layout,
            device=backend.device,
            threads=backend.threads,
            runs=options.runs,
            clip=options.clip.name,
            machine=machine,
            ceilings=ceilings,
            frame=Frame(stage=stage, wall_ms=turns.frame_ms, calls=calls),
            others=[
                call
                for call in _calls(backend.programs, ("encode", "absorb", "refresh", "predict"))
                if call.graph in graphs
                and (call.graph, call.times) not in [(c.graph, c.times) for c in calls]
            ],
            graphs=graphs,
            notes=notes,
        )


def frame_programs(programs: Programs) -> tuple[ProgramName, ...]:
    """The programs that run for a frame once the window is full, its picture included."""
    steady = programs.steady()
    if steady == programs.predict:
        return ("predict", "render")
    return ("refresh", "render") if steady == programs.refresh else ("refresh", "predict", "render")


def _calls(programs: Programs, names: tuple[ProgramName, ...]) -> list[GraphCall]:
    return [
        GraphCall(name, call.graph, call.times) for name in names for call in programs.program(name)
    ]


def _wanted(options: ProfileOptions, programs: Programs) -> tuple[str, ...]:
    """The graphs whose nodes are timed.

    Raises:
        BackendError: the backend runs no such graph.
    """
    have = programs.graphs()
    for name in options.graphs:
        if name not in have:
            raise BackendError(f"graph: got {name!r}, expected one of {', '.join(have)}")
    return options.graphs or have


def _rollout(options: ProfileOptions, profiler: Profiler) -> tuple[Rollout, list[str]]:
    """A session on the clip, and the clip's notes."""
    backend = profiler.backend
    programs = backend.programs
    context = default_context(programs)
    clip = read_clip(
        options.clip, size=backend.image_size, count=context, fewest=context, options=options.read
    )
    actions = clip.check_actions(programs.num_actions, programs.action_size)
    rollout = Rollout(Session(backend), clip.frames, actions, context)
    return rollout, list(clip.remarks)


def _frame_stage(rollout: Rollout) -> tuple[str, Workload]:
    """A frame of a session, warm, and its stage of bench; of a model that renders none, a step."""
    name = "frame" if rollout.session.programs.render else "slide"
    stage = session_stage(rollout, name)
    warm_up(lambda: measure(stage, 1).wall[0])
    return name, stage


def _ceilings(device: str, tf32: bool, notes: list[str], progress: Progress) -> Ceilings | None:
    from importlib.util import find_spec

    if find_spec("torch") is None:
        notes.append("no floors: torch is not installed, which measures what the machine can do")
        return None
    return ceilings_of([device], tf32, progress)[device]


@dataclass
class _Turns:
    """A graph plainly and a frame of a session take turns, and the graph with the profiler too.

    `frame_ms` gets a run of the frame for each block of the graph's.
    """

    profiler: Profiler
    feeds: Feeds
    frame: Workload
    frame_ms: list[float]

    def plainly(self, name: str, runs: int) -> GraphProfile:
        """A graph whose nodes nobody asked for."""
        plain = self._stage(name)
        wall: list[float] = []
        for block in _blocks(runs):
            self.frame_ms += _timed(self.frame, 1)
            wall += _timed(plain, block)
        return GraphProfile(wall_ms=wall)

    def with_nodes(self, name: str, runs: int) -> GraphProfile:
        """A graph and its nodes.

        Raises:
            BackendError: the profiler did not see every run.
        """
        plain = self._stage(name)
        wall: list[float] = []
        profiled: list[float] = []
        counted: list[int] = []  # which of the runs that the profiler saw
        with scratch_directory("wmdeploy-profile-") as folder:
            graph = self.profiler.open(name, folder)
            with graph.block():
                noted, count = self._noted(name, graph.engine)
            for block in _blocks(runs):
                self.frame_ms += _timed(self.frame, 1)
                wall += _timed(plain, block)
                with graph.block():
                    profiled += _timed(noted, block)
                counted += range(count + 1, count + 1 + block)
                count += 1 + block
            seen = graph.end()
            graph.engine.close()
        if len(seen) < count:
            raise BackendError(
                f"{name}: the profiler saw {len(seen)} of {count} runs; ask for fewer runs"
            )
        first = len(seen) - count  # what an engine runs besides, where it is bound to addresses
        shown = [seen[first + at] for at in counted]
        typical = int(np.argmin(np.abs(np.array(profiled) - median(profiled))))
        return GraphProfile(
            wall_ms=wall,
            profiled_ms=profiled,
            between_ms=[
                ms - sum(node.ms for node in run) for ms, run in zip(profiled, shown, strict=True)
            ],
            nodes=summarise(shown, typical),
        )

    def _stage(self, name: str) -> Workload:
        """A graph on the backend's own engine, warm."""
        stage = engine_stage(self.profiler.backend, self.feeds, name)
        warm_up(lambda: measure(stage, 1).wall[0])
        return stage

    def _noted(self, name: str, engine: Engine) -> tuple[Workload, int]:
        """A graph on an engine that is profiled, warm, and how many runs that took."""
        backend = self.profiler.backend
        engines = {**backend.engines, name: engine}
        stage = engine_stage(dataclasses.replace(backend, engines=engines), self.feeds, name)
        return stage, len(warm_up(lambda: measure(stage, 1).wall[0]))


def _blocks(runs: int) -> Iterator[int]:
    """Sizes of blocks that add up to the runs."""
    for start in range(0, runs, BLOCK):
        yield min(BLOCK, runs - start)


def _timed(stage: Workload, runs: int) -> list[float]:
    """The ms of some runs, after one that finds in the caches what the other side left."""
    measure(stage, 1)
    return measure(stage, runs).wall


def _slowed(graphs: Mapping[str, GraphProfile]) -> Iterator[str]:
    """A note for each graph that the profiler makes much slower."""
    for name, graph in graphs.items():
        times = median(graph.profiled_ms) / graph.ms if graph.nodes else 1.0
        if times > SLOWED:
            yield (
                f"{name}: takes {times:.1f} times as long with the profiler, and much of the time "
                "of its small nodes is the profiler's"
            )


def _with_floors(
    timed: GraphProfile, name: str, bundle: Bundle, ceilings: Ceilings | None, precision: str
) -> GraphProfile:
    """With what the bundle's graph of this name costs, and the least that it and its nodes take."""
    record = bundle.manifest.graphs.get(name)
    if record is None:
        return timed
    moved = moved_bytes(record, 1)
    timed = dataclasses.replace(timed, operations=record.flops, bytes=moved)
    if ceilings is None:
        return timed

    def with_floor(node: Node) -> Node:
        if node.bytes is None or node.operations is None:
            return node
        floor = total([shares(node.bytes, node.operations, ceilings, precision)])
        return dataclasses.replace(node, floor_ms=floor.ms)

    floor = total([shares(moved, record.flops, ceilings, precision)])
    return dataclasses.replace(
        timed,
        floor_ms=floor.ms,
        bound=floor.bound,
        nodes=[with_floor(node) for node in timed.nodes],
    )
