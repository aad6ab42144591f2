"""The stages of a benchmark: those that every bundle has, and one for each of its graphs.

A graph's stage has the graph's name. `frame`, `imagine` and `slide` are what programs do for a
frame: with its picture, without, and where the window is full and slides.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from wmdeploy.programs.contract import RESERVED_NAMES

StageName = str


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One row of the table.

    Attributes:
        graph: the graph that the stage runs by itself; None: it runs none, or several.
        session: a step of a session.
        once: happens once a run, so that its time has no spread.
        frames: one run makes or takes one frame of each session; a graph's may take part of one.
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


_BEFORE = (
    Stage(name="load", once=True, frames=False, summary=False),
    Stage(name="first_call", once=True, frames=False, summary=False),
)
_BEHIND = (
    Stage(name="download", frames=False, summary=False),
    Stage(name="frame", session=True, batched=True, errors=True),
    Stage(name="imagine", session=True, batched=True),
    Stage(name="slide", session=True),
)
# of every bundle
COMMON = {stage.name: stage for stage in (*_BEFORE, *_BEHIND)}
assert RESERVED_NAMES == frozenset(COMMON), "no graph may have the name of a stage"


def find_stage(name: StageName) -> Stage:
    """A stage that every bundle has, or that of the graph of this name."""
    return COMMON.get(name) or Stage(name=name, graph=name, errors=True)


def stages_of(graphs: Iterable[str]) -> dict[StageName, Stage]:
    """All stages of a bundle with these graphs, in the order of a report."""
    own = (find_stage(name) for name in graphs)
    return {stage.name: stage for stage in (*_BEFORE, *own, *_BEHIND)}
