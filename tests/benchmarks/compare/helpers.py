"""What became of one figure of a comparison. No test is in here."""

from wmdeploy.benchmarks.compare.change import Status
from wmdeploy.benchmarks.compare.run import Comparison


def status(found: Comparison, backend: str, what: str, stage: str | None = None) -> Status:
    """Of the only change of a backend whose figure begins with `what`."""
    (change,) = [
        c
        for c in found.changes
        if c.backend == backend and c.what.startswith(what) and stage in (None, c.stage)
    ]
    return change.status
