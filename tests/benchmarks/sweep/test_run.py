"""Sweeps: every combination once, kept when run again, the best rows."""

import dataclasses
import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tests.benchmarks.made_reports import report_of, row_of
from tests.benchmarks.sweep.cells import cell
from tests.conftest import Bundles, quantise_micro
from wmdeploy.benchmarks.bench.options import BenchOptions
from wmdeploy.benchmarks.environment import Effort
from wmdeploy.benchmarks.report import read_json
from wmdeploy.benchmarks.sweep.budget import parse_budget
from wmdeploy.benchmarks.sweep.run import (
    SweepOptions,
    nearest,
    recommended,
    sweep,
    with_best,
)
from wmdeploy.benchmarks.sweep.table import sweep_table
from wmdeploy.clips.read import SAMPLE_CLIP
from wmdeploy.errors import WmdeployError
from wmdeploy.families import save_model
from wmdeploy.families.reference.distillation import with_student
from wmdeploy.families.reference.world_model import WorldModel


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
    bench = BenchOptions(bundle=tmp_path, clips=(SAMPLE_CLIP,))
    with pytest.raises(WmdeployError) as raised:
        sweep(SweepOptions(model="nomodel", output=tmp_path / "s", bench=bench))
    assert str(raised.value).count("no such directory, file or preset") == 1


def sweeping(model: str, folder: Path, **changes: Any) -> SweepOptions:
    """A short sweep in float32."""
    bench = BenchOptions(
        bundle=folder,
        clips=(SAMPLE_CLIP,),
        backends=("ort-cpu",),
        context=4,
        horizon=4,
        effort=Effort(runs=2, seconds=0.01),
    )
    given: dict[str, Any] = {"layouts": ("token",), "precisions": ("fp32",)}
    return SweepOptions(model=model, output=folder / "s", bench=bench, **given | changes)


@pytest.mark.usefixtures("constant_ceilings")
@pytest.mark.slow
def test_sweep_runs_every_combination_once(micro_model: Path, tmp_path: Path) -> None:
    options = sweeping(str(micro_model), tmp_path, layouts=("token", "latent"), weights=("float",))
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
    longer = dataclasses.replace(options, bench=dataclasses.replace(options.bench, horizon=5))
    sweep(longer, note)
    details = {detail for task, detail in progress if task == "latent-fp32: time"}
    assert {"eager: frame: round 1", "ort-cpu: frame: round 2"} <= details
    assert read_json(tmp_path / "s" / "token-fp32.json").bundle.horizon == 5


@pytest.mark.usefixtures("constant_ceilings")
@pytest.mark.slow
def test_sweep_tries_all_decoders_of_a_model(micro: WorldModel, tmp_path: Path) -> None:
    """A student is beside the full decoder in one table, and beaten by it in nearness to it."""
    save_model(with_student(micro, "lite", seed=5), tmp_path / "model")
    options = sweeping(str(tmp_path / "model"), tmp_path, weights=("float",))
    found = sweep(options)
    assert [(c.decoder, c.backend) for c in found.cells] == [
        ("full", "eager"), ("full", "ort-cpu"), ("lite", "ort-cpu")
    ]  # fmt: skip
    assert all(c.verdict == "pass" for c in found.cells)
    full, lite = (c.figures["psnr"] or 0 for c in found.cells[1:])
    assert full > 55 and lite < 30  # untrained: another picture than the full decoder's
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(sweep_table(found))
    shown = console.export_text()
    assert all(word in shown for word in ("lite", "ort-cpu", "100.00%", "pass"))
    alone = sweep(dataclasses.replace(options, decoders=("lite",)))
    assert alone.cells == with_best([found.cells[2]])
    with pytest.raises(WmdeployError, match="expected one of full, lite"):
        sweep(dataclasses.replace(options, decoders=("lite", "tiny")))
    report = tmp_path / "s" / "token-fp32-lite.json"
    report.rename(tmp_path / "elsewhere")
    report.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(WmdeployError, match="token-fp32-lite.json: is a link"):
        sweep(options)


def test_sweep_names_a_backend_that_failed_without_times(
    bundles: Bundles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [
        row_of(p50_ms=1.0, verdict="pass"),
        row_of("ort-cpu", verdict="fail", reason="killed by signal 9"),
    ]
    monkeypatch.setattr("wmdeploy.benchmarks.sweep.run._bundle", lambda *given: bundles())
    monkeypatch.setattr("wmdeploy.benchmarks.sweep.run._report", lambda *given: report_of(rows))
    bench = BenchOptions(bundle=tmp_path, clips=(SAMPLE_CLIP,))
    options = SweepOptions(
        model="tiny",
        output=tmp_path / "s",
        bench=bench,
        layouts=("token",),
        precisions=("fp32",),
        weights=("float",),
    )
    made = sweep(options)
    assert [c.backend for c in made.cells] == ["eager"]
    assert made.skipped == {"token-fp32, ort-cpu": "failed: killed by signal 9"}


def test_sweep_searches_integer_weights_too(
    micro_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quantise_micro(monkeypatch)
    options = sweeping(str(micro_model), tmp_path)
    found = sweep(options)
    cells = [(c.weights, c.backend) for c in found.cells]
    assert cells[:3] == [("float", "eager"), ("float", "ort-cpu"), ("int8", "eager")]
    assert (tmp_path / "s" / "token-fp32-int8.json").is_file()
    assert ("int8", "ort-cpu") in cells
