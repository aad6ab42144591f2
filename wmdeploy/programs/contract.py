"""The contract of programs: what a world model does each frame, as data.

A model is graphs, and five programs that say which graphs run when. A row is one rollout; it has

- state: named tensors that live on from frame to frame, zeros at a reset;
- a window of its newest frames: records of each (a token, a latent), and the action taken there;
- noise, which the session draws, and outputs, which are for people.

    encode    frame -> new.*               of a real frame; it sees no state, so many go at once
    absorb    new.* and state -> state     a real frame becomes part of the state
    predict   state, window -> state, new.*, out.*
    refresh   window -> state              after the window was cut, or has a frame the state lacks
    render    state, window -> frame

A program is a list of calls, run one after the other. A model whose state knows its newest frame
has `absorb`; one whose prediction first takes up the newest frame (a KV cache behind by one) has
none, and gets what its state lacks by `refresh`.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from wmdeploy.errors import WmdeployError

BATCH: Final = "B"  # the one symbolic dimension of a graph
FULL: Final = "full"  # the decoder that `Programs.render` calls

DType = Literal["uint8", "int64", "float16", "float32"]
Shape = tuple[int | Literal["B"], ...]
ProgramName = Literal["encode", "absorb", "predict", "refresh", "render"]
# of what a benchmark times besides graphs; a graph has another name
RESERVED_NAMES = frozenset({"load", "first_call", "download", "frame", "imagine", "slide"})
PROGRAMS: tuple[ProgramName, ...] = ("encode", "absorb", "predict", "refresh", "render")


@dataclass(frozen=True)
class TensorSpec:
    """One tensor. `shape` has "B" where the batch is, integers elsewhere."""

    name: str
    dtype: DType
    shape: Shape

    def __str__(self) -> str:
        return f"{self.dtype} ({', '.join(map(str, self.shape))})"

    @property
    def item_bytes(self) -> int:
        return {"uint8": 1, "int64": 8, "float16": 2, "float32": 4}[self.dtype]

    @property
    def batch_axis(self) -> int:
        return self.shape.index(BATCH)

    def sizes(self, batch: int) -> tuple[int, ...]:
        """The shape for one batch size."""
        return tuple(batch if size == BATCH else int(size) for size in self.shape)

    def bytes(self, batch: int) -> int:
        """Size of the tensor for one batch size."""
        total = self.item_bytes
        for size in self.sizes(batch):
            total *= size
        return total


@dataclass(frozen=True)
class Call:
    """One graph, run `times` times in a row.

    Attributes:
        feeds: where each input of the graph comes from.
            `frame`           a real frame (encode alone)
            `action`          taken at the newest frame; before a real frame is absorbed, that which
                              led to it
            `state.X`, `new.X`, `noise.X`
            `window.X`        a record of the newest `context` frames, oldest first, (B, S, ...);
                              `window.action` likewise. Entries from `length` on are not valid
            `newest.X`        a record of the newest frame
            `length`          how many frames the window holds, (B,) int64; `position` is one less
            `index`           which run this is, `start` at the first, (B,) int64
            `zero`            zeros
        gives: where the graph's outputs go, target to output: `state.X`, `new.X` (a record, or what
            a later call takes), `out.X`, `frame` (render alone), or `slot.X@N`: entries of the
            state X, written from where the state N counts, for a graph that gives only a cache's
            newest entries. They lie along the one axis that X has longer.
        start: the first `index`. A noise whose shape has one axis more than the input is taken at
            `index`.
    """

    graph: str
    feeds: dict[str, str]
    gives: dict[str, str]
    times: int = 1
    start: int = 0


@dataclass(frozen=True)
class Noise:
    """What one frame of one row draws, float32.

    Gumbel values are for choosing by argmax(logits + noise), which is a draw from softmax(logits)
    (Gumbel-max); uniform ones lie in (0, 1].
    """

    kind: Literal["normal", "gumbel", "uniform"]
    shape: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Programs:
    """All that a session must know of a model.

    Attributes:
        context: S, the most frames that a prediction builds on; 1 where the state says all.
        keep: of a full window and the frame behind it, so many stay: S slides by one frame, 1
            starts again from the newest frame.
        least: frames that a reset needs.
        action: of one frame, (B,) int64 or (B, n); None without actions.
        num_actions: integer actions are below it; 0 without, or where actions are floats.
        state: tensors of a row, zeros after a reset.
        records: what is kept of each frame in the window, (B, ...) each. Encode, predict and a
            refresh that predicts give them; what else encode gives as `new.X` is for absorb.
        outputs: what programs give as `out.X`; of encode, codes. Those whose name ends in `logits`
            are compared as logits: an export lets errors pass that are small beside 1, however
            small the logits are, and benchmarks give the total variation of the distributions that
            they stand for.
        renders: other decoders than the model's own, by name: what each calls in place of `render`.
        refresh_predicts: refresh does predict's work too, as a prefill does.
        undo: states to take back where a real frame replaces a prediction.
    """

    context: int
    keep: int
    least: int = 1
    action: TensorSpec | None = None
    num_actions: int = 0
    state: tuple[TensorSpec, ...] = ()
    records: tuple[TensorSpec, ...] = ()
    noise: dict[str, Noise] = field(default_factory=dict)
    outputs: tuple[TensorSpec, ...] = ()
    encode: tuple[Call, ...]
    absorb: tuple[Call, ...] = ()
    predict: tuple[Call, ...]
    refresh: tuple[Call, ...] = ()
    render: tuple[Call, ...] = ()
    renders: dict[str, tuple[Call, ...]] = field(default_factory=dict)
    refresh_predicts: bool = False
    undo: tuple[str, ...] = ()

    @property
    def action_size(self) -> int:
        """n of float actions (B, n); 0 without, or where actions are integers."""
        if self.action is None or self.action.dtype == "int64":
            return 0
        return int(self.action.shape[1])

    def decoders(self) -> tuple[str, ...]:
        """Names that `rendering` takes, the model's own decoder first."""
        return (FULL, *self.renders)

    def rendering(self, decoder: str) -> "Programs":
        """The same, with this decoder alone.

        Raises:
            WmdeployError: there is none of that name.
        """
        if decoder not in self.decoders():
            raise WmdeployError(
                f"decoder: got {decoder!r}, expected one of {', '.join(self.decoders())}"
                + ("" if self.renders else "; `wmdeploy distill` makes others")
            )
        render = self.render if decoder == FULL else self.renders[decoder]
        return replace(self, render=render, renders={})

    def program(self, name: ProgramName) -> tuple[Call, ...]:
        calls: tuple[Call, ...] = getattr(self, name)
        return calls

    def calls(self) -> Iterator[tuple[ProgramName, Call]]:
        """All calls of all programs, with the model's own decoder."""
        for name in PROGRAMS:
            for call in self.program(name):
                yield name, call

    def graphs(self) -> tuple[str, ...]:
        """Those that are called, each once, in the order of the programs."""
        return tuple(dict.fromkeys(call.graph for _, call in self.calls()))

    def steady(self, refill: int | None = None) -> tuple[Call, ...]:
        """What is called for one imagined frame once the window is full, without rendering it.

        Args:
            refill: of a session; a refresh once in a while is left out.
        """
        slides = refill is None and self.keep == self.context and self.context > 1
        if not slides or not self.refresh:
            return self.predict
        return self.refresh if self.refresh_predicts else (*self.refresh, *self.predict)

    def frame_input(self) -> tuple[str, str]:
        """The graph that takes real frames, and its input."""
        return next(
            (call.graph, name)
            for call in self.encode
            for name, source in call.feeds.items()
            if source == "frame"
        )

    def codes_output(self) -> str | None:
        """Of the graph that takes real frames, the output of their codes, if it has one."""
        graph, _ = self.frame_input()
        calls = [call for call in self.encode if call.graph == graph]
        return next((c.gives["out.codes"] for c in calls if "out.codes" in c.gives), None)


def state_inputs(programs: Programs, graph: str) -> frozenset[str]:
    """The inputs of a graph that are a row's state, in every call."""
    calls = [call for _, call in programs.calls() if call.graph == graph]
    names = {name for call in calls for name in call.feeds}
    return frozenset(
        name for name in names if all(call.feeds[name].startswith("state.") for call in calls)
    )
