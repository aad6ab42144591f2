"""Whether programs make sense: a manifest is a stranger's, and so are its programs.

Every input of a graph has a source of its shape and type, every target is declared, and what a
session will allocate for a row is bounded before anything is allocated.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Protocol

from wmdeploy.programs.contract import BATCH, FULL, Call, ProgramName, Programs, TensorSpec

LARGEST_ROW = 2**32  # bytes of state, window and noise of one row
MOST_FRAMES = 2**16  # of a window
MOST_RUNS = 2**16  # of graphs, for one frame
MOST_ACTIONS = 2**31
NAME = "[A-Za-z0-9_]{1,60}"
DECODER = "[a-z0-9-]{1,40}"
COUNT = TensorSpec("count", "int64", (BATCH,))
COUNTERS = ("length", "position", "index")
FLOATS = ("float16", "float32")
# what a program may read besides constants, and what it may give
SOURCES: dict[ProgramName, tuple[str, ...]] = {
    "encode": ("frame", "new"),
    "absorb": ("state", "window", "newest", "new", "noise", "action"),
    "predict": ("state", "window", "newest", "new", "noise", "action"),
    "refresh": ("state", "window", "newest", "new", "noise", "action"),
    "render": ("state", "window", "newest", "new"),
}
TARGETS: dict[ProgramName, tuple[str, ...]] = {
    "encode": ("new", "out"),
    "absorb": ("state", "new", "out", "slot"),
    "predict": ("state", "new", "out", "slot"),
    "refresh": ("state", "new", "out", "slot"),
    "render": ("new", "frame"),
}


class Signature(Protocol):
    """The tensors of a graph."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]: ...

    @property
    def outputs(self) -> tuple[TensorSpec, ...]: ...


def find_fault(programs: Programs, graphs: Mapping[str, Signature]) -> str | None:
    """What is wrong with programs: a session could not run them, or they ask for too much.

    Args:
        graphs: by name.

    Returns:
        The first fault, in words; None if there is none.
    """
    try:
        _check_sizes(programs)
        encoded = _Checker(programs, graphs, "encode", {}).check()
        _Checker(programs, graphs, "absorb", encoded).check()
        for name in ("predict", "refresh", "render"):
            _Checker(programs, graphs, name, {}).check()
        called = set(programs.graphs())
        for decoder in programs.renders:
            other = programs.rendering(decoder)
            _check_sizes(other)
            _Checker(other, graphs, "render", {}).check()
            if not other.render or not re.fullmatch(DECODER, decoder) or decoder == FULL:
                raise _Wrong(f"the decoder {decoder[:40]!r}, expected a name, and calls")
            called |= set(other.graphs())
        if unused := sorted(graphs.keys() - called):
            raise _Wrong(f'no program calls the graph "{unused[0]}"')
    except _Wrong as wrong:
        return str(wrong)
    return None


class _Wrong(Exception):
    """What is wrong, in words."""


