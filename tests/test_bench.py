import dataclasses
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import psutil
import pytest
import torch
from rich.console import Console

import wmdeploy.benchmarks.bench.machine
from tests.conftest import MICRO, Bundles
from wmdeploy.benchmarks.bench.assemble import clock_warnings
from wmdeploy.benchmarks.bench.interleave import Run
from wmdeploy.benchmarks.bench.machine import Ceilings
from wmdeploy.benchmarks.bench.options import BenchOptions, Effort
from wmdeploy.benchmarks.bench.run import bench
from wmdeploy.benchmarks.bench.workers import Outcome
from wmdeploy.benchmarks.protocol import Samples
from wmdeploy.benchmarks.render.terminal import report_tables
from wmdeploy.benchmarks.report import Memory, Report, Row, read_json
from wmdeploy.benchmarks.stages import STAGES
from wmdeploy.benchmarks.worker.timing import Stage, measure
from wmdeploy.bundle import Bundle, describe_files
from wmdeploy.clips.read import SAMPLE_CLIP, SAMPLE_CLIPS
from wmdeploy.engines.base import BACKENDS
from wmdeploy.engines.session import Session
from wmdeploy.errors import BackendError, BundleError, ClipError
from wmdeploy.files import write_document
from wmdeploy.gpu import GpuState
from wmdeploy.manifest import write_manifest
from wmdeploy.models.world_model import WorldModel

QUICK = Effort(runs=3, seconds=0.05, block_ms=1)
S = MICRO.temporal.context


def run(bundle: Bundle, *backends: str, **changes: Any) -> Report:
    options = BenchOptions(bundle.path, (SAMPLE_CLIP,), backends, context=4, effort=QUICK)
    return bench(dataclasses.replace(options, **changes))


@pytest.fixture(scope="module", autouse=True)
def ceilings_once() -> Iterator[None]:
    """The machine does not change between the tests, and measuring it takes seconds."""
    known: dict[str, Ceilings] = {}
    measured = wmdeploy.benchmarks.bench.machine.ceilings_of

    def once(device: str, tf32: bool) -> Ceilings:
        if device not in known:
            known[device] = measured(device, tf32)
        return known[device]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wmdeploy.benchmarks.bench.machine, "ceilings_of", once)
        yield


@pytest.fixture(scope="module")
def report(bundles: Bundles) -> Report:
    return run(bundles(), "eager", "ort-cpu", clips=SAMPLE_CLIPS)


def shown(report: Report, width: int) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(*report_tables(report))
    return console.export_text()


def row(report: Report, backend: str, stage: str) -> Row:
    return next(r for r in report.rows if (r.backend, r.stage) == (backend, stage))


def test_every_stage_of_every_backend_has_a_passing_row(report: Report) -> None:
    assert [(r.stage, r.backend) for r in report.rows] == [
        (stage, backend)
        for stage in STAGES
        if stage != "download"  # from a GPU
        for backend in ("eager", "ort-cpu")
    ]
    for r in report.rows:
        assert r.verdict == "pass" and r.reason is None
        assert r.p50_ms is not None and r.p99_ms is not None and r.memory_mb is not None
        assert 0 < r.p50_ms <= r.p99_ms and r.memory_mb > 50
        assert len(r.samples_ms) >= (1 if r.stage in ("load", "first_call") else QUICK.runs)
        assert r.threads and r.threads >= 1
    assert report.environment["affinity"] == sorted(os.sched_getaffinity(0))


def test_speed_up_is_over_the_baseline_of_the_same_round(report: Report) -> None:
    for stage in dict.fromkeys(r.stage for r in report.rows):
        mine, base = row(report, "ort-cpu", stage), row(report, "eager", stage)
        assert mine.p50_ms and base.p50_ms
        assert base.speedup == 1
        if stage in ("load", "first_call"):
            assert mine.speedup == pytest.approx(base.p50_ms / mine.p50_ms)
            assert mine.speedup_low is None and mine.warmup is None and not mine.round_ms
            continue
        assert len(mine.round_ms) == len(base.round_ms) >= QUICK.runs
        each = [b / m for b, m in zip(base.round_ms, mine.round_ms, strict=True)]
        assert mine.speedup and mine.speedup == pytest.approx(float(np.median(each)))
        assert mine.speedup_low and mine.speedup_high and mine.warmup and mine.warmup >= 3
        low, high = mine.speedup_low, mine.speedup_high
        assert min(each) <= low <= mine.speedup <= high <= max(each)
        assert mine.noisy == ((high - low) / 2 / mine.speedup > QUICK.precision)
    noisy = [r.stage for r in report.rows if r.noisy]
    told = [w for w in report.warnings if "too noisy" in w]
    assert len(told) == bool(noisy) and all(stage in told[0] for stage in noisy)


