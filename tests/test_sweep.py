"""Sweeps: every combination once, kept when run again, the best rows, budgets."""

import dataclasses
from pathlib import Path

import pytest
from rich.console import Console

from wmdeploy.benchmarks.bench.options import BenchOptions, Effort
from wmdeploy.benchmarks.report import read_json
from wmdeploy.benchmarks.sweep.budget import missed, parse_budget
from wmdeploy.benchmarks.sweep.run import (
    Cell,
    Sweep,
    SweepOptions,
    nearest,
    recommended,
    sweep,
    with_best,
)
from wmdeploy.benchmarks.sweep.table import sweep_table
from wmdeploy.clips.read import SAMPLE_CLIP
from wmdeploy.errors import WmdeployError


def cell(frame: float, memory: float, psnr: float, batch: int = 1, verdict: str = "pass") -> Cell:
    figures: dict[str, float | None] = {
        "frame": frame, "imagine": frame / 9, "memory": memory, "psnr": psnr, "codes": 100.0,
    }  # fmt: skip
    return Cell("token", "fp32", "ort-cpu", batch, figures, verdict, None)


def test_budget_reads_terms_and_units() -> None:
    limits = parse_budget("frame<33ms, memory <= 2GB,psnr>40, imagine<0.5s")
    assert [(limit.figure, limit.bound) for limit in limits] == [
        ("frame", 33), ("memory", 2000), ("psnr", 40), ("imagine", 500),
    ]  # fmt: skip
    assert limits[1].holds(2000) and not limits[0].holds(33) and not limits[2].holds(None)
    assert missed(limits, {"frame": 40.0, "memory": 1.0, "psnr": None, "imagine": 1.0}) == [
        "frame < 33 ms (is 40)", "psnr > 40 dB (is unknown)",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "got ''"),
        ("frame=33", "got 'frame=33'"),
        ("frame<1.2.3ms", "got 'frame<1.2.3ms'"),
        ("speed<3", "figure 'speed', expected one of frame, imagine"),
        ("memory<3ms", "got 'ms' for memory, expected MB or GB"),
    ],
)
def test_budget_that_says_nothing_is_refused(text: str, message: str) -> None:
    with pytest.raises(WmdeployError, match=message):
        parse_budget(text)


def test_best_cells_are_those_that_none_beats() -> None:
    cells = [
        cell(10, 100, 60),  # fastest
        cell(20, 50, 60),  # smallest
        cell(20, 100, 90),  # most exact
        cell(20, 100, 60),  # beaten by the first
        cell(1, 1, 10, verdict="fail"),
        cell(20, 100, 60, batch=4),  # alone with its batch size
    ]
    assert [c.best for c in with_best(cells)] == [True, True, True, False, False, True]


def test_recommended_cell_has_the_most_frames_within_the_budget() -> None:
    cells = [cell(10, 100, 60), cell(30, 300, 60, batch=4), cell(1, 1, 99, verdict="fail")]
    assert recommended(cells, parse_budget("psnr>40")) is cells[1]
    assert recommended(cells, parse_budget("psnr>40, frame<20ms")) is cells[0]
    limits = parse_budget("frame<1ms")
    assert nearest([cells[1], cells[0]], limits)[0] is cells[0]  # of equals the fastest
    limits = parse_budget("psnr>70, memory<200MB")
    assert recommended(cells, limits) is None
    assert nearest(cells, limits) == (cells[0], ["psnr > 70 dB (is 60)"])


def test_sweep_of_nothing_says_once_why(tmp_path: Path) -> None:
    bench = BenchOptions(tmp_path, (SAMPLE_CLIP,))
    with pytest.raises(WmdeployError) as raised:
        sweep(SweepOptions("nomodel", tmp_path / "s", bench))
    assert str(raised.value).count("no such directory, file or preset") == 1


def test_rows_fit_80_columns() -> None:
    console = Console(width=80, record=True, file=open("/dev/null", "w"))
    console.print(sweep_table(Sweep([cell(123.0, 3715.0, 120.0)]), parse_budget("frame<1ms")))
    line = next(line for line in console.export_text().splitlines() if "ort-cpu" in line)
    assert all(word in line for word in ("token fp32", "3715", "100.00%", "pass", "missed"))


def test_sweep_runs_every_combination_once(micro_model: Path, tmp_path: Path) -> None:
    bench = BenchOptions(
        tmp_path, (SAMPLE_CLIP,), ("ort-cpu",), context=4, horizon=4,
        effort=Effort(runs=2, seconds=0.01),
    )  # fmt: skip
    options = SweepOptions(str(micro_model), tmp_path / "s", bench, ("token", "latent"), ("fp32",))
    found = sweep(options)
    assert [(c.layout, c.backend) for c in found.cells] == [
        (layout, backend) for layout in ("token", "latent") for backend in ("eager", "ort-cpu")
    ]  # fmt: skip
    assert all(c.verdict == "pass" and c.figures["psnr"] for c in found.cells)
    progress: list[tuple[str, str]] = []

    def note(task: str, done: int, total: int, detail: str = "") -> None:
        assert 0 <= done <= total and total > 0
        progress.append((task, detail))

    assert sweep(options, note) == found
    assert not any("ort-cpu" in detail for _, detail in progress)  # nothing was measured again
    longer = dataclasses.replace(options, bench=dataclasses.replace(bench, horizon=5))
    sweep(longer, note)
    details = {detail for task, detail in progress if task == "latent-fp32: time"}
    assert {"eager: frame: round 1", "ort-cpu: frame: round 2"} <= details
    assert read_json(tmp_path / "s" / "token-fp32.json").bundle["horizon"] == 5