def _check_sizes(programs: Programs) -> None:
    context, keep = programs.context, programs.keep
    if not 1 <= context <= MOST_FRAMES:
        raise _Wrong(f"a context of {context} frames, expected 1 to {MOST_FRAMES}")
    if not 1 <= keep <= context or not 1 <= programs.least <= context:
        raise _Wrong(f"keep {keep} and least {programs.least}, expected 1 to the context {context}")
    if not 0 <= programs.num_actions <= MOST_ACTIONS:
        raise _Wrong(f"{programs.num_actions} actions")
    action = programs.action
    if action is not None:
        if action.dtype == "int64":
            if programs.num_actions < 1:
                raise _Wrong("integer actions without a number of actions")
        elif action.dtype not in FLOATS or programs.num_actions or len(action.shape) != 2:
            raise _Wrong(f"actions of {action}")
    elif programs.num_actions:
        raise _Wrong("a number of actions without an action")
    for kind, specs in (
        ("state", programs.state),
        ("record", programs.records),
        ("output", programs.outputs),
    ):
        names = [spec.name for spec in specs]
        if len(set(names)) < len(names):
            raise _Wrong(f"a {kind} that is there twice")
        for spec in specs:
            if spec.shape.count(BATCH) != 1 or (kind != "state" and spec.shape[0] != BATCH):
                raise _Wrong(f'the {kind} "{spec.name}" of shape {spec.shape}')
    named = [s.name for s in (*programs.state, *programs.records, *programs.outputs)]
    for name in (*named, *programs.noise):
        if not re.fullmatch(NAME, name) or name == "action":
            raise _Wrong(f"the name {name[:40]!r}, expected letters, digits and underscores")
    if action is not None and (action.shape.count(BATCH) != 1 or action.shape[0] != BATCH):
        raise _Wrong(f"actions of shape {action.shape}")
    undone = [spec for spec in programs.state if spec.name in programs.undo]
    kept = [*programs.state, *undone, *programs.outputs]
    windows = [*programs.records, *([action] if action is not None else [])]
    sizes = [int(n) for spec in (*kept, *windows) for n in spec.shape if n != BATCH] + [
        n for noise in programs.noise.values() for n in noise.shape
    ]
    if min(sizes, default=1) < 1:
        raise _Wrong("sizes that no tensor has")
    total = sum(spec.bytes(1) for spec in kept)
    total += (context + 1) * sum(spec.bytes(1) for spec in windows)
    total += sum(8 * math.prod(noise.shape) for noise in programs.noise.values())
    if total > LARGEST_ROW:
        raise _Wrong(f"{total:,} bytes for each row, expected at most {LARGEST_ROW:,}")
    runs = sum(max(call.times, 0) for _, call in programs.calls())
    if runs > MOST_RUNS or any(
        call.times < 1 or not 0 <= call.start <= MOST_RUNS for _, call in programs.calls()
    ):
        raise _Wrong(f"{runs} runs of graphs, expected 1 to {MOST_RUNS}")
    if programs.refresh_predicts and (programs.absorb or not programs.refresh):
        raise _Wrong("a refresh that predicts, where frames are absorbed or nothing refreshes")
    if len(set(programs.undo)) < len(programs.undo):
        raise _Wrong("undo names a state twice")
    if unknown := sorted(set(programs.undo) - {spec.name for spec in programs.state}):
        raise _Wrong(f'undo names "{unknown[0]}", which is no state')


