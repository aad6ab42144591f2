import dataclasses
import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from tests.made_reports import made_report
from wmdeploy import cli
from wmdeploy.benchmarks.compare.change import Status, ratio_of
from wmdeploy.benchmarks.compare.matched import matched_slowdown
from wmdeploy.benchmarks.compare.run import Comparison, compare, parse_percent
from wmdeploy.benchmarks.compare.table import comparison_table, summary
from wmdeploy.benchmarks.report import Curve, Parity, Report, Row, read_json
from wmdeploy.benchmarks.stats import noise
from wmdeploy.errors import WmdeployError
from wmdeploy.files import write_document

STORED = Path(__file__).parent / "reports"  # of older schemas


@pytest.fixture(scope="module")
def report() -> Report:
    return made_report()


def with_rows(report: Report, change: Any) -> Report:
    """`change` gets each row and gives it back, another one, or None to leave it out."""
    rows = [changed for row in report.rows if (changed := change(row)) is not None]
    return dataclasses.replace(report, rows=rows)


def with_(report: Report, part: str, **values: Any) -> Report:
    changed: dict[str, Any] = {part: {**getattr(report, part), **values}}
    return dataclasses.replace(report, **changed)


def with_parity(report: Report, backend: str, stage: str, **values: Any) -> Report:
    def change(row: Row) -> Row:
        if (row.backend, row.stage) != (backend, stage) or row.parity is None:
            return row
        return dataclasses.replace(row, parity=dataclasses.replace(row.parity, **values))

    return with_rows(report, change)


def with_curves(report: Report, change: Any) -> Report:
    return dataclasses.replace(report, curves=[change(curve) for curve in report.curves])


def status(found: Comparison, backend: str, what: str, stage: str | None = None) -> Status:
    (change,) = [c for c in found.changes if c.backend == backend and c.what.startswith(what)
                 and stage in (None, c.stage)]  # fmt: skip
    return change.status


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


@pytest.mark.parametrize("stage", ["encode", "step", "decode", "frame"])
def test_a_slowdown_of_a_tenth_is_flagged(stage: str) -> None:
    for seed in range(0, 20, 2):
        found = compare(made_report(seed), made_report(seed + 1, slower={stage: 1.1}))
        flagged = {(c.stage, c.backend, c.what) for c in found.regressions}
        assert flagged and {where[:2] for where in flagged} == {(stage, "compile")}
        assert found.changes[0] in found.regressions


def rounds_of_a_neighbour(seed: int, busy: float, slower: float = 1.0) -> np.ndarray:
    """(2, rounds): a neighbour that comes and goes costs the baseline 30%, a backend 10%."""
    rng = np.random.default_rng(seed)
    state = rng.random(60) < busy
    own = 19 * slower * np.where(state, 1.1, 1) * np.exp(rng.normal(0, 0.02, 60))
    return np.array([22 * np.where(state, 1.3, 1) * np.exp(rng.normal(0, 0.02, 60)), own])


def test_a_busier_neighbour_is_no_change() -> None:
    quiet, busy = rounds_of_a_neighbour(0, 0.2), rounds_of_a_neighbour(1, 0.8)
    ratios = [np.median(base / own) for base, own in (quiet, busy)]
    assert ratios[1] > 1.15 * ratios[0]
    found = matched_slowdown(quiet, busy)
    assert abs(found.log) < 0.02 and abs(found.log) < 4 * found.error
    back = matched_slowdown(busy, quiet)
    assert abs(back.log) < 0.02  # where the ratio alone says 15% slower
    slower = matched_slowdown(busy, quiet * [[1], [1.1]])
    assert slower.log == pytest.approx(math.log(1.1), abs=0.02)
    assert slower.log > noise(slower, rows=20)


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


def test_figures_of_a_damaged_report_are_told(report: Report) -> None:
    def rounds(ms: float) -> Any:
        return lambda row: dataclasses.replace(
            row, round_ms=[1.0 if row.backend == "eager" else ms] * len(row.round_ms)
        )

    found = compare(with_rows(report, rounds(1e-300)), with_rows(report, rounds(1e300)))
    assert found.regressions[0].change == "over 100,000,000% slower"


def test_few_rounds_are_compared_by_their_ratio(report: Report) -> None:
    few = with_rows(report, lambda row: dataclasses.replace(row, round_ms=row.round_ms[:5]))
    assert not compare(few, few).regressions
    slow = with_rows(few, lambda row: dataclasses.replace(
        row, **{n: v / 2 for n in ("speedup", "speedup_low", "speedup_high")
                if row.backend == "compile" and row.speedup_low and (v := getattr(row, n))}
    ))  # fmt: skip
    assert {c.backend for c in compare(few, slow).regressions} == {"compile"}


