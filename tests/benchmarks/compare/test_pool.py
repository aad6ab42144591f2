"""Several runs read as one report: what is joined, whose word counts, what is refused."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.benchmarks.made_reports import (
    RECIPE,
    ROUNDS,
    made_report,
    runs,
    with_bundle,
    with_environment,
    with_rows_of,
)
from wmdeploy.benchmarks.compare.pool import pooled
from wmdeploy.benchmarks.compare.run import compare
from wmdeploy.benchmarks.environment import Ceilings
from wmdeploy.benchmarks.report import MOST_ROUNDS, Report, Row, rows_by_key
from wmdeploy.errors import WmdeployError

NOISY = 0.06  # half a 95% interval


def test_one_run_is_its_own_report() -> None:
    report = made_report()
    assert pooled({"run": report}) is report


def test_rounds_follow_each_other_and_figures_follow_from_them() -> None:
    found = runs(0, 3)
    rows = rows_by_key(pooled(found))
    assert list(rows) == list(rows_by_key(found["run-0"]))
    for key, row in rows.items():
        parts = [rows_by_key(report)[key] for report in found.values()]
        assert row.samples_ms == [ms for part in parts for ms in part.samples_ms]
        assert row.p50_ms == pytest.approx(np.median(row.samples_ms))
        base = rows["eager", *key[1:]]
        assert row.p50_ms
        if row.stage in ("load", "first_call"):
            assert row.round_ms == [] and row.speedup is None
            continue
        assert len(row.round_ms) == 3 * ROUNDS
        ratios = np.divide(base.round_ms, row.round_ms)
        assert row.speedup == pytest.approx(np.median(ratios))
        assert row.floor_ms and row.of_floor == pytest.approx(row.floor_ms / row.p50_ms)
        if row.backend != "eager":
            assert width(row) < 0.8 * np.mean([width(part) for part in parts])


def width(row: Row) -> float:
    assert row.speedup_low and row.speedup_high
    return row.speedup_high - row.speedup_low


def test_several_runs_tell_what_one_cannot() -> None:
    slower = {"decoder": 1.1}
    alone = compare(made_report(0, half_width=NOISY),
                    made_report(1, half_width=NOISY, slower=slower))  # fmt: skip
    assert not alone.regressions and alone.counts["unclear"]
    old, new = runs(0, 8, half_width=NOISY), runs(8, 8, half_width=NOISY, slower=slower)
    together = compare(pooled(old), pooled(new))
    assert [(c.stage, c.backend) for c in together.regressions] == [("decoder", "compile")]
    unchanged = compare(pooled(old), pooled(runs(8, 8, half_width=NOISY)))
    assert not unchanged.regressions


@pytest.mark.parametrize("spoilt", ["compile", "ort-cpu"])
@pytest.mark.parametrize("what", ["curve", "row", "error"])
def test_the_run_that_is_furthest_off_speaks_for_parity(spoilt: str, what: str) -> None:
    """Of each backend at each stage and clip: others may be worse in another run, or in all."""
    found = runs(0, 3)
    if spoilt == "compile":
        found = {n: lowered(report, "ort-cpu", "curve", 40) for n, report in found.items()}
    once = found | {"run-1": lowered(found["run-1"], spoilt, what, 15)}
    told = compare(pooled(found), pooled(once)).regressions
    assert told and {c.backend for c in told} == {spoilt}


def lowered(report: Report, backend: str, what: str, db: float) -> Report:
    """A backend's curve of one clip, row's worst frame or stage's error, worse by as many dB."""
    if what == "curve":
        curves = [
            dataclasses.replace(c, free_db=[value - db for value in c.free_db])
            if (c.backend, c.clip) == (backend, "b.mkv") else c
            for c in report.curves
        ]  # fmt: skip
        return dataclasses.replace(report, curves=curves)

    def worse(row: Row) -> Row:
        parity = row.parity
        if parity is None or row.backend != backend:
            return row
        if what == "row" and row.stage == "frame" and parity.worst_frame_psnr_db:
            frames = {h: value - db for h, value in parity.worst_frame_psnr_db.items()}
            parity = dataclasses.replace(parity, worst_frame_psnr_db=frames)
        elif what == "error" and row.stage == "decoder" and parity.max_abs:
            parity = dataclasses.replace(parity, max_abs=parity.max_abs * 10 ** (db / 20))
        return dataclasses.replace(row, parity=parity)

    return dataclasses.replace(report, rows=[worse(row) for row in report.rows])


