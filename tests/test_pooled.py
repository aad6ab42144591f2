"""Several runs read as one report: what is joined, whose word counts, what is refused."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import reruns
from benchmarks.change import keyed
from benchmarks.compare import compare
from benchmarks.pooled import pooled, read_runs
from benchmarks.report import MOST_RUNS, Report, Row
from tests.made_reports import ROUNDS, made_report
from wmdeploy import cli
from wmdeploy.errors import WmdeployError
from wmdeploy.files import write_document

NOISY = 0.06  # half a 95% interval


def runs(first: int, count: int, **options: Any) -> dict[str, Report]:
    return {f"run-{seed}": made_report(seed, **options) for seed in range(first, first + count)}


def change_rows(report: Report, backend: str, **values: Any) -> Report:
    rows = [dataclasses.replace(r, **values) if r.backend == backend else r for r in report.rows]
    return dataclasses.replace(report, rows=rows)


def test_one_run_is_its_own_report() -> None:
    report = made_report()
    assert pooled({"run": report}) is report


def test_rounds_follow_each_other_and_figures_follow_from_them() -> None:
    found = runs(0, 3)
    rows = keyed(pooled(found))
    assert list(rows) == list(keyed(found["run-0"]))
    for key, row in rows.items():
        parts = [keyed(report)[key] for report in found.values()]
        assert row.samples_ms == [ms for part in parts for ms in part.samples_ms]
        assert row.p50_ms == pytest.approx(np.median(row.samples_ms))
        base = rows["eager", *key[1:]]
        assert row.p50_ms
        if row.stage in ("load", "first_call"):
            assert row.round_ms == []
            assert row.speedup == pytest.approx(np.median(base.samples_ms) / row.p50_ms)
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
    slower = {"decode": 1.1}
    alone = compare(made_report(0, half_width=NOISY),
                    made_report(1, half_width=NOISY, slower=slower))  # fmt: skip
    assert not alone.regressions and alone.counts["unclear"]
    old, new = runs(0, 8, half_width=NOISY), runs(8, 8, half_width=NOISY, slower=slower)
    together = compare(pooled(old), pooled(new))
    assert [(c.stage, c.backend) for c in together.regressions] == [("decode", "compile")]
    unchanged = compare(pooled(old), pooled(runs(8, 8, half_width=NOISY)))
    assert not unchanged.regressions


def test_the_run_with_the_worst_frame_speaks_for_parity() -> None:
    found = runs(0, 3)
    curves = [
        dataclasses.replace(c, free_db=[c.free_db[0] - 30, *c.free_db[1:]])
        for c in found["run-1"].curves
    ]
    spoiled = dataclasses.replace(found["run-1"], curves=curves)
    told = {c.what for c in compare(pooled(found), pooled(found | {"run-1": spoiled})).regressions}
    assert told and all(what.startswith("worst frame, free") for what in told)


def test_a_backend_that_failed_once_has_failed() -> None:
    found = runs(0, 3)
    failed = change_rows(found["run-1"], "compile", verdict="fail", reason="worst frame")
    both = pooled(found | {"run-1": failed})
    assert {(r.verdict, r.reason) for r in both.rows if r.backend == "compile"} == {
        ("fail", "worst frame")
    }
    assert all(row.verdict == "pass" for row in both.rows if row.backend != "compile")
    died = dataclasses.replace(
        found["run-1"],
        rows=[r for r in failed.rows if r.backend != "compile"]
        + [Row("compile", None, None, "frame", 1, verdict="fail", reason="killed")],
    )
    changes = compare(pooled(found), pooled(found | {"run-1": died})).regressions
    assert [(c.backend, c.what, c.new) for c in changes] == [("compile", "verdict", "fail: killed")]


def test_memory_is_the_median_runs() -> None:
    found = runs(0, 3)
    larger = {
        name: change_rows(report, "compile", memory_mb=2000.0) for name, report in found.items()
    }
    once = compare(pooled(found), pooled(found | {"run-1": larger["run-1"]}))
    assert not once.regressions
    twice = compare(pooled(found), pooled(larger | {"run-1": found["run-1"]}))
    assert {c.what for c in twice.regressions} == {"memory MB"}


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"environment": {"packages": {"torch": "2.14.0"}}}, "other versions"),
        ({"environment": {"cpu": "Another"}}, "other hardware"),
        ({"bundle": {"horizon": 64}}, "run-0 and run-1 measured different things: horizon"),
        ({"schema": 2}, "run-1: has schema 2, without rounds"),
        ({"rows": []}, "run-1 has no rows"),
    ],
)
def test_runs_of_other_things_are_refused(values: dict[str, Any], told: str) -> None:
    found = runs(0, 2)
    for part, changed in values.items():
        now = getattr(found["run-1"], part)
        change: dict[str, Any] = {part: {**now, **changed} if isinstance(now, dict) else changed}
        found["run-1"] = dataclasses.replace(found["run-1"], **change)
    with pytest.raises(WmdeployError, match=told):
        pooled(found)


@pytest.mark.filterwarnings("error")
def test_times_of_zero_have_no_ratio() -> None:
    """As of a damaged report."""
    found = {n: change_rows(r, "compile", round_ms=[0.0] * ROUNDS) for n, r in runs(0, 2).items()}
    row = keyed(pooled(found))["compile", "decode", 1]
    assert len(row.round_ms) == 2 * ROUNDS and row.speedup_low is not None
    found = {n: change_rows(r, "compile", samples_ms=[0.0]) for n, r in found.items()}
    assert compare(pooled(found), pooled(found)).counts["regression"] == 0


def write(folder: Path, found: dict[str, Report]) -> str:
    folder.mkdir()
    for name, report in found.items():
        write_document(report, folder / f"{name}.json")
    return str(folder)


def compared(*arguments: str) -> int:
    with pytest.raises(SystemExit) as caught:
        cli.main(["compare", *arguments])
    assert isinstance(caught.value.code, int | None)
    return caught.value.code or 0


def test_command_compares_folders_of_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = write(tmp_path / "old", runs(0, 3))
    same = write(tmp_path / "same", runs(3, 2))
    slower = write(tmp_path / "slower", runs(3, 3, slower={"decode": 1.2}))
    assert compared(old, same) == 0
    assert "runs pooled: 3 of OLD, 2 of NEW" in capsys.readouterr().out
    assert compared(old, slower) == 1
    assert compared(old, str(tmp_path / "slower" / "run-3.json")) == 1
    (tmp_path / "old" / "notes.txt").write_text("not read")
    assert read_runs(Path(old))[1] == 3


def test_folders_that_hold_no_runs_are_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = write(tmp_path / "one", runs(0, 1))
    empty = write(tmp_path / "empty", {})
    many = write(tmp_path / "many", {str(n): made_report() for n in range(MOST_RUNS + 1)})
    other = write(tmp_path / "other", runs(0, 1))
    (tmp_path / "other" / "sweep.json").write_text("{}")
    for folder, told in (
        (empty, "has 0 reports"), (many, f"has {MOST_RUNS + 1} reports"), (other, "sweep.json"),
    ):  # fmt: skip
        assert compared(one, folder) == 1
        error = capsys.readouterr().err
        assert told in " ".join(error.split()) and "Traceback" not in error


def test_reruns_pools_the_runs_of_each_side(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(write(tmp_path / "runs", runs(0, 4)))
    paths = sorted(folder.glob("*.json"))
    reruns.main(paths, side=2)
    assert "0 of 6 ordered pairs are flagged" in capsys.readouterr().out