def test_floor_is_the_larger_of_bytes_and_operations(report: Report, bundles: Bundles) -> None:
    ceilings = report.environment["ceilings"]["cpu"]
    decoder = bundles().manifest.graphs["decoder"]
    moved = decoder.weight_bytes + sum(t.bytes(1) for t in (*decoder.inputs, *decoder.outputs))
    expected = max(
        moved / ceilings["bandwidth_gb_s"] / 1e6, decoder.flops / ceilings["gflop_s"] / 1e6
    )
    decode = row(report, "ort-cpu", "decode")
    assert decode.floor_ms == pytest.approx(expected)
    assert decode.bound == "compute"  # convolutions
    assert report.bundle["graph_bytes"]["decoder"] == moved
    assert decode.of_floor == pytest.approx(expected / (decode.p50_ms or 0))


def test_parity_covers_the_horizons(report: Report) -> None:
    parity = row(report, "ort-cpu", "frame").parity
    assert parity is not None and parity.psnr_db is not None and parity.worst_frame_psnr_db
    assert list(parity.psnr_db) == ["1", str(S), "8", str(2 * S), str(4 * S)]
    assert min(parity.worst_frame_psnr_db.values()) >= 60 and parity.code_agreement == 1
    assert row(report, "eager", "frame").parity is None
    worst = [min(c.free_db) for c in report.curves]
    assert min(parity.worst_frame_psnr_db.values()) == pytest.approx(min(worst))


def test_curves_are_of_every_clip(report: Report) -> None:
    assert [(c.backend, c.clip) for c in report.curves] == [
        ("ort-cpu", path.name) for path in SAMPLE_CLIPS
    ]
    assert report.bundle["clips"] == [path.name for path in SAMPLE_CLIPS]
    for c in report.curves:
        assert len(c.free_db) == len(c.forced_db) == 4 * S
        assert c.code_agreement == c.imagined_agreement == 1 and c.first_difference is None
    assert set(report.strips) == {"ort-cpu"} and not report.swaps and not report.pacing


def test_other_layout_is_in_the_report(report: Report, bundles: Bundles) -> None:
    other = report.bundle["other_layout"]
    assert other["layout"] == "latent"
    assert other["graph_weight_bytes"].keys() == report.bundle["graph_weight_bytes"].keys()


def test_json_is_valid_and_reads_back(report: Report, tmp_path: Path) -> None:
    write_document(report, tmp_path / "r.json")
    document = json.loads((tmp_path / "r.json").read_text(), parse_constant=pytest.fail)
    assert document["schema"] == 3
    assert {"environment", "bundle", "rows"} <= set(document)
    assert set(document["rows"][0]) >= {
        "backend", "precision", "device", "stage", "batch", "p50_ms", "p90_ms", "p99_ms",
        "frames_per_s", "speedup", "floor_ms", "of_floor", "memory_mb", "parity", "verdict",
        "reason",
    }  # fmt: skip
    assert read_json(tmp_path / "r.json") == report


def test_tables_show_every_backend(report: Report) -> None:
    text = shown(report, 160)
    for word in ("ort-cpu", "imagine", "speed-up", "of floor", "worst dB to 12", "GFLOP/s"):
        assert word in text


def test_latency_fits_100_columns(report: Report) -> None:
    lines = shown(report, 100).splitlines()
    for r in (r for r in report.rows if r.backend == "ort-cpu" and r.round_ms):
        assert r.speedup and r.speedup_low and r.speedup_high
        half = (r.speedup_high - r.speedup_low) / 2 / r.speedup
        cell = f" {r.speedup:.2f}x ±{100 * half:.1f}% "  # on one line, with the bound behind it
        assert any(
            cell in line and {"compute": " ops", "bandwidth": " bytes", None: ""}[r.bound] in line
            for line in lines
        ), cell