class _Checker:
    """One program, call by call.

    Args:
        new: what is there before it: of a real frame, what encoding gave.
    """

    def __init__(
        self,
        programs: Programs,
        graphs: Mapping[str, Signature],
        name: ProgramName,
        new: Mapping[str, TensorSpec],
    ) -> None:
        self._programs, self._graphs, self._name = programs, graphs, name
        self._state = {spec.name: spec for spec in programs.state}
        self._outputs = {spec.name: spec for spec in programs.outputs}
        self._records = {spec.name: spec for spec in programs.records}
        self._new = dict(new)
        self._given: set[str] = set()

    def check(self) -> dict[str, TensorSpec]:
        """What it gives as `new.X`."""
        calls = self._programs.program(self._name)
        for call in calls:
            self._check_call(call)
        if self._name in ("encode", "predict") and not calls:
            raise _Wrong(f"no program {self._name}")
        if self._name == "encode" and not any("frame" in c.feeds.values() for c in calls):
            raise _Wrong("encode takes no frame")
        if self._name == "render" and calls and "frame" not in self._given:
            raise _Wrong("render gives no frame")
        predicts = self._name == "predict" or (
            self._name == "refresh" and calls and self._programs.refresh_predicts
        )
        if self._name == "encode" or predicts:
            for name in self._records:
                if f"new.{name}" not in self._given:
                    raise _Wrong(f'{self._name} gives no "new.{name}"')
        return self._new

    def _check_call(self, call: Call) -> None:
        graph = self._graphs.get(call.graph)
        if graph is None:
            raise _Wrong(f'{self._name} calls "{call.graph}", and there is no such graph')
        if not graph.inputs or not graph.outputs:
            raise _Wrong(f"the graph {call.graph} has no inputs, or no outputs")
        inputs = {spec.name: spec for spec in graph.inputs}
        if odd := sorted(inputs.keys() ^ call.feeds.keys()):
            fault = "is fed by nothing" if odd[0] in inputs else "is no input of the graph"
            raise _Wrong(f'{self._name}: {call.graph}."{odd[0]}" {fault}')
        for name, source in call.feeds.items():
            spec = self._source(source, inputs[name], call)
            if not _alike(spec, inputs[name]):
                raise _Wrong(
                    f"{self._name}: {call.graph}.{name} is {inputs[name]}, and {source} is {spec}"
                )
        outputs = {spec.name: spec for spec in graph.outputs}
        for target, name in call.gives.items():
            if name not in outputs:
                raise _Wrong(f'{self._name}: "{name}" is no output of the graph {call.graph}')
            self._check_target(target, outputs[name], call)
            self._given.add(target)

    def _source(self, source: str, wanted: TensorSpec, call: Call) -> TensorSpec:
        """What a source gives."""
        kind, _, name = source.partition(".")
        programs = self._programs
        if source == "index" or (source in COUNTERS and self._name != "encode"):
            return COUNT
        if source == "zero":
            return wanted
        if kind in SOURCES[self._name]:
            if source == "frame":
                shape = wanted.shape
                side = shape[1] if len(shape) == 4 else 0
                return TensorSpec("frame", "uint8", (BATCH, side, side, 3))
            found: TensorSpec | None = None
            action = programs.action
            if source == "action" or name == "action":
                found = action if source == "action" or kind in ("newest", "window") else None
            elif kind in ("window", "newest"):
                found = self._records.get(name)
            elif kind == "state":
                found = self._state.get(name)
            elif kind == "new":
                found = self._new.get(name)
            elif kind == "noise" and name in programs.noise:
                return self._noise(name, wanted, call)
            if found is not None and kind == "window":
                return TensorSpec(name, found.dtype, (BATCH, programs.context, *found.shape[1:]))
            if found is not None:
                return found
        raise _Wrong(f'{self._name}: {call.graph} is fed from "{source}", which there is not')

    def _noise(self, name: str, wanted: TensorSpec, call: Call) -> TensorSpec:
        """A whole noise, or that of one index."""
        shape: Sequence[int] = self._programs.noise[name].shape
        if len(wanted.shape) == len(shape):
            if not shape or call.start + call.times > shape[0]:
                raise _Wrong(f"{self._name}: noise.{name} {tuple(shape)} has too few entries")
            shape = shape[1:]
        return TensorSpec(name, "float32", (BATCH, *shape))

    def _check_target(self, target: str, spec: TensorSpec, call: Call) -> None:
        kind, _, name = target.partition(".")
        whole = target == "frame" if kind == "frame" else re.fullmatch(f"{NAME}(@{NAME})?", name)
        if kind not in TARGETS[self._name] or not whole or target == "new.frame":
            raise _Wrong(f'{self._name}: {call.graph} gives "{target}", which is no target there')
        expected: TensorSpec | None
        if kind == "frame":
            side = spec.shape[1] if len(spec.shape) == 4 else 0
            expected = TensorSpec("frame", "uint8", (BATCH, side, side, 3))
        elif kind == "new":
            expected = self._records.get(name) or self._new.setdefault(name, spec)
            self._new[name] = spec
            if self._name == "encode" and spec.shape[0] != BATCH:
                raise _Wrong(f"encode: {target} is {spec}, expected the batch axis first")
        elif kind == "out":
            expected = self._outputs.get(name)
        elif kind == "slot":
            name, _, counter = name.partition("@")
            expected = self._state.get(name)
            if expected is None or not _alike(self._state.get(counter, spec), COUNT):
                raise _Wrong(f'{self._name}: "{target}" names no state, or no counter')
            if slot_axis(expected, spec) is None or spec.dtype != expected.dtype:
                raise _Wrong(f"{self._name}: {target} is {expected}, and its entries {spec}")
            return
        else:
            expected = self._state.get(name)
        if expected is None:
            raise _Wrong(f'{self._name}: {call.graph} gives "{target}", which nothing declares')
        if not _alike(spec, expected):
            raise _Wrong(f"{self._name}: {target} is {expected}, {call.graph} gives {spec}")


def _alike(a: TensorSpec, b: TensorSpec) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype


def slot_axis(whole: TensorSpec, entries: TensorSpec) -> int | None:
    """The one axis along which a cache is longer than some entries of it; None: it has none."""
    if len(whole.shape) != len(entries.shape):
        return None
    pairs = list(zip(whole.shape, entries.shape, strict=True))
    axes = [axis for axis, (a, b) in enumerate(pairs) if a != b]
    if len(axes) != 1:
        return None
    size, count = pairs[axes[0]]
    fits = size != BATCH and count != BATCH and 1 <= count < size
    return axes[0] if fits else None
