"""What got slower, larger or less exact, beyond the noise."""

import dataclasses

import numpy as np
import pytest

from tests.benchmarks.compare.helpers import status
from tests.benchmarks.made_reports import made_report, with_rows
from wmdeploy.benchmarks.compare.run import compare
from wmdeploy.benchmarks.compare.table import summary
from wmdeploy.benchmarks.report import Report, Row
from wmdeploy.cli.options import parse_percent
from wmdeploy.errors import WmdeployError


def test_a_report_against_itself_is_unchanged(report: Report) -> None:
    found = compare(report, report)
    assert found.counts == {"unchanged": len(found.changes)} and not found.notes
    assert len(summary(found).splitlines()) == 2


def test_unchanged_reruns_are_not_flagged() -> None:
    reports = [made_report(seed) for seed in range(21)]
    for old, new in zip(reports, reports[1:], strict=False):
        assert compare(old, new).regressions == []


def test_the_noise_alone_flags_few_reruns() -> None:
    """Without the 5%: about one of a hundred comparisons may show a change by chance."""
    reports = [made_report(seed, batches=(1,)) for seed in range(40)]
    flagged = [compare(a, b, fail_on=0) for a, b in zip(reports, reports[1:], strict=False)]
    speed = [f for f in flagged if any(c.what == "speed-up" for c in f.regressions)]
    assert len(speed) <= 5  # a rule without the correction for many rows flags a third


@pytest.mark.parametrize("stage", ["encoder", "step", "decoder", "frame"])
def test_a_slowdown_of_a_tenth_is_flagged(stage: str) -> None:
    for seed in range(0, 20, 2):
        found = compare(made_report(seed), made_report(seed + 1, slower={stage: 1.1}))
        flagged = {(c.stage, c.backend, c.what) for c in found.regressions}
        assert flagged and {where[:2] for where in flagged} == {(stage, "compile")}
        assert found.changes[0] in found.regressions


def test_an_evenly_slower_machine_is_no_change() -> None:
    """Each block scatters on its own, so that the line through them is too flat."""

    def report(seed: int, slower: float) -> Report:
        rng = np.random.default_rng(seed)

        def change(row: Row) -> Row:
            if not row.round_ms:
                return row
            scatter = np.exp(rng.normal(0, 0.08, len(row.round_ms)))
            rounds = [slower * ms * s for ms, s in zip(row.round_ms, scatter, strict=True)]
            return dataclasses.replace(row, round_ms=rounds)

        return with_rows(made_report(seed, batches=(1,)), change)

    for seed in range(8):
        assert not compare(report(seed, 1.0), report(seed + 1, 1.3)).regressions


def test_a_gain_is_an_improvement(report: Report) -> None:
    found = compare(report, made_report(1, slower={"decoder": 0.8}))
    assert status(found, "compile", "speed-up", "decoder") == "improvement"
    assert not found.regressions


def test_a_slowdown_below_the_limit_is_none(report: Report) -> None:
    found = compare(report, made_report(1, slower={"decoder": 1.1}), fail_on=0.3)
    assert not found.regressions


def test_wide_intervals_are_too_noisy_to_tell() -> None:
    old, new = (made_report(seed, half_width=0.1, batches=(1,)) for seed in (0, 1))
    noisy = with_rows(new, lambda row: dataclasses.replace(row, noisy=row.speedup_low is not None))
    found = compare(old, noisy)
    assert not found.regressions and found.counts["unclear"] == 14
    assert "too noisy to tell" in summary(found)
    slow = compare(old, made_report(1, half_width=0.1, slower={"step": 5.0}, batches=(1,)))
    assert status(slow, "compile", "speed-up", "step") == "regression"  # beyond any noise


def test_a_backend_that_fails_or_vanishes_is_a_regression(report: Report) -> None:
    def fail(row: Row) -> Row | None:
        if row.backend != "ort-cpu":
            return row
        return dataclasses.replace(row, verdict="fail", reason="worst frame 12 dB")

    found = compare(report, with_rows(report, fail))
    assert status(found, "ort-cpu", "verdict") == "regression"
    assert "worst frame 12 dB" in found.changes[0].new
    assert status(compare(with_rows(report, fail), report), "ort-cpu", "verdict") == "improvement"
    gone = with_rows(report, lambda row: None if row.backend == "ort-cpu" else row)
    assert status(compare(report, gone), "ort-cpu", "verdict") == "regression"
    assert status(compare(gone, report), "ort-cpu", "verdict") == "information"


def test_a_stage_that_is_missing_is_told(report: Report) -> None:
    fewer = with_rows(report, lambda row: None if row.stage == "slide" else row)
    found = compare(report, fewer)
    assert not found.regressions and status(found, "ort-cpu", "row", "slide") == "information"
    assert found.notes == ["only in OLD: slide"] and compare(fewer, report).notes == [
        "only in NEW: slide"
    ]


def test_graphs_of_other_names_are_told_by_name(report: Report) -> None:
    """As where a model is cut into other graphs."""
    names = {"step": "dynamics", "decoder": "a stage of a later version"}
    other = with_rows(
        report, lambda row: dataclasses.replace(row, stage=names.get(row.stage, row.stage))
    )
    found = compare(report, other)
    assert found.notes == [
        "only in OLD: step, decoder", "only in NEW: dynamics, a stage of a later version"
    ]  # fmt: skip
    rows = {(c.stage, c.new) for c in found.changes if c.what == "row"}
    assert rows == {
        ("step", "only in OLD"), ("decoder", "only in OLD"), ("dynamics", "only in NEW"),
        ("a stage of a later version", "only in NEW"),
    }  # fmt: skip
    assert not found.regressions


def test_stage_of_any_graph_is_judged(report: Report) -> None:
    def renamed(made: Report) -> Report:
        return with_rows(
            made, lambda r: dataclasses.replace(r, stage="physics") if r.stage == "step" else r
        )

    slow = compare(renamed(report), renamed(made_report(1, slower={"step": 1.2})))
    assert {(c.stage, c.backend) for c in slow.regressions} == {("physics", "compile")}


@pytest.mark.parametrize(("text", "value"), [("5%", 0.05), ("5", 0.05), (" 0.5 % ", 0.005)])
def test_percentages(text: str, value: float) -> None:
    assert parse_percent(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["", "five", "-1", "nan", "inf", "5%%"])
def test_other_percentages_are_refused(text: str) -> None:
    with pytest.raises(WmdeployError, match="expected a percentage such as 5%"):
        parse_percent(text)
