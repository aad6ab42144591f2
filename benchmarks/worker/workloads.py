"""What is timed in a worker: each engine alone, and whole steps of a session."""

from collections.abc import Callable, Mapping, Sequence

from wmdeploy.benchmarks.stages import StageName, stages_of
from wmdeploy.benchmarks.worker.rollouts import Rollout
from wmdeploy.benchmarks.worker.timing import Workload
from wmdeploy.manifest import Manifest
from wmdeploy.programs.arrays import Array
from wmdeploy.programs.contract import Call, Programs
from wmdeploy.programs.engine import Backend
from wmdeploy.programs.record import recording
from wmdeploy.programs.session import Session

Feeds = dict[str, dict[str, Array]]


def stage_names(backend: Backend, manifest: Manifest) -> list[StageName]:
    """What a backend has at batch 1."""
    return [
        stage.name
        for stage in stages_of(manifest.graphs).values()
        if (stage.session and (stage.name != "slide" or backend.programs.context > 1))
        or (stage.graph and graph_behind(stage.graph, backend.programs, manifest.programs))
        or (stage.name == "download" and backend.on_gpu)
    ]


def graph_behind(name: str, own: Programs, bundled: Programs) -> str | None:
    """The graph of a backend that does what the bundle's graph of this name does; None: none.

    The baseline has graphs of its own. Where it and the bundle each predict a frame by one run of
    one graph, these do the same; and so where each renders by one, as a student and the full
    decoder do.
    """
    if name in own.graphs():
        return name
    if _alone(bundled.predict) == name:
        return _alone(own.predict)
    return _alone(own.render) if _alone(bundled.render) == name else None


def _alone(calls: Sequence[Call]) -> str | None:
    """The graph one run of which is a whole program, if there is one."""
    return calls[0].graph if len(calls) == 1 and calls[0].times == 1 else None


def record_feeds(backend: Backend, rollout: Rollout) -> Feeds:
    """By graph, what one row with a full window asks of it.

    Of graphs that refresh alone, that is when the window slides; of others, at its last slot.

    Args:
        rollout: on the clip; it stays where it is.
    """
    asked: Feeds = {}

    def note(name: str, feeds: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
        asked[name] = dict(feeds)

    session = Session(recording(backend, note))
    there = Rollout(session, rollout.frames, rollout.actions, rollout.context)
    there.nearly_full()
    there.advance()
    there.step()
    session.observe(rollout.frames[-1])
    programs, at_last_slot = backend.programs, dict(asked)
    there.step()
    others = {call.graph for name, call in programs.calls() if name != "refresh"}
    return asked | {name: feeds for name, feeds in at_last_slot.items() if name in others}


def engine_stage(backend: Backend, feeds: Feeds, graph: str) -> Workload:
    """An engine at batch 1."""
    run = running(backend, graph, feeds[graph])
    return Workload(run, backend.engines[graph].synchronize, on_gpu=backend.on_gpu)


def download_stage(backend: Backend, feeds: Feeds) -> Workload:
    """The way of a frame to the host."""
    call = next(call for call in backend.programs.render if "frame" in call.gives)
    engine = backend.engines[call.graph]
    pixels = engine.run(feeds[call.graph])[call.gives["frame"]]
    return Workload(lambda: backend.arrays.host(pixels), engine.synchronize, on_gpu=backend.on_gpu)


def running(backend: Backend, graph: str, feeds: Mapping[str, Array]) -> Callable[[], object]:
    """One run after another; the state that a run gives is the next one's, as in a rollout.

    An engine that is bound to addresses writes it to a second set of arrays, which takes turns with
    the first.
    """
    engine, held, back = backend.engines[graph], dict(feeds), fed_back(backend.programs, graph)
    other: dict[str, Array] = {}
    if backend.memory is not None:
        with backend.arrays.scope():
            held |= {name: backend.arrays.copy(held[name]) for name in back}
            other = {name: backend.arrays.copy(held[name]) for name in back}

    def run() -> None:
        into = {back[name]: array for name, array in other.items()}
        outputs = engine.run(held, into)
        for name, output in back.items():
            if name in other:
                other[name] = held[name]
            held[name] = outputs[output]

    return run


def fed_back(programs: Programs, graph: str) -> dict[str, str]:
    """The inputs of a graph that are a state which it gives too, and those outputs.

    But for integers: what counts would run past the window.
    """
    floats = {f"state.{spec.name}" for spec in programs.state if spec.dtype.startswith("float")}
    return {
        name: call.gives[source]
        for _, call in programs.calls()
        for name, source in call.feeds.items()
        if call.graph == graph and source in floats & call.gives.keys()
    }


def session_stage(rollout: Rollout, name: StageName) -> Workload:
    """A step of a session whose window is full; `imagine` is the last one before it slides.

    Where no window slides, each is a step like any other.
    """
    session = rollout.session
    before = rollout.nearly_full()
    on_gpu = session.backend.on_gpu
    if name == "imagine":

        def go_to_last_slot() -> None:
            """With a step before the timed one: that one's cache is already in its place."""
            session.restore(before)
            rollout.advance()

        return Workload(rollout.advance, session.synchronize, go_to_last_slot, on_gpu)
    rollout.advance()
    rollout.advance()  # the window is full now, and the next step makes it slide
    run: Callable[[], object] = rollout.step if name == "frame" else rollout.advance
    return Workload(run, session.synchronize, on_gpu=on_gpu)