def test_the_highest_ceilings_count() -> None:
    """The run that saw the quietest moment knows best what the machine can do."""
    found = runs(0, 2)
    slow = {"cpu": Ceilings(20.0, 300.0, 2)}
    found["run-1"] = with_environment(found["run-1"], ceilings=slow)
    both = pooled(found)
    assert both.environment.ceilings == {"cpu": Ceilings(42.3, 300.0, 2)}
    assert found["run-0"].environment.ceilings["cpu"].gflop_s == 174.1  # left as it was
    assert not compare(both, pooled(found)).notes


def test_runs_that_ended_unlike_are_refused() -> None:
    found = runs(0, 3)
    failed = with_rows_of(found["run-1"], "compile", verdict="fail", reason="worst frame")
    with pytest.raises(WmdeployError, match=r"run-0 and run-1 .* compile \(pass and fail\)"):
        pooled(found | {"run-1": failed})
    both = pooled({"a": failed, "b": failed})
    assert {r.verdict for r in both.rows if r.backend == "compile"} == {"fail"}
    with pytest.raises(WmdeployError, match="one has no row of compile, frame, batch 4"):
        pooled(runs(0, 1) | {"run-1": made_report(batches=(1,), backends=("eager", "compile"))}
               | {"run-0": made_report(backends=("eager", "compile"))})  # fmt: skip


def test_memory_is_the_median_runs() -> None:
    found = runs(0, 3)
    larger = {
        name: with_rows_of(report, "compile", memory_mb=2000.0) for name, report in found.items()
    }
    once = compare(pooled(found), pooled(found | {"run-1": larger["run-1"]}))
    assert not once.regressions
    twice = compare(pooled(found), pooled(larger | {"run-1": found["run-1"]}))
    assert {c.what for c in twice.regressions} == {"memory MB"}


@pytest.mark.parametrize(
    ("change", "values", "message"),
    [
        (with_environment, {"packages": {"torch": "2.14.0"}}, r"torch \(2.13.0 and 2.14.0\)"),
        (with_environment, {"cpu": "Another"}, r"cpu \(AMD EPYC and Another\)"),
        (
            with_bundle,
            {"recipe": dataclasses.replace(RECIPE, source="other.pt")},
            r"model \(preset .* other.pt\)",
        ),
        (with_bundle, {"horizon": 64}, "run-0 and run-1 measured different things: horizon"),
        (dataclasses.replace, {"rows": []}, "run-1 has no rows"),
        (dataclasses.replace, {"baseline": "compile"}, r"baseline \(eager and compile\)"),
    ],
)
def test_runs_of_other_things_are_refused(
    change: Callable[..., Report], values: dict[str, Any], message: str
) -> None:
    found = runs(0, 2)
    found["run-1"] = change(found["run-1"], **values)
    with pytest.raises(WmdeployError, match=message):
        pooled(found)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "rounds", [[0.0] * ROUNDS, [5e-324] * ROUNDS, [1.0] * (ROUNDS - 1), [1.0] * (MOST_ROUNDS + 1)]
)
def test_rounds_of_a_damaged_report_have_no_ratio(rounds: list[float]) -> None:
    found = runs(0, 2)
    values = {"round_ms": rounds, "samples_ms": [0.0]}
    found["run-1"] = with_rows_of(found["run-1"], "compile", **values)
    if len(rounds) > MOST_ROUNDS:
        found["run-1"] = with_rows_of(found["run-1"], "eager", round_ms=rounds)
    row = rows_by_key(pooled(found))["compile", "decoder", 1]
    assert row.speedup is None and row.speedup_low is None and row.p50_ms
    pooled({name: with_rows_of(report, "compile", **values) for name, report in found.items()})
    assert compare(pooled(found), pooled(runs(0, 2))).counts["regression"] == 0