def test_bursts_in_one_block_of_a_round_hardly_count() -> None:
    old, new = rounds_of_a_neighbour(0, 0.5), rounds_of_a_neighbour(1, 0.5)
    before = matched_slowdown(old, new).log
    new[1, ::8] *= 4
    assert matched_slowdown(old, new).log == pytest.approx(before, abs=0.02)


def test_a_baseline_that_never_varies_has_no_slope() -> None:
    old = np.array([[10.0] * 20, np.random.default_rng(0).normal(5, 0.1, 20)])
    found = matched_slowdown(old, old * [[1], [1.1]])
    assert found.log == pytest.approx(math.log(1.1)) and 0 < found.error < 0.02


def test_a_gain_is_an_improvement(report: Report) -> None:
    found = compare(report, made_report(1, slower={"decode": 0.8}))
    assert status(found, "compile", "speed-up", "decode") == "improvement"
    assert not found.regressions


def test_a_slowdown_below_the_limit_is_none(report: Report) -> None:
    found = compare(report, made_report(1, slower={"decode": 1.1}), fail_on=0.3)
    assert not found.regressions


def test_wide_intervals_are_not_known_well_enough() -> None:
    old, new = (made_report(seed, half_width=0.1, batches=(1,)) for seed in (0, 1))
    noisy = with_rows(new, lambda row: dataclasses.replace(row, noisy=row.speedup_low is not None))
    found = compare(old, noisy)
    assert not found.regressions and found.counts["unclear"] == 14
    assert "not known well enough" in summary(found)
    slow = compare(old, made_report(1, half_width=0.1, slower={"step": 5.0}, batches=(1,)))
    assert status(slow, "compile", "speed-up", "step") == "regression"  # beyond any noise


def test_a_slower_baseline_and_single_times_are_information(report: Report) -> None:
    def change(row: Row) -> Row:
        slower = row.backend == "eager" or row.stage in ("load", "first_call")
        return dataclasses.replace(row, p50_ms=3 * row.p50_ms) if slower and row.p50_ms else row

    found = compare(report, with_rows(report, change))
    assert not found.regressions
    assert status(found, "eager", "p50 ms", "decode") == "information"
    assert status(found, "ort-cpu", "p50 ms", "load") == "information"


@pytest.mark.parametrize(
    ("factor", "fail_on", "expected"),
    [(1.04, 0.0, "unchanged"), (1.06, 0.0, "regression"), (1.2, 0.25, "unchanged"),
     (1.3, 0.25, "regression"), (0.9, 0.05, "improvement")],
)  # fmt: skip
def test_memory_counts_from_five_per_cent(
    report: Report, factor: float, fail_on: float, expected: str
) -> None:
    def change(row: Row) -> Row:
        if (row.backend, row.batch) != ("ort-cpu", 4):
            return row
        return dataclasses.replace(row, memory_mb=factor * (row.memory_mb or 0))

    found = compare(report, with_rows(report, change), fail_on)
    memory = {(c.backend, c.batch): c.status for c in found.changes if c.what == "memory MB"}
    assert len(memory) == 6 and memory.pop(("ort-cpu", 4)) == expected
    assert set(memory.values()) == {"unchanged"}


@pytest.mark.parametrize(
    ("stage", "values", "what", "expected"),
    [
        ("frame", {"worst_frame_psnr_db": {"1": 83.9, "64": 70.0}}, "worst frame (", "regression"),
        ("frame", {"worst_frame_psnr_db": {"64": 200.0}}, "worst frame (", "improvement"),
        ("frame", {"code_agreement": 0.99}, "codes equal", "regression"),
        ("frame", {"code_agreement": 0.9995}, "codes equal", "unchanged"),
        ("frame", {"max_abs": 2.0}, "max error", "unchanged"),
        ("frame", {"max_abs": 3.0}, "max error", "regression"),
        ("step", {"max_abs": 4.1e-5}, "max error", "regression"),
        ("step", {"max_abs": 3.9e-5}, "max error", "unchanged"),
    ],
)
def test_parity_of_a_stage(
    report: Report, stage: str, values: dict[str, Any], what: str, expected: str
) -> None:
    found = compare(report, with_parity(report, "ort-cpu", stage, **values))
    assert status(found, "ort-cpu", what, stage) == expected
    assert status(found, "compile", what, stage) == "unchanged"


def test_tiny_errors_may_double(report: Report) -> None:
    old = with_parity(report, "ort-cpu", "step", max_abs=1e-8)
    found = compare(old, with_parity(report, "ort-cpu", "step", max_abs=9e-7))
    assert status(found, "ort-cpu", "max error", "step") == "unchanged"