def test_wrong_weights_fail_however_fast(bundles: Bundles, tmp_path: Path) -> None:
    """One weight tensor of the decoder is scaled, and the hashes are made to fit."""
    broken = tmp_path / "broken"
    shutil.copytree(bundles().path, broken)
    model = onnx.load(broken / "decoder.onnx")
    weight = next(t for t in model.graph.initializer if "conv_out" in t.name and len(t.dims) == 4)
    weight.raw_data = (onnx.numpy_helper.to_array(weight) * 1.2).tobytes()
    onnx.save(
        model, broken / "decoder.onnx", save_as_external_data=True, location="decoder.onnx.data"
    )
    bundle = Bundle.open(bundles().path)
    write_manifest(dataclasses.replace(bundle.manifest, files=describe_files(broken)), broken)
    report = run(Bundle.open(broken), "ort-cpu", clips=SAMPLE_CLIPS, fps=100.0, pace_seconds=0.2)
    failed = row(report, "ort-cpu", "frame")
    assert failed.verdict == "fail" and failed.reason and "worst frame" in failed.reason
    worst = min(report.curves, key=lambda curve: min(curve.free_db))
    assert failed.reason.endswith(f", on {worst.clip}; --swap tells which graph")
    assert row(report, "eager", "frame").verdict == "pass"
    assert "failed: ort-cpu: worst frame" in shown(report, 100)
    swapped = run(Bundle.open(broken), "ort-cpu", swap=True, horizon=8)
    found = swapped.swaps["ort-cpu"]
    assert min(found, key=lambda graph: found[graph]) == "decoder" and found["step"] > 60
    assert "--swap" not in (row(swapped, "ort-cpu", "frame").reason or "")
    assert "which graph brings the error in" in shown(swapped, 100)
    paced = {p.backend: p for p in report.pacing}
    assert list(paced) == ["eager", "ort-cpu"]
    assert all(p.frames == 20 and len(p.latency_ms) <= 20 for p in paced.values())
    assert "100 frames per second" in shown(report, 100)


def test_batches_have_rows_of_their_own_up_to_what_the_backend_takes(bundles: Bundles) -> None:
    report = run(bundles(), "ort-cpu", batches=(1, 2, 8, 2))  # the bundle's largest is 4
    found = {(r.backend, r.stage, r.batch) for r in report.rows if r.batch > 1}
    assert len(found) == len([r for r in report.rows if r.batch > 1])
    both = {("eager", stage, b) for stage in ("frame", "imagine") for b in (2, 8)}
    assert found == both | {("ort-cpu", stage, 2) for stage in ("frame", "imagine")}
    for r in report.rows:
        if r.batch > 1:
            assert r.p50_ms and r.frames_per_s == pytest.approx(r.batch * 1e3 / r.p50_ms)
            assert r.memory is not None and r.memory.resident == r.memory_mb
            assert r.backend != "eager" or r.speedup == 1
            assert r.parity is None  # measured at batch 1
    decode = {r.batch: r.floor_ms for r in report.rows if r.stage == "frame" and r.floor_ms}
    assert decode[1] < decode[2] < decode[8] < 8.1 * decode[1]
    assert "sessions that run together" in shown(report, 160)


def test_skipped_backends_are_told_by_reason() -> None:
    rows = [Row(n, None, None, "frame", 1, reason="no GPU") for n in ("ort-cuda", "tensorrt")]
    about = {"name": "x", "recipe": {"precision": "fp16"}}
    report = Report(1, {"ceilings": {}}, about, [Row("eager", "fp32", "cpu", "frame", 1), *rows])
    assert (
        report_tables(report)[-1].caption == "skipped: eager: \nskipped: ort-cuda, tensorrt: no GPU"
    )


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_backends_of_a_gpu_are_skipped_without_one(bundles: Bundles) -> None:
    names = [name for name, entry in BACKENDS.items() if entry.device == "cuda"]
    report = run(bundles(), *names)
    for name in names:
        skipped = row(report, name, "frame")
        assert skipped.verdict == "skipped" and "needs an NVIDIA GPU" in (skipped.reason or "")


