"""A bench that is soon over, of the sample clip. No test is in here."""

import dataclasses
from typing import Any

from wmdeploy.benchmarks.bench.options import BenchOptions
from wmdeploy.benchmarks.bench.run import bench
from wmdeploy.benchmarks.environment import Effort
from wmdeploy.benchmarks.report import Report, Row
from wmdeploy.benchmarks.stages import StageName
from wmdeploy.bundle import Bundle
from wmdeploy.clips.read import SAMPLE_CLIP

QUICK = Effort(runs=3, seconds=0.05, block_ms=1)


def run(bundle: Bundle, *backends: str, **changes: Any) -> Report:
    options = BenchOptions(
        bundle=bundle.path, clips=(SAMPLE_CLIP,), backends=backends, context=4, effort=QUICK
    )
    return bench(dataclasses.replace(options, **changes))


def row(report: Report, backend: str, stage: StageName) -> Row:
    """The only row of a backend at a stage, or that of batch 1."""
    return next(r for r in report.rows if (r.backend, r.stage) == (backend, stage))
