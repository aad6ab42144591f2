"""Several runs read as one report: what is joined, whose word counts, what is refused."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer

from tests.made_reports import ROUNDS, made_report
from wmdeploy import cli
from wmdeploy.benchmarks.compare.pool import pooled, read_runs
from wmdeploy.benchmarks.compare.run import compare
from wmdeploy.benchmarks.report import MOST_POOLED, MOST_ROUNDS, Report, Row, keyed
from wmdeploy.benchmarks.studies import false_alarms as reruns
from wmdeploy.errors import WmdeployError
from wmdeploy.files import write_document

NOISY = 0.06  # half a 95% interval
RECIPE = made_report().bundle["recipe"]


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
    slower = {"decode": 1.1}
    alone = compare(made_report(0, half_width=NOISY),
                    made_report(1, half_width=NOISY, slower=slower))  # fmt: skip
    assert not alone.regressions and alone.counts["unclear"]
    old, new = runs(0, 8, half_width=NOISY), runs(8, 8, half_width=NOISY, slower=slower)
    together = compare(pooled(old), pooled(new))
    assert [(c.stage, c.backend) for c in together.regressions] == [("decode", "compile")]
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
        elif what == "error" and row.stage == "decode" and parity.max_abs:
            parity = dataclasses.replace(parity, max_abs=parity.max_abs * 10 ** (db / 20))
        return dataclasses.replace(row, parity=parity)

    return dataclasses.replace(report, rows=[worse(row) for row in report.rows])


def test_the_highest_ceilings_count() -> None:
    """The run that saw the quietest moment knows best what the machine can do."""
    found = runs(0, 2)
    environment = found["run-1"].environment
    slow = {"bandwidth_gb_s": 20.0, "gflop_s": 300.0, "threads": 2}
    environment = environment | {"ceilings": {"cpu": slow}}
    found["run-1"] = dataclasses.replace(found["run-1"], environment=environment)
    both = pooled(found)
    assert both.environment["ceilings"]["cpu"] == slow | {"bandwidth_gb_s": 42.3}
    assert found["run-0"].environment["ceilings"]["cpu"]["gflop_s"] == 174.1  # left as it was
    assert not compare(both, pooled(found)).notes


def test_runs_that_ended_unlike_are_refused() -> None:
    found = runs(0, 3)
    failed = change_rows(found["run-1"], "compile", verdict="fail", reason="worst frame")
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
        name: change_rows(report, "compile", memory_mb=2000.0) for name, report in found.items()
    }
    once = compare(pooled(found), pooled(found | {"run-1": larger["run-1"]}))
    assert not once.regressions
    twice = compare(pooled(found), pooled(larger | {"run-1": found["run-1"]}))
    assert {c.what for c in twice.regressions} == {"memory MB"}


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"environment": {"packages": {"torch": "2.14.0"}}}, r"torch \(2.13.0 and 2.14.0\)"),
        ({"environment": {"cpu": "Another"}}, r"cpu \(AMD EPYC and Another\)"),
        ({"bundle": {"recipe": RECIPE | {"source": "other.pt"}}}, r"model \(preset .* other.pt\)"),
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
@pytest.mark.parametrize(
    "rounds", [[0.0] * ROUNDS, [5e-324] * ROUNDS, [1.0] * (ROUNDS - 1), [1.0] * (MOST_ROUNDS + 1)]
)
def test_rounds_of_a_damaged_report_have_no_ratio(rounds: list[float]) -> None:
    found = runs(0, 2)
    values = {"round_ms": rounds, "samples_ms": [0.0]}
    found["run-1"] = change_rows(found["run-1"], "compile", **values)
    if len(rounds) > MOST_ROUNDS:
        found["run-1"] = change_rows(found["run-1"], "eager", round_ms=rounds)
    row = keyed(pooled(found))["compile", "decode", 1]
    assert row.speedup is None and row.speedup_low is None and row.p50_ms
    pooled({name: change_rows(report, "compile", **values) for name, report in found.items()})
    assert compare(pooled(found), pooled(runs(0, 2))).counts["regression"] == 0


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
    (tmp_path / "old" / ".run-9.json").write_text("left by a write that was killed")
    assert read_runs(Path(old))[1] == 3


def test_folders_that_hold_no_runs_are_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = write(tmp_path / "one", runs(0, 1))
    empty = write(tmp_path / "empty", {})
    many = write(tmp_path / "many", {str(n): made_report() for n in range(MOST_POOLED + 1)})
    other = write(tmp_path / "other", runs(0, 1))
    (tmp_path / "other" / "sweep.json").write_text("{}")
    for folder, told in (
        (empty, "has 0 reports"), (many, f"has {MOST_POOLED + 1} reports"), (other, "sweep.json"),
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
    with pytest.raises(typer.BadParameter, match="makes 0 ordered pairs"):
        reruns.main(paths, side=3)