@pytest.mark.parametrize(
    ("clocks", "reasons", "warnings"),
    [
        ([1980, 1950], [(), ()], []),
        ([1980, 1200], [(), ()], ["x: the GPU's clock moved from 1200 to 1980 MHz"]),
        ([1980, 1980], [(), ("SwPowerCap",)], ["x: the GPU's clock was held down: SwPowerCap"]),
    ],
)
def test_moving_clock_is_told(
    clocks: list[int], reasons: list[tuple[str, ...]], warnings: list[str]
) -> None:
    states = [GpuState(c, 2619, 40, None, r) for c, r in zip(clocks, reasons, strict=True)]
    runs = [Run("frame", 1, Samples([1.0], [0.9]), [state]) for state in states]
    outcome = Outcome("x", Path(), runs=runs)
    assert clock_warnings(outcome) == warnings
    assert [state["sm_clock_mhz"] for state in outcome.gpu_states] == clocks


def test_memory_on_a_gpu_is_shown_as_each_counts_it() -> None:
    memory = Memory(900.0, 1600.0, 1900.0, 250.0, {"weights": 663.0, "scratch": 180.0})
    frame = Row("tensorrt", "fp16", "cuda:0", "frame", 1, memory=memory, memory_mb=1600.0)
    about = {"name": "x", "recipe": {"precision": "fp16"}}
    text = shown(Report(1, {"ceilings": {}}, about, [frame]), 160)
    for cell in ("1600", "1900", "250", "weights 663, scratch 180", "900"):
        assert cell in text


def test_memory_headline_says_who_counted() -> None:
    assert Memory(5.0).headline == (5.0, "resident")
    assert Memory(5.0, gpu_used=7.0).headline == (7.0, "GPU, all")
    assert Memory(5.0, gpu_used=7.0, gpu_grown=2.0).headline == (2.0, "GPU, growth")
    assert Memory(5.0, gpu_process=6.0, gpu_used=7.0).headline == (6.0, "GPU, process")


def test_float16_has_a_floor_of_its_own_only_on_a_gpu() -> None:
    cpu, gpu = Ceilings(40, 100, 2), Ceilings(4000, 50e3, 2, half_gflop_s=790e3)
    assert (cpu.rate("fp32"), cpu.rate("fp16")) == (100, 100)
    assert (gpu.rate("fp32"), gpu.rate("fp16")) == (50e3, 790e3)


def test_committed_reports_still_read() -> None:
    for path in (Path(__file__).parent.parent / "docs" / "results").glob("*.json"):
        assert read_json(path).rows


def test_fp16_bundle_passes_its_own_gate(bundles: Bundles) -> None:
    # three frames of context: a code of the fourth ties, and in 64 codes of random weights that one
    # weighs so much that the first frame is another
    report = run(bundles("token", "fp16"), "ort-cpu", context=3)
    frame = row(report, "ort-cpu", "frame")
    assert frame.precision == "fp16" and frame.verdict == "pass", frame.reason
    assert (
        frame.parity and frame.parity.max_abs and row(report, "eager", "frame").precision == "fp32"
    )


@pytest.mark.parametrize("context", [1, S])
def test_imagine_times_the_step_graph(micro: WorldModel, frames: np.ndarray, context: int) -> None:
    from tests.test_engines import modules
    from wmdeploy.benchmarks.stages import SESSION_STAGES
    from wmdeploy.benchmarks.worker.rollouts import Rollout
    from wmdeploy.benchmarks.worker.workloads import session_stage

    kind, calls = modules(micro), []
    for name, engine in kind.engines.items():
        inner = engine.run
        engine.run = lambda f, n=name, r=inner: (calls.append(n), r(f))[1]  # type: ignore
    rollout = Rollout(Session(kind), frames, None, context)
    rollout.reset()
    calls.clear()
    filling = S - max(1, min(context, S - 2)) - 1
    first = "step" if context == 1 else "prefill"  # one frame needs no cache
    # each timed step has one before it, off the clock; the window is full where it shall slide
    expected = {
        "imagine": ([], ["step", "step"] * 4),
        "slide": (["step"] * 2, ["prefill"] * 4),
        "frame": (["step"] * 2, ["prefill", "decoder"] * 4),
    }
    for name in SESSION_STAGES:
        calls.clear()
        stage = session_stage(rollout, name)
        filled = [first, *["step"] * (filling - 1)] if name == "imagine" else []
        setup = [call for call in calls if call != "encoder"]
        assert setup == [*filled, *expected[name][0]]  # the window is filled once
        calls.clear()
        measure(stage, 4)
        assert calls == expected[name][1]


