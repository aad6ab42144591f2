"""The stages of a benchmark, in the order of a report: what each one is."""

from dataclasses import dataclass
from typing import Literal

StageName = Literal[
    "load", "first_call", "encode", "prefill", "step", "decode", "download", "frame", "imagine",
    "slide",
]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One row of the table.

    Attributes:
        graph: the graph that the stage runs by itself; None: it runs none, or several.
        session: a step of a session.
        once: happens once a run, so that its time has no spread.
        frames: one run makes or takes one frame of each session.
        batched: also timed for several sessions together.
        errors: its output has errors of its own; other stages repeat those of `frame`.
        summary: belongs into a summary.
    """

    name: StageName
    graph: str | None = None
    session: bool = False
    once: bool = False
    frames: bool = True
    batched: bool = False
    errors: bool = False
    summary: bool = True


STAGES: dict[StageName, Stage] = {
    stage.name: stage
    for stage in (
        Stage(name="load", once=True, frames=False, summary=False),
        Stage(name="first_call", once=True, frames=False, summary=False),
        Stage(name="encode", graph="encoder", errors=True),
        Stage(name="prefill", graph="prefill", frames=False, errors=True),
        Stage(name="step", graph="step", errors=True),
        Stage(name="decode", graph="decoder", errors=True),
        Stage(name="download", frames=False, summary=False),
        Stage(name="frame", session=True, batched=True, errors=True),
        Stage(name="imagine", session=True, batched=True),
        Stage(name="slide", session=True),
    )
}
# of each graph that a stage runs by itself
GRAPH_STAGES = {stage.name: stage.graph for stage in STAGES.values() if stage.graph is not None}
