"""`wmdeploy compare`: what got slower, larger or less exact between two reports, beyond the noise.

    old, new = read_json(Path("main.json")), read_json(Path("branch.json"))
    comparison = compare(old, new, fail_on=0.05)
    comparison.regressions  # what is worse, the worst first

Speed is compared beside the baseline of the same run, so that what slows a whole machine down
cancels. It does not know why something changed.
"""

import math
from collections import Counter
from dataclasses import dataclass

from wmdeploy.benchmarks.compare.change import (
    LEAST_MEMORY,
    Change,
    Status,
    memory_changes,
    speed_changes,
)
from wmdeploy.benchmarks.compare.compatibility import check_comparable
from wmdeploy.benchmarks.compare.parity import parity_changes
from wmdeploy.benchmarks.report import Key, Report, Row, rows_by_key

STYLES: dict[Status, str] = {  # in the order of the table
    "regression": "bold red",
    "improvement": "green",
    "unclear": "yellow",
    "information": "",
    "unchanged": "dim",
}
ALWAYS_SHOWN: tuple[Status, ...] = ("regression", "improvement", "unclear")


@dataclass(frozen=True)
class Comparison:
    """All changes, regressions first; `notes` are lines on what the reports do not share."""

    changes: list[Change]
    notes: list[str]
    fail_on: float

    @property
    def regressions(self) -> list[Change]:
        return [change for change in self.changes if change.status == "regression"]

    @property
    def counts(self) -> Counter[Status]:
        return Counter(change.status for change in self.changes)


def compare(old: Report, new: Report, fail_on: float = 0.05) -> Comparison:
    """Compare all that both reports measured.

    Args:
        fail_on: the smallest slowdown or growth that counts, 0.05 for 5%.

    Raises:
        WmdeployError: the reports measured different things.
    """
    common = check_comparable(old, new)
    same = common.same_hardware
    before, after = rows_by_key(old), rows_by_key(new)
    changes = [
        *_presence(before, after, same),
        *speed_changes(before, after, old.baseline, fail_on, same),
        *memory_changes(before, after, old.baseline, max(fail_on, LEAST_MEMORY), same),
        *parity_changes(old, new, before, after, same),
    ]
    order = list(STYLES)
    shown = {status: order.index(status) < len(ALWAYS_SHOWN) for status in order}
    changes.sort(key=lambda c: (order.index(c.status), -c.size if shown[c.status] else 0.0))
    return Comparison(changes, [*common.notes, *_stages_of_one(before, after)], fail_on)


def _presence(before: dict[Key, Row], after: dict[Key, Row], same: bool) -> list[Change]:
    """Backends that came, went, or whose verdict turned, and rows that only one report has."""
    changes = []
    old = {name: row.verdict for (name, _, _), row in before.items()}
    new = {name: row.verdict for (name, _, _), row in after.items()}
    for name in dict.fromkeys((*old, *new)):
        a, b = old.get(name, "not run"), new.get(name, "not run")
        status: Status = "unchanged" if a == b else "information"
        if a == "pass" and (b == "fail" or (b != "pass" and same)):
            status = "regression"  # what the other machine cannot run is no fault
        elif b == "pass" and a == "fail":
            status = "improvement"
        reason = next((r.reason for (n, _, _), r in after.items() if n == name and r.reason), None)
        text = f"{b}: {reason}" if reason and a != b else b
        changes.append(
            Change(
                stage="",
                backend=name,
                batch=None,
                what="verdict",
                old=a,
                new=text,
                change="",
                status=status,
                size=math.inf,
            )
        )
    for name, stage, batch in dict.fromkeys((*before, *after)):
        if old.get(name) == new.get(name) == "pass":
            for other, rows in (("NEW", before), ("OLD", after)):
                if (name, stage, batch) not in rows:
                    missing = Change(
                        stage=stage,
                        backend=name,
                        batch=batch,
                        what="row",
                        old="",
                        new=f"only in {other}",
                        change="",
                        status="information",
                    )
                    changes.append(missing)
    return changes


def _stages_of_one(before: dict[Key, Row], after: dict[Key, Row]) -> list[str]:
    """Stages that no backend has in the other report: a graph has another name, or is new."""
    old, new = (dict.fromkeys(stage for _, stage, _ in rows) for rows in (before, after))
    only = {"OLD": [s for s in old if s not in new], "NEW": [s for s in new if s not in old]}
    return [f"only in {side}: {', '.join(stages)}" for side, stages in only.items() if stages]
