"""A report of a stranger, whose texts would be markup, formulas or control characters."""

import base64
import dataclasses

from tests.benchmarks.made_reports import png, with_bundle, with_environment
from wmdeploy.benchmarks.report import GraphFacts, Memory, OutputParity, Parity, Report, Row
from wmdeploy.gpu import Gpu

HOSTILE = """<img src=x onerror=alert(1)>'"&|`$\\frac{<script>*_=@team\n# x\x07\udcff"""


def hostile(report: Report) -> Report:
    """Every text that a report may choose, as an attacker would write it."""

    def changed(row: Row) -> Row:
        if row.backend != "compile":
            return row
        memory = Memory(resident=9.0, engines={HOSTILE: 3.0})
        stage = HOSTILE if row.stage == "step" else row.stage
        parity = Parity(outputs={HOSTILE: OutputParity(relative=1.0)})
        return dataclasses.replace(
            row, backend=HOSTILE, stage=stage, reason=HOSTILE, device=HOSTILE, memory=memory,
            parity=parity
        )  # fmt: skip

    graph = GraphFacts(flops=1, weight_bytes=1, moved_bytes=1, other_layout_weight_bytes=1)
    recipe = dataclasses.replace(
        report.bundle.recipe, source=HOSTILE, clip=HOSTILE, tools={HOSTILE: HOSTILE}
    )
    report = with_bundle(
        report,
        name=HOSTILE,
        manifest_sha256=HOSTILE,
        recipe=recipe,
        model={HOSTILE: {HOSTILE: [HOSTILE]}},
        graphs={**report.bundle.graphs, HOSTILE: graph},
        clips=[HOSTILE],
    )
    report = with_environment(
        report,
        date=HOSTILE,
        cpu=HOSTILE,
        gpu=Gpu(HOSTILE, HOSTILE, HOSTILE, 1.0, None),
        system=HOSTILE,
        python=HOSTILE,
        packages={HOSTILE: HOSTILE},
        ceilings={**report.environment.ceilings, HOSTILE: report.environment.ceilings["cpu"]},
    )
    return dataclasses.replace(
        report,
        rows=[changed(row) for row in report.rows],
        warnings=[HOSTILE],
        curves=[dataclasses.replace(c, backend=HOSTILE, clip=HOSTILE) for c in report.curves],
        substitutions={HOSTILE: {HOSTILE: 3.0}},
        fixed_rate=[dataclasses.replace(p, backend=HOSTILE) for p in report.fixed_rate],
        worst_frames={HOSTILE: png(), "svg": base64.b64encode(b"<svg onload=alert(1)>").decode()},
    )