def test_frames_that_are_all_but_equal_may_move(report: Report) -> None:
    def curves(level: float) -> Report:
        return with_curves(report, lambda c: dataclasses.replace(c, free_db=[level] * 9))

    assert not compare(curves(120.0), curves(100.5)).regressions
    assert len(compare(curves(120.0), curves(98.0)).regressions) == 2  # of two backends


def test_a_clip_that_got_worse_shows_although_another_is_worse_still(report: Report) -> None:
    def change(curve: Curve) -> Curve:
        if (curve.backend, curve.clip) != ("compile", "b.mkv"):
            return curve
        return dataclasses.replace(curve, forced_db=[db - 5 for db in curve.forced_db])

    deep = with_curves(
        report,
        lambda c: dataclasses.replace(c, forced_db=[20.0] * 60) if c.clip == "a.mkv" else c,
    )
    found = compare(deep, with_curves(deep, change))
    (flagged,) = found.regressions
    assert flagged.backend == "compile" and "forced (b.mkv" in flagged.what


def test_codes_of_a_clip_and_their_first_difference(report: Report) -> None:
    def change(curve: Curve) -> Curve:
        return dataclasses.replace(curve, code_agreement=0.9, first_difference=3)

    found = compare(report, with_curves(report, change))
    assert {c.what for c in found.regressions} == {"codes equal, a.mkv", "codes equal, b.mkv"}
    assert status(found, "compile", "first other code, a.mkv") == "information"


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


@pytest.mark.parametrize(
    ("part", "values", "message"),
    [
        ("bundle", {"clips": ["a.mkv"]}, "clips (a.mkv, b.mkv and a.mkv)"),
        ("bundle", {"context": 4}, "context (8 and 4)"),
        ("bundle", {"horizon": 64}, "horizon (128 and 64)"),
        ("bundle", {"refill": 4}, "refill (none and 4)"),
        ("bundle", {"recipe": {"layout": "latent", "precision": "fp32"}}, "layout (token and"),
        ("bundle", {"model": {"temporal": {"layers": 6, "context": 32}}}, "temporal.layers (4"),
        ("environment", {"settings": {"tf32": True}}, "settings.tf32 (False and True)"),
    ],
)
def test_other_things_are_refused(
    report: Report, part: str, values: dict[str, Any], message: str
) -> None:
    with pytest.raises(WmdeployError) as caught:
        compare(report, with_(report, part, **values))
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("values", [{"cpu": "other"}, {"cores": 8}, {"gpu": {"name": "H200"}}])
def test_on_other_hardware_only_ratios_are_judged(report: Report, values: dict[str, Any]) -> None:
    def change(row: Row) -> Row:
        grown = dataclasses.replace(row, memory_mb=9 * (row.memory_mb or 0))
        return dataclasses.replace(grown, p50_ms=9 * row.p50_ms) if row.p50_ms else grown

    moved = with_(with_rows(report, change), "environment", **values)
    found = compare(report, moved)
    assert not found.regressions and any("other hardware" in note for note in found.notes)
    assert not any(c.what == "p50 ms" for c in found.changes)
    slow = with_(made_report(1, slower={"decode": 1.2}), "environment", **values)
    assert {c.stage for c in compare(report, slow).regressions} == {"decode"}
    worse = with_parity(moved, "ort-cpu", "step", max_abs=1.0)
    assert status(compare(report, worse), "ort-cpu", "max error", "step") == "information"


def test_what_else_differs_is_noted(report: Report) -> None:
    other = with_(report, "environment", packages={"wmdeploy": "0.1.0", "torch": "2.14.0"},
                  ceilings={"cpu": {"bandwidth_gb_s": 20.0, "gflop_s": 174.0}})  # fmt: skip
    ceilings, packages = compare(report, other).notes
    assert "torch (2.13.0 and 2.14.0)" in packages
    assert "from 42 to 20 GB/s" in ceilings


def test_old_reports_are_compared_by_their_samples() -> None:
    old = read_json(STORED / "schema-1.json")
    found = compare(old, old)
    assert not found.regressions and len(found.notes) == 2 and "schema 1" in found.notes[0]
    speed = [c for c in found.changes if c.what == "speed-up"]
    assert len(speed) == 14 and all(float(c.noise.rstrip("%")) > 0 for c in speed)

    def change(row: Row) -> Row:
        if (row.backend, row.stage) != ("compile", "slide"):
            return row
        return dataclasses.replace(row, samples_ms=[1.5 * ms for ms in row.samples_ms])

    (flagged,) = compare(old, with_rows(old, change)).regressions
    assert (flagged.stage, flagged.backend, flagged.change) == ("slide", "compile", "50.0% slower")


