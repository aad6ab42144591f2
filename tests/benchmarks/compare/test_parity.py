"""Frames, codes and errors of two reports."""

import dataclasses
from typing import Any

import pytest

from tests.benchmarks.compare.helpers import status
from tests.benchmarks.made_reports import with_curves, with_parity, with_rows
from wmdeploy.benchmarks.compare.run import compare
from wmdeploy.benchmarks.report import Curve, OutputParity, Parity, Report
from wmdeploy.benchmarks.stages import StageName


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
    report: Report, stage: StageName, values: dict[str, Any], what: str, expected: str
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


def test_parity_that_only_one_has_is_left_alone(report: Report) -> None:
    bare = with_rows(report, lambda row: dataclasses.replace(row, parity=None))
    none = with_rows(report, lambda row: dataclasses.replace(row, parity=Parity()))
    for other in (bare, none):
        assert not compare(report, dataclasses.replace(other, curves=[])).regressions


def test_model_without_codes_is_compared_by_its_frames(report: Report) -> None:
    bare = with_curves(
        report, lambda c: dataclasses.replace(c, code_agreement=None, imagined_agreement=None)
    )
    whats = {change.what for change in compare(bare, bare).changes}
    assert not any("code" in what and ".mkv" in what for what in whats)
    assert any(what.startswith("worst frame, free") for what in whats)


@pytest.mark.parametrize(
    ("values", "what"),
    [
        ({"agreement": 0.99}, "reward equal"),
        ({"relative": 3e-4}, "reward, max error"),
        ({"variation": 3e-4}, "reward, variation"),
    ],
)
def test_named_outputs_may_get_no_worse(
    report: Report, values: dict[str, float], what: str
) -> None:
    exact = {"agreement": 1.0, "relative": 1e-4, "variation": 1e-4}

    def outputs(**changed: float) -> Report:
        parity = OutputParity(**exact | changed)
        return with_parity(report, "ort-cpu", "frame", outputs={"reward": parity})

    assert not compare(outputs(), outputs()).regressions
    (flagged,) = compare(outputs(), outputs(**values)).regressions
    assert (flagged.what, flagged.stage, flagged.backend) == (what, "frame", "ort-cpu")
    assert not compare(outputs(**values), outputs()).regressions


def test_what_follows_another_draw_is_not_compared(report: Report) -> None:
    """Of a model that draws tokens: from horizon 9 on it is another rollout."""

    def drawn(at: int | None, db: float) -> Report:
        made = with_parity(
            report, "ort-cpu", "frame", worst_frame_psnr_db={"64": db}, max_abs=200.0 - db
        )
        return with_curves(
            made,
            lambda c: (
                dataclasses.replace(c, free_db=[90.0] * 8 + [db] * 8, first_draw=at)
                if c.backend == "ort-cpu"
                else c
            ),
        )

    assert not compare(drawn(None, 90.0), drawn(9, 12.0)).regressions
    assert compare(drawn(None, 90.0), drawn(None, 12.0)).regressions
    assert compare(drawn(None, 90.0), drawn(10, 12.0)).regressions  # one frame before it is off
