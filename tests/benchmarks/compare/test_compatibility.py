"""Reports that may not be compared, and what is noted of those that may."""

import dataclasses
from typing import Any

import pytest

from tests.benchmarks.compare.helpers import status
from tests.benchmarks.made_reports import (
    RECIPE,
    made_report,
    with_bundle,
    with_environment,
    with_parity,
    with_rows,
    with_rows_of,
)
from wmdeploy.benchmarks.compare.compatibility import check_comparable
from wmdeploy.benchmarks.compare.run import compare
from wmdeploy.benchmarks.environment import Ceilings
from wmdeploy.benchmarks.report import Report, Row
from wmdeploy.engines.base import Settings
from wmdeploy.errors import WmdeployError
from wmdeploy.gpu import Gpu

CHANGES = {"bundle": with_bundle, "environment": with_environment}


@pytest.mark.parametrize(
    ("part", "values", "message"),
    [
        ("bundle", {"clips": ["a.mkv"]}, "clips (a.mkv, b.mkv and a.mkv)"),
        ("bundle", {"context": 4}, "context (8 and 4)"),
        ("bundle", {"horizon": 64}, "horizon (128 and 64)"),
        ("bundle", {"refill": 4}, "refill (none and 4)"),
        ("bundle", {"recipe": dataclasses.replace(RECIPE, layout="latent")}, "layout (token and"),
        (
            "bundle",
            {"recipe": dataclasses.replace(RECIPE, precision="fp16")},
            "precision (fp32 and",
        ),
        ("bundle", {"model": {"temporal": {"layers": 6, "context": 32}}}, "temporal.layers (4"),
        ("environment", {"settings": Settings(tf32=True)}, "settings.tf32 (False and True)"),
    ],
)
def test_other_things_are_refused(
    report: Report, part: str, values: dict[str, Any], message: str
) -> None:
    with pytest.raises(WmdeployError) as caught:
        compare(report, CHANGES[part](report, **values))
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "values", [{"cpu": "other"}, {"cores": 8}, {"gpu": Gpu("H200", "sm_90", None, 1.0, None)}]
)
def test_on_other_hardware_only_ratios_are_judged(report: Report, values: dict[str, Any]) -> None:
    def change(row: Row) -> Row:
        grown = dataclasses.replace(row, memory_mb=9 * (row.memory_mb or 0))
        return dataclasses.replace(grown, p50_ms=9 * row.p50_ms) if row.p50_ms else grown

    moved = with_environment(with_rows(report, change), **values)
    found = compare(report, moved)
    assert not found.regressions and any("other hardware" in note for note in found.notes)
    assert not any(c.what == "p50 ms" for c in found.changes)
    slow = with_environment(made_report(1, slower={"decoder": 1.2}), **values)
    assert {c.stage for c in compare(report, slow).regressions} == {"decoder"}
    worse = with_parity(moved, "ort-cpu", "step", max_abs=1.0)
    assert status(compare(report, worse), "ort-cpu", "max error", "step") == "information"


def test_what_else_differs_is_noted(report: Report) -> None:
    other = with_environment(
        report,
        packages={"wmdeploy": "0.1.0", "torch": "2.14.0"},
        ceilings={"cpu": Ceilings(20.0, 174.0, 2)},
    )
    ceilings, packages = compare(report, other).notes
    assert "torch (2.13.0 and 2.14.0)" in packages
    assert "from 42 to 20 GB/s" in ceilings


def test_other_numbers_of_threads_are_refused(report: Report) -> None:
    other = with_rows_of(report, "compile", threads=1)
    with pytest.raises(WmdeployError, match=r"threads of compile \(2 and 1\)"):
        compare(report, other)
    assert not compare(report, with_environment(other, cores=1)).regressions


def test_another_baseline_is_refused(report: Report) -> None:
    other = dataclasses.replace(report, baseline="compile")
    with pytest.raises(WmdeployError, match=r"baseline \(eager and compile\)"):
        compare(report, other)
    assert not compare(other, other).regressions


def test_many_differences_are_counted(report: Report) -> None:
    other = with_bundle(report, context=4, horizon=64, refill=4, clips=["c.mkv"])
    with pytest.raises(WmdeployError, match=r"refill|horizon.* and 1 more; compare runs of the"):
        compare(report, other)


def test_models_of_their_own_weights_are_noted(report: Report) -> None:
    other = with_bundle(report, recipe=dataclasses.replace(RECIPE, source="b.pt"))
    common = check_comparable(report, other)
    assert common.same_hardware and common.notes == [
        "the models come from preset small, seed 0 and b.pt: parity is of their own weights"
    ]


def test_names_are_those_that_the_caller_gives(report: Report) -> None:
    with pytest.raises(WmdeployError, match="^a.json and b.json measured different things"):
        check_comparable(report, with_bundle(report, horizon=4), ("a.json", "b.json"))


def test_a_report_without_rows_is_refused(report: Report) -> None:
    with pytest.raises(WmdeployError, match="NEW has no rows"):
        compare(report, dataclasses.replace(report, rows=[]))