def test_samples_that_drift_are_less_certain_than_shuffled_ones() -> None:
    drifting = [float(ms) for ms in 10 + np.sin(np.arange(400) / 60)]
    shuffled = [float(ms) for ms in np.random.default_rng(0).permutation(drifting)]

    def error(samples: list[float]) -> float:
        row = Row("a", "fp32", "cpu", "step", 1, p50_ms=10.0, samples_ms=samples)
        ratio = ratio_of(row, row)
        assert ratio is not None and ratio.estimated
        return ratio.error

    assert error(drifting) > 2 * error(shuffled)


def test_figures_that_make_no_sense_are_no_ratio() -> None:
    row = Row("a", "fp32", "cpu", "step", 1, speedup=2.0, speedup_low=0.0, speedup_high=3.0)
    assert ratio_of(row, None) is None
    zeros = dataclasses.replace(row, samples_ms=[0.0] * 9)
    assert ratio_of(zeros, zeros) is None
    whole = ratio_of(dataclasses.replace(row, speedup_low=1.0, speedup_high=4.0), None)
    assert whole is not None and whole.log == pytest.approx(math.log(2))


def test_other_numbers_of_threads_are_refused(report: Report) -> None:
    def one_thread(row: Row) -> Row:
        return dataclasses.replace(row, threads=1) if row.backend == "compile" else row

    other = with_rows(report, one_thread)
    with pytest.raises(WmdeployError, match=r"threads of compile \(2 and 1\)"):
        compare(report, other)
    assert not compare(report, with_(other, "environment", cores=1)).regressions
    named = with_rows(report, lambda row: dataclasses.replace(row, backend=f"{row.backend} (2)"))
    with pytest.raises(WmdeployError, match=r"baseline \(eager and eager \(2\)\)"):
        compare(report, named)
    assert not compare(named, named).regressions


def test_two_rows_of_the_same_are_refused(report: Report) -> None:
    with pytest.raises(WmdeployError, match="two rows of eager, load"):
        compare(report, dataclasses.replace(report, rows=[*report.rows, *report.rows]))


def test_a_report_without_rows_is_refused(report: Report) -> None:
    with pytest.raises(WmdeployError, match="NEW has no rows"):
        compare(report, dataclasses.replace(report, rows=[]))


def test_parity_that_only_one_has_is_left_alone(report: Report) -> None:
    bare = with_rows(report, lambda row: dataclasses.replace(row, parity=None))
    none = with_rows(report, lambda row: dataclasses.replace(row, parity=Parity()))
    for other in (bare, none):
        assert not compare(report, dataclasses.replace(other, curves=[])).regressions


@pytest.mark.parametrize(("text", "value"), [("5%", 0.05), ("5", 0.05), (" 0.5 % ", 0.005)])
def test_percentages(text: str, value: float) -> None:
    assert parse_percent(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["", "five", "-1", "nan", "inf", "5%%"])
def test_other_percentages_are_refused(text: str) -> None:
    with pytest.raises(WmdeployError, match="expected a percentage such as 5%"):
        parse_percent(text)


def compare_command(tmp_path: Path, old: Report, new: Report, *options: str) -> int:
    write_document(old, tmp_path / "old.json")
    write_document(new, tmp_path / "new.json")
    with pytest.raises(SystemExit) as caught:
        cli.main(["compare", str(tmp_path / "old.json"), str(tmp_path / "new.json"), *options])
    assert isinstance(caught.value.code, int | None)
    return caught.value.code or 0


def test_command_exits_with_1_on_a_regression(
    tmp_path: Path, report: Report, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compare_command(tmp_path, report, made_report(1)) == 0
    told = capsys.readouterr().out
    assert told.startswith("no regressions, no improvements") and "NEW against OLD" not in told
    slow = made_report(1, slower={"decode": 1.1})
    assert compare_command(tmp_path, report, slow) == 1
    told = capsys.readouterr().out
    assert "regression" in told and "decode" in told and "encode" not in told
    assert compare_command(tmp_path, report, slow, "--all", "--fail-on", "20") == 0
    assert "encode" in capsys.readouterr().out


def test_command_refuses_in_one_line(
    tmp_path: Path, report: Report, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compare_command(tmp_path, report, with_(report, "bundle", horizon=4)) == 1
    assert capsys.readouterr().err.startswith("error: OLD and NEW measured different things")
    document = json.loads((tmp_path / "old.json").read_text())
    (tmp_path / "old.json").write_text(json.dumps(document | {"rows": 1}))
    with pytest.raises(SystemExit):
        cli.main(["compare", str(tmp_path / "old.json"), str(tmp_path / "new.json")])
    assert "is no report of wmdeploy bench" in " ".join(capsys.readouterr().err.split())


def test_the_table_fits_a_terminal_of_80(report: Report) -> None:
    found = compare(report, made_report(1, slower={"step": 2.0}))
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(comparison_table(found, everything=True))
    told = console.export_text()
    assert "slower" in told and "unchanged" in told and "…" not in told
