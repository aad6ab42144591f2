"""Tables of every renderer: their columns and captions."""

import dataclasses

import pytest

from tests.benchmarks.made_reports import (
    made_report,
    report_of,
    row_of,
    with_bundle,
    with_environment,
)
from wmdeploy.benchmarks.environment import Ceilings
from wmdeploy.benchmarks.render import tables
from wmdeploy.benchmarks.render.tables import Table
from wmdeploy.benchmarks.report import Curve, Memory, OutputParity, Parity, Report


def column(table: Table, heading: str) -> list[str]:
    at = table.headings.index(heading)
    return [row[at].text for row in table.rows]


def test_columns_that_no_row_fills_are_left_out(report: Report) -> None:
    full = tables.latency(report)
    assert "speed-up" in full.headings and "device ms" not in full.headings
    bare = tables.latency(report_of([row_of(p50_ms=3.0, samples_ms=[3.0])]))
    assert bare.headings == ("stage", "backend", "runs", "p50 ms", "verdict")
    assert [cell.text for cell in bare.rows[0]] == ["frame", "eager", "1", "3.00", "pass"]


def test_columns_of_the_page_are_not_in_the_narrow_table(report: Report) -> None:
    full = tables.latency(report)
    narrow = full.narrow()
    assert {"95% interval", "verdict"} <= full.wide
    assert narrow.headings == tuple(h for h in full.headings if h not in full.wide)
    assert column(narrow, "speed-up") == column(full, "speed-up")
    assert narrow.numeric == full.numeric and "stage" not in full.numeric


def test_latency_has_the_rows_of_batch_1(report: Report) -> None:
    table = tables.latency(report)
    rows = [row for row in report.rows if row.batch == 1]
    assert column(table, "backend") == [row.backend for row in rows]
    frame = next(row for row in rows if (row.backend, row.stage) == ("ort-cpu", "frame"))
    assert frame.speedup and frame.speedup_low and frame.speedup_high and frame.parity
    at = rows.index(frame)
    half = 100 * (frame.speedup_high - frame.speedup_low) / 2 / frame.speedup
    assert column(table, "speed-up")[at] == f"{frame.speedup:.2f}x ±{half:.1f}%"
    assert column(table, "95% interval")[at] == (
        f"{frame.speedup_low:.2f} to {frame.speedup_high:.2f}"
    )
    assert column(table, "of floor")[at] == "80% ops"
    assert column(table, "parity")[at] == f"{min(frame.worst_frame_db.values()):.1f} dB"
    assert "cpu 42 GB/s, 174 GFLOP/s in float32 with 2 threads. Weights" in table.caption


def test_stages_stand_in_the_order_of_the_reports_graphs(report: Report) -> None:
    graphs = dict.fromkeys(("decoder", "physics", "step"), report.bundle.graphs["step"])
    stages = ("slide", "later", "step", "frame", "physics", "load", "decoder")
    rows = [row_of(stage=stage, p50_ms=1.0) for stage in stages]
    made = with_bundle(report_of(rows), graphs=graphs)
    names = ["load", "decoder", "physics", "step", "later", "frame", "slide"]
    sorts = {row[0].text: row[0].sort for row in tables.latency(made).rows}
    assert sorted(sorts, key=lambda name: sorts[name] or 0.0) == names
    assert column(tables.summary(made), "stage") == ["frame", "slide", *names[1:5]]


def test_ceilings_of_float16_are_in_the_caption() -> None:
    gpu = with_environment(report_of(), ceilings={"cuda": Ceilings(4000, 50e3, 2, 790e3)})
    assert "cuda 4,000 GB/s, 50,000 GFLOP/s in float32, 790,000 in float16" in (
        tables.latency(gpu).caption
    )


def test_noisy_speed_ups_are_marked() -> None:
    rows = [row_of("x", p50_ms=1.0, speedup=2.0, noisy=noisy) for noisy in (True, False)]
    table = tables.latency(report_of(rows))
    at = table.headings.index("speed-up")
    assert [(row[at].text, row[at].mark) for row in table.rows] == [
        ("2.00x", "warn"),
        ("2.00x", ""),
    ]


def test_batches_have_their_gain_over_one_session() -> None:
    rows = [
        row_of("x", batch=1, p50_ms=2.0, frames_per_s=500.0),
        row_of("x", batch=4, p50_ms=4.0, frames_per_s=1000.0),
    ]
    assert column(tables.batches(report_of(rows)), "gain") == ["1.00", "2.00"]
    assert tables.batches(report_of(rows[:1])).rows == []


def test_reasons_are_told_once_below_the_table() -> None:
    gone = [row_of(n, verdict="skipped", reason="no GPU") for n in ("ort-cuda", "tensorrt")]
    failed = row_of("compile", verdict="fail", reason="worst frame 12.0 dB", p50_ms=1.0)
    tied = row_of("ort-cpu", reason="1 of 9 codes tied", p50_ms=1.0)
    table = tables.parity(report_of([row_of(p50_ms=1.0), failed, tied, *gone]))
    assert table.caption.splitlines() == [
        "failed: compile: worst frame 12.0 dB",
        "passed: ort-cpu: 1 of 9 codes tied",
        "skipped: ort-cuda, tensorrt: no GPU",
    ]
    assert column(table, "verdict") == ["baseline", "fail", "pass"]


def test_baseline_is_the_one_that_the_report_names() -> None:
    table = tables.parity(made_report(backends=("compile", "eager")))
    assert column(table, "verdict") == ["baseline", "pass"]
    assert table.title.startswith("parity with compile in float32")


