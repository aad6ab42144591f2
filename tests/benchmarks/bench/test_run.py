"""The bench as a whole, on a bundle of the micro model."""

import dataclasses
import io
import json
import os
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from rich.console import Console

from tests.benchmarks.bench.quick import QUICK, row, run
from tests.benchmarks.conftest import CEILINGS
from tests.conftest import MICRO, Bundles
from wmdeploy.benchmarks.render.html import render
from wmdeploy.benchmarks.render.markdown import to_markdown
from wmdeploy.benchmarks.render.terminal import report_tables
from wmdeploy.benchmarks.report import Report, read_json
from wmdeploy.benchmarks.stages import stages_of
from wmdeploy.bundle import Bundle, describe_files
from wmdeploy.clips.read import SAMPLE_CLIPS
from wmdeploy.clips.write import write_npz
from wmdeploy.engines.base import BACKENDS
from wmdeploy.errors import BundleError, ClipError
from wmdeploy.files import write_document
from wmdeploy.graph_file import WEIGHTS_FILE
from wmdeploy.manifest import write_manifest

S = MICRO.temporal.context


@pytest.fixture(scope="module")
def report(bundles: Bundles) -> Report:
    return run(bundles(), "eager", "ort-cpu", clips=SAMPLE_CLIPS)


def test_every_stage_of_every_backend_has_a_passing_row(report: Report) -> None:
    assert [(r.stage, r.backend) for r in report.rows] == [
        (stage, backend)
        for stage in stages_of(("encoder", "prefill", "step", "decoder"))
        if stage != "download"  # from a GPU
        for backend in ("eager", "ort-cpu")
    ]
    for r in report.rows:
        assert r.verdict == "pass" and r.reason is None
        assert r.p50_ms is not None and r.p99_ms is not None and r.memory_mb is not None
        assert 0 < r.p50_ms <= r.p99_ms and r.memory_mb > 50
        assert len(r.samples_ms) >= (1 if r.stage in ("load", "first_call") else QUICK.runs)
        assert r.threads and r.threads >= 1
    assert report.environment.affinity == sorted(os.sched_getaffinity(0))


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
    assert report.environment.ceilings == {"cpu": CEILINGS}
    decoder = bundles().manifest.graphs["decoder"]
    moved = decoder.weight_bytes + sum(t.bytes(1) for t in (*decoder.inputs, *decoder.outputs))
    expected = max(moved / CEILINGS.bandwidth_gb_s, decoder.flops / CEILINGS.gflop_s) / 1e6
    decode = row(report, "ort-cpu", "decoder")
    assert decode.floor_ms == pytest.approx(expected)
    assert decode.bound == "compute"  # convolutions
    assert report.bundle.graphs["decoder"].moved_bytes == moved
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
    assert report.bundle.clips == [path.name for path in SAMPLE_CLIPS]
    for c in report.curves:
        assert len(c.free_db) == len(c.forced_db) == 4 * S
        assert c.code_agreement == c.imagined_agreement == 1 and c.first_difference is None
    assert (
        set(report.worst_frames) == {"ort-cpu"}
        and not report.substitutions
        and not report.fixed_rate
    )


def test_other_layout_is_in_the_report(report: Report, bundles: Bundles) -> None:
    manifest = bundles().manifest
    assert (report.bundle.recipe.layout, report.bundle.other_layout) == ("token", "latent")
    for name, cost in report.bundle.graphs.items():
        assert cost.weight_bytes == manifest.graphs[name].weight_bytes
        assert cost.other_layout_weight_bytes == manifest.other_layout_weight_bytes[name] > 0


def test_json_is_valid_and_reads_back(report: Report, tmp_path: Path) -> None:
    write_document(report, tmp_path / "r.json")
    document = json.loads((tmp_path / "r.json").read_text(), parse_constant=pytest.fail)
    assert document["schema"] == 5 and document["baseline"] == "eager"
    assert {"environment", "bundle", "rows"} <= set(document)
    assert set(document["rows"][0]) >= {
        "backend", "precision", "device", "stage", "batch", "p50_ms", "p90_ms", "p99_ms",
        "frames_per_s", "speedup", "floor_ms", "of_floor", "memory_mb", "parity", "verdict",
        "reason",
    }  # fmt: skip
    assert read_json(tmp_path / "r.json") == report


def shown(report: Report, width: int) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(*report_tables(report))
    return console.export_text()


