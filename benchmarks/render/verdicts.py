"""`python -m wmdeploy.benchmarks.render.verdicts REPORT.json ...`: one line for each backend.

- works: with its time for a frame, its speed-up, its memory and its worst frame, in each report;
- wrong: it ran, and its frames are not the baseline's; by how much;
- refused: it is installed, and did not run; why;
- not here: this machine lacks something; what;
- not run: no report names it.
"""

import sys
from pathlib import Path

from wmdeploy.benchmarks.render.format import worst_db
from wmdeploy.benchmarks.report import Report, Row, read_json
from wmdeploy.engines.base import BACKENDS
from wmdeploy.errors import WmdeployError

WIDTH = max(map(len, BACKENDS))


def verdicts(reports: dict[str, Report]) -> list[str]:
    """A line for each backend, from reports by name; what went wrong in any of them comes first."""
    return [f"{name:{WIDTH}}  {_verdict(name, reports)}" for name in BACKENDS]


def _verdict(backend: str, reports: dict[str, Report]) -> str:
    rows = [
        (name, row)
        for name, report in reports.items()
        for row in report.frames()
        if row.backend == backend
    ]
    for word, chosen in (
        ("wrong", [(n, r) for n, r in rows if r.verdict == "fail" and r.p50_ms is not None]),
        ("refused", [(n, r) for n, r in rows if r.verdict == "fail" and r.p50_ms is None]),
        ("works", [(n, r) for n, r in rows if r.verdict == "pass"]),
        ("not here", [(n, r) for n, r in rows if r.verdict == "skipped"]),
    ):
        if chosen and word == "works":
            return f"{word}: " + "; ".join(_figures(name, row) for name, row in chosen)
        if chosen:
            return f"{word}: {chosen[0][1].reason} ({chosen[0][0]})"
    return "not run"


def _figures(name: str, row: Row) -> str:
    figures = [f"{row.p50_ms:.3g} ms a frame"]
    if row.speedup is not None:
        figures.append(f"{row.speedup:.3g}x")
    if row.memory_mb is not None:
        figures.append(f"{row.memory_mb:.0f} MB")
    if worst := worst_db(row):
        figures.append(f"worst frame {worst} dB")
    return f"{name} {', '.join(figures)}"


def main() -> None:
    try:
        reports = {Path(path).stem: read_json(Path(path)) for path in sys.argv[1:]}
    except (WmdeployError, OSError) as error:
        sys.exit(f"error: {error}")
    if not reports:
        sys.exit("error: got no report; give what `wmdeploy bench --json` wrote")
    print("\n".join(verdicts(reports)))


if __name__ == "__main__":
    main()