def test_altered_bundle_is_an_error_not_a_skipped_row(bundles: Bundles, tmp_path: Path) -> None:
    shutil.copytree(bundles().path, tmp_path / "b")
    data = bytearray((tmp_path / "b" / "step.onnx.data").read_bytes())
    data[0] ^= 1
    (tmp_path / "b" / "step.onnx.data").write_bytes(data)
    with pytest.raises(BundleError, match="the file was altered"):
        run(Bundle.open(tmp_path / "b"), "ort-cpu")


def test_backend_that_cannot_run_is_skipped_with_its_reason(
    bundles: Bundles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")  # no C++ compiler for the worker to find
    report = run(bundles(), "compile")
    skipped = row(report, "compile", "frame")
    assert skipped.verdict == "skipped" and "install g++" in (skipped.reason or "")
    assert skipped.p50_ms is None and row(report, "eager", "frame").verdict == "pass"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backends": ("cuda",)}, "got 'cuda', expected one of"),
        ({"context": 7}, "context 7 .* expected a context of 1 to 6"),
        ({"batches": (1, 0)}, "--batch: got 1, 0, expected numbers of 1 to"),
        ({"horizon": 0}, "horizon 0, expected .* a horizon of 1 to"),
        ({"refill": 6}, "refill 6, expected .* a refill of 1 to 5"),
        ({"effort": Effort(seconds=float("nan"))}, "got nan seconds"),
        ({"effort": Effort(precision=0)}, "--within: got 0, expected percents above 0"),
        ({"threads": (1, 0)}, "--threads: got 1, 0, expected numbers of 1 to"),
        ({"threads": (1025,)}, "--threads: got 1025, expected numbers of 1 to"),
        ({"fps": 0.0}, "got 0 frames per second"),
        ({"fps": 30.0, "pace_seconds": 0.01}, "30 frames per second for 0.01 seconds"),
        ({"clips": ()}, "got no clip"),
    ],
)
def test_options_out_of_range_are_refused(
    bundles: Bundles, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(BackendError, match=message):
        run(bundles(), "ort-cpu", **changes)


def test_clip_shorter_than_the_context_is_refused(
    bundles: Bundles, tmp_path: Path, frames: np.ndarray
) -> None:
    np.savez(tmp_path / "short.npz", frames=frames[:3])
    with pytest.raises(ClipError, match="has 3 frames, expected at least the context, 4"):
        run(bundles(), "ort-cpu", clips=(tmp_path / "short.npz",))


def test_measure_keeps_raw_values_and_prepares_off_the_clock() -> None:
    calls: list[str] = []
    stage = Stage(
        lambda: calls.append("run"),
        lambda: calls.append("sync"),
        lambda: calls.append("prepare"),
    )
    samples = measure(stage, 2)
    assert len(samples.wall) == 2 and all(0 < s < 1000 for s in samples.wall)
    assert samples.device is None
    assert calls == ["prepare", "sync", "run", "sync"] * 2


def test_ended_bench_ends_its_workers(bundles: Bundles) -> None:
    arguments = ["-m", "wmdeploy.cli", "bench", str(bundles().path), "--seconds", "99"]
    arguments += ["--context", "4", "--backend", "ort-cpu"]
    parent = psutil.Popen(
        [sys.executable, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 60
    while len(parent.children()) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    workers = parent.children()
    assert len(workers) == 2
    parent.send_signal(signal.SIGTERM)
    assert parent.wait(30) == 128 + signal.SIGTERM
    psutil.wait_procs(workers, timeout=10)
    assert not any(worker.is_running() for worker in workers)


def test_json_has_no_nan() -> None:
    row = Row("x", None, None, "frame", 1, p50_ms=float("nan"))
    assert json.loads(msgspec.json.encode(row))["p50_ms"] is None