@pytest.mark.slow
def test_wrong_weights_fail_however_fast(bundles: Bundles, tmp_path: Path) -> None:
    """One weight tensor of the decoder is scaled, and the hashes are made to fit."""
    broken = tmp_path / "broken"
    shutil.copytree(bundles().path, broken)
    model = onnx.load(broken / "decoder.onnx")
    weight = next(t for t in model.graph.initializer if "conv_out" in t.name and len(t.dims) == 4)
    weight.raw_data = (onnx.numpy_helper.to_array(weight) * 1.2).tobytes()
    onnx.save(model, broken / "decoder.onnx", save_as_external_data=True, location=WEIGHTS_FILE)
    bundle = Bundle.open(bundles().path)
    write_manifest(dataclasses.replace(bundle.manifest, files=describe_files(broken)), broken)
    report = run(Bundle.open(broken), "ort-cpu", clips=SAMPLE_CLIPS, fps=100.0, rate_seconds=0.2)
    failed = row(report, "ort-cpu", "frame")
    assert failed.verdict == "fail" and failed.reason and "worst frame" in failed.reason
    worst = min(report.curves, key=lambda curve: min(curve.free_db))
    assert failed.reason.endswith(f", on {worst.clip}")
    assert row(report, "eager", "frame").verdict == "pass"
    assert "failed: ort-cpu: worst frame" in shown(report, 100)
    substituted = run(Bundle.open(broken), "ort-cpu", swap=True, horizon=8)
    found = substituted.substitutions["ort-cpu"]
    assert min(found, key=lambda graph: found[graph]) == "decoder" and found["step"] > 60
    assert "which graph brings the error in" in shown(substituted, 100)
    times = {p.backend: p for p in report.fixed_rate}
    assert list(times) == ["eager", "ort-cpu"]
    assert all(p.frames == 20 and len(p.latency_ms) <= 20 for p in times.values())
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


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_backends_of_a_gpu_are_skipped_without_one(bundles: Bundles) -> None:
    names = [name for name, entry in BACKENDS.items() if entry.device == "cuda"]
    report = run(bundles(), *names)
    for name in names:
        skipped = row(report, name, "frame")
        assert skipped.verdict == "skipped" and "needs an NVIDIA GPU" in (skipped.reason or "")


def test_fp16_bundle_passes_its_own_gate(bundles: Bundles) -> None:
    # three frames of context: a code of the fourth ties, and in 64 codes of random weights that one
    # weighs so much that the first frame is another
    report = run(bundles("token", "fp16"), "ort-cpu", context=3)
    frame = row(report, "ort-cpu", "frame")
    assert frame.precision == "fp16" and frame.verdict == "pass", frame.reason
    assert (
        frame.parity and frame.parity.max_abs and row(report, "eager", "frame").precision == "fp32"
    )


def test_altered_bundle_is_an_error_not_a_skipped_row(bundles: Bundles, tmp_path: Path) -> None:
    shutil.copytree(bundles().path, tmp_path / "b")
    data = bytearray((tmp_path / "b" / WEIGHTS_FILE).read_bytes())
    data[0] ^= 1
    (tmp_path / "b" / WEIGHTS_FILE).write_bytes(data)
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


def test_clip_shorter_than_the_context_is_refused(
    bundles: Bundles, tmp_path: Path, frames: np.ndarray
) -> None:
    np.savez(tmp_path / "short.npz", frames=frames[:3])
    with pytest.raises(ClipError, match="has 3 frames, expected 4 or more"):
        run(bundles(), "ort-cpu", clips=(tmp_path / "short.npz",))


def test_bench_and_all_its_forms_tell_a_tie(
    tie_bundle: Bundle, pictures: np.ndarray, tmp_path: Path
) -> None:
    """Through the workers' processes."""
    clip = tmp_path / "four.npz"
    write_npz(clip, pictures)
    report = run(tie_bundle, "ort-cpu", clips=(clip,), context=2, horizon=4)
    frame = row(report, "ort-cpu", "frame")
    assert frame.verdict == "pass" and frame.reason and "1 of 256 codes tied" in frame.reason
    others = [r.reason for r in report.rows if r is not frame]
    assert others == [None] * len(others)
    caption = str(report_tables(report)[-1].caption)
    assert "passed: ort-cpu: 1 of 256 codes tied" in caption and "from its own" in caption
    write_document(report, tmp_path / "report.json")
    assert read_json(tmp_path / "report.json") == report
    assert "1 of 256 codes tied" in render(report) and "1 of 256 codes tied" in to_markdown(report)
