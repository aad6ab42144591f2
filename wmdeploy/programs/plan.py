"""Programs made ready to run: each call with its engine, and every name taken apart."""

from collections.abc import Sequence
from dataclasses import dataclass

from wmdeploy.programs.check import slot_axis
from wmdeploy.programs.contract import BATCH, Call, ProgramName, Programs, TensorSpec
from wmdeploy.programs.engine import Backend, Engine


@dataclass(frozen=True)
class Feed:
    """Where one input comes from: "state.keys" is kind "state", name "keys"."""

    input: TensorSpec
    kind: str
    name: str
    whole: bool = True  # of a noise: all of it, not the entry `index`


@dataclass(frozen=True, kw_only=True)
class Give:
    """Where one output goes; `key` is the name of a row's own array ("state.keys")."""

    output: str
    kind: str
    name: str
    key: str
    again: bool = False  # whether the same output has gone elsewhere before
    counter: str = ""  # of a slot: the key of the state that counts
    axis: int = 0  # of a slot: where entries lie; batch_axis: where rows do
    batch_axis: int = 0


@dataclass(frozen=True, kw_only=True)
class PlannedCall:
    graph: str
    engine: Engine
    feeds: tuple[Feed, ...]
    gives: tuple[Give, ...]
    runs: range
    into: tuple[tuple[str, str], ...]  # (output, key) of what a row keeps


@dataclass(frozen=True)
class Plan:
    """One program.

    `read` are a row's own arrays that it reads before it writes them; `needed` those that must be
    there before it runs: these, and those that it never writes.
    """

    calls: tuple[PlannedCall, ...]
    read: frozenset[str]
    needed: frozenset[str]


def row_arrays(programs: Programs) -> tuple[TensorSpec, ...]:
    """A row's own arrays: its state, what can be taken back of it, its newest outputs."""
    state = {spec.name: spec for spec in programs.state}
    given = {t for name, call in programs.calls() if name != "encode" for t in call.gives}
    parts = [("state", spec) for spec in programs.state]
    parts += [("undo", state[name]) for name in programs.undo]
    parts += [("out", spec) for spec in programs.outputs if f"out.{spec.name}" in given]
    return tuple(TensorSpec(f"{kind}.{s.name}", s.dtype, s.shape) for kind, s in parts)


def plan_program(backend: Backend, name: ProgramName) -> Plan:
    """A program of a backend, ready to run."""
    programs = backend.programs
    calls = tuple(_planned(backend, call) for call in programs.program(name))
    owned = {spec.name for spec in row_arrays(programs)}
    read: set[str] = set()
    written: set[str] = set()
    for call in calls:
        read |= {f"state.{f.name}" for f in call.feeds if f.kind == "state"} - written
        for give in call.gives:
            if give.kind == "slot":
                read |= {give.key, give.counter} - written
            elif give.key in owned:
                written.add(give.key)
    if name == "predict" or programs.refresh_predicts and name == "refresh":
        # what a real frame may take back is kept first
        read |= {f"state.{state}" for state in programs.undo}
        written |= {f"undo.{state}" for state in programs.undo}
    return Plan(calls, frozenset(read), frozenset(read | (owned - written)))


def _planned(backend: Backend, call: Call) -> PlannedCall:
    engine = backend.engines[call.graph]
    inputs = {spec.name: spec for spec in engine.inputs}
    outputs = {spec.name: spec for spec in engine.outputs}
    feeds = [_feed(backend.programs, inputs[name], s) for name, s in call.feeds.items()]
    gives: list[Give] = []
    for target, name in call.gives.items():
        again = any(give.output == name for give in gives)
        gives.append(_give(backend.programs, target, outputs[name], again))
    kept = {g.output: g.key for g in gives if g.kind in ("state", "out") and not g.again}
    return PlannedCall(
        graph=call.graph,
        engine=engine,
        feeds=tuple(feeds),
        gives=tuple(gives),
        runs=range(call.start, call.start + call.times),
        into=tuple(kept.items()),
    )


def _feed(programs: Programs, spec: TensorSpec, source: str) -> Feed:
    kind, _, name = source.partition(".")
    if source == "action":
        kind, name = "newest", "action"
    if kind == "noise":
        shape: Sequence[int] = programs.noise[name].shape
        return Feed(spec, kind, name, whole=len(spec.shape) == len(shape) + 1)
    return Feed(spec, kind, name)


def _give(programs: Programs, target: str, output: TensorSpec, again: bool) -> Give:
    kind, _, name = target.partition(".")
    if kind != "slot":
        name = name or kind  # the frame has no other name
        return Give(output=output.name, kind=kind, name=name, key=target, again=again)
    name, _, counter = name.partition("@")
    state = {spec.name: spec for spec in programs.state}
    axis = slot_axis(state[name], output)
    assert axis is not None and state[name].shape[axis] != BATCH, "the manifest was checked"
    return Give(
        output=output.name,
        kind=kind,
        name=name,
        key=f"state.{name}",
        counter=f"state.{counter}",
        axis=axis,
        batch_axis=state[name].batch_axis,
    )