def test_parity_has_a_column_for_each_horizon(report: Report) -> None:
    table = tables.parity(report)
    assert [h for h in table.headings if "dB" in h] == [
        "worst dB to 1", "worst dB to 8", "worst dB to 32", "worst dB to 64", "mean dB"
    ]  # fmt: skip
    frame = report.frames()[1]
    assert column(table, "worst dB to 32")[1] == f"{frame.worst_frame_db['32']:.1f}"
    assert frame.parity and frame.parity.psnr_db
    assert column(table, "mean dB")[1] == f"{frame.parity.psnr_db['64']:.1f}"
    assert "Memory: of the backend's process (resident)." in table.caption


def test_memory_has_a_table_on_a_gpu_alone(report: Report) -> None:
    assert tables.memory(report).rows == []
    memory = Memory(
        resident=900.0,
        gpu_process=1600.0,
        gpu_used=1900.0,
        torch_peak=250.0,
        engines={"weights": 663.0, "scratch": 180.0},
    )
    table = tables.memory(report_of([row_of("tensorrt", memory=memory)]))
    assert table.headings == ("backend", "process", "GPU", "torch", "engines", "host")
    assert [cell.text for cell in table.rows[0]] == [
        "tensorrt", "1600", "1900", "250", "weights 663, scratch 180", "900"
    ]  # fmt: skip


def test_worst_graph_is_marked(report: Report) -> None:
    table = tables.substitutions(report)
    assert table.headings == ("backend", "encoder", "prefill", "step", "decoder")
    assert [cell.mark for cell in table.rows[0]] == ["", "", "", "", "warn"]
    other = dataclasses.replace(report, substitutions={**report.substitutions, "x": {"step": 3.0}})
    assert [cell.text for cell in tables.substitutions(other).rows[2]] == ["x", "", "", "3.0", ""]


def test_missed_frames_are_counted_and_marked(report: Report) -> None:
    table = tables.fixed_rate(report)
    assert table.title == "fixed rate: 30 frames per second"
    assert column(table, "missed") == ["0 (0.0%)", "3 (3.3%)", "6 (6.7%)"]
    at = table.headings.index("missed")
    assert [row[at].mark for row in table.rows] == ["", "warn", "warn"]


@pytest.mark.parametrize("fps", [0.0, -1.0, 5e-324, 1e308])
def test_rate_that_makes_no_sense_is_shown(report: Report, fps: float) -> None:
    rates = [dataclasses.replace(rate, fps=fps, frames=0) for rate in report.fixed_rate]
    table = tables.fixed_rate(dataclasses.replace(report, fixed_rate=rates))
    assert column(table, "missed") == ["0 (0.0%)", "3 (0.0%)", "6 (0.0%)"]


def test_clips_show_ties_and_the_first_other_code(report: Report) -> None:
    table = tables.clips(report)
    assert column(table, "clip") == ["a.mkv", "b.mkv"] * 2
    assert column(table, "first other code at") == ["17"] * 4 and "tied" not in table.headings
    assert column(table, "at horizon") == [str(curve.worst_frame) for curve in report.curves]


def test_facts_are_short_and_flat(report: Report) -> None:
    long = with_environment(report, cpu="x" * 999)
    facts = {row[0].text: row[1].text for row in tables.facts(long).rows}
    assert facts["cpu"] == "x" * 300 + "..." and facts["gpu"] == "none"
    assert facts["packages.torch"] == "2.13.0" and facts["bundle.model.temporal.layers"] == "4"
    assert facts["bundle.clips"] == "a.mkv, b.mkv" and "bundle.graphs.step.flops" not in facts


@pytest.mark.parametrize(
    "name", ["summary", "latency", "parity", "clips", "outputs", "fixed_rate", "facts"]
)
def test_report_of_nothing_has_tables_without_rows(name: str) -> None:
    table = getattr(tables, name)(report_of())
    assert name == "facts" or table.rows == []


def test_gain_needs_a_row_of_one_session() -> None:
    rows = [
        row_of(batch=4, p50_ms=8.0, frames_per_s=500.0),
        row_of("ort-cpu", p50_ms=2.0, frames_per_s=500.0),
        row_of("ort-cpu", batch=4, p50_ms=4.0, frames_per_s=1000.0),
    ]
    table = tables.batches(report_of(rows))
    at = table.headings.index("gain")
    assert [row[at].text for row in table.rows] == ["", "1.00", "2.00"]


def test_named_outputs_have_a_table(report: Report) -> None:
    assert tables.outputs(report).rows == []
    parity = Parity(
        forced_worst_db=71.0,
        outputs={
            "token": OutputParity(agreement=0.5),
            "logits": OutputParity(relative=2e-5, variation=3e-6),
        },
    )
    made = report_of([row_of("ort-cpu", p50_ms=1.0, parity=parity)])
    table = tables.outputs(made)
    assert table.headings == ("backend", "output", "equal", "largest error", "variation")
    assert [[cell.text for cell in row] for row in table.rows] == [
        ["ort-cpu", "token", "50.000%", "", ""], ["ort-cpu", "logits", "", "2.0e-05", "3.0e-06"]
    ]  # fmt: skip
    assert column(tables.parity(made), "forced dB") == ["71.0"]


def test_clips_without_codes_tell_of_draws_alone() -> None:
    def curve(name: str, first_draw: int | None) -> Curve:
        return Curve(
            backend=name,
            clip="a.mkv",
            free_db=[90.0],
            forced_db=[91.0],
            code_agreement=None,
            imagined_agreement=None,
            first_difference=None,
            outputs={"token": OutputParity(agreement=0.5)},
            first_draw=first_draw,
        )

    table = tables.clips(dataclasses.replace(report_of(), curves=[curve("a", None), curve("b", 9)]))
    assert not {"codes", "imagined codes", "first other code at"} & set(table.headings)
    assert column(table, "first other draw at") == ["none", "9"]
