"""A comparison as files for continuous integration: a JSON document, and Markdown."""

from dataclasses import asdict, dataclass
from typing import Literal

from wmdeploy.benchmarks.compare.change import Change, Status
from wmdeploy.benchmarks.compare.run import ALWAYS_SHOWN, STYLES, Comparison
from wmdeploy.benchmarks.compare.table import WORDS, summary
from wmdeploy.benchmarks.render.markdown import markdown_table
from wmdeploy.benchmarks.render.tables import Cell, Table

SCHEMA = 1
HEADINGS = ("stage", "backend", "batch", "what", "old", "new", "change", "noise", "verdict")


@dataclass(frozen=True, kw_only=True)
class ChangeEntry:
    """One figure of both reports, as text; empty where it does not apply."""

    stage: str
    backend: str
    batch: int | None
    what: str
    old: str
    new: str
    change: str
    noise: str
    status: Status


@dataclass(frozen=True, kw_only=True)
class ComparisonDocument:
    """What `wmdeploy compare --json` writes.

    Attributes:
        verdict: "fail" if there is a regression.
        fail_on: the smallest slowdown or growth that fails, 0.05 for 5%.
        counts: how many changes have each status.
        changes: regressions first, unchanged figures last.
        notes: what the two reports do not share.
    """

    schema: int = SCHEMA
    verdict: Literal["pass", "fail"]
    fail_on: float
    counts: dict[Status, int]
    changes: list[ChangeEntry]
    notes: list[str]


def comparison_document(comparison: Comparison) -> ComparisonDocument:
    """All that was compared."""
    return ComparisonDocument(
        verdict=_verdict(comparison),
        fail_on=comparison.fail_on,
        counts={status: comparison.counts[status] for status in STYLES},
        changes=[_entry(change) for change in comparison.changes],
        notes=comparison.notes,
    )


def to_markdown(comparison: Comparison, everything: bool = False) -> str:
    """The verdict in the first line, then the changes; with `everything`, unchanged figures too."""
    result, rule = summary(comparison).splitlines()
    rows = [
        [Cell(text) for text in _texts(change)]
        for change in comparison.changes
        if everything or change.status in ALWAYS_SHOWN
    ]
    numeric = frozenset({"old", "new", "change", "noise"})
    table = Table(title="", headings=HEADINGS, rows=rows, numeric=numeric)
    notes = Table(title="", headings=("note",), rows=[[Cell(note)] for note in comparison.notes])
    blocks = [
        f"**wmdeploy compare: {_verdict(comparison)}**: {result}",
        *(["\n".join(markdown_table(table))] if rows else []),
        *(["\n".join(markdown_table(notes))] if comparison.notes else []),
        f"{rule[:1].upper()}{rule[1:]}.",
    ]
    return "\n\n".join(blocks) + "\n"


def _verdict(comparison: Comparison) -> Literal["pass", "fail"]:
    return "fail" if comparison.regressions else "pass"


def _entry(change: Change) -> ChangeEntry:
    fields = asdict(change)
    del fields["size"]
    return ChangeEntry(**fields)


def _texts(change: Change) -> tuple[str, ...]:
    batch = "" if change.batch is None else str(change.batch)
    figures = (change.old, change.new, change.change, change.noise)
    verdict = WORDS.get(change.status, change.status)
    return (change.stage, change.backend, batch, change.what, *figures, verdict)
