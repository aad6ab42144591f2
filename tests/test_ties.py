"""A tie is no fault, and a fault is no tie."""

import copy
import dataclasses
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from tests.conftest import MICRO, Bundles
from tests.test_bisect import planted
from tests.ties import Tied, counted, replace_codebook, rounding, tied_bundle, tied_model
from wmdeploy.benchmarks.bench.options import BenchOptions, Effort
from wmdeploy.benchmarks.bench.run import bench
from wmdeploy.benchmarks.bisect.onnx_values import OnnxValues
from wmdeploy.benchmarks.bisect.run import examine
from wmdeploy.benchmarks.bisect.torch_values import PytorchValues
from wmdeploy.benchmarks.evaluation.evaluate import SessionRunner
from wmdeploy.benchmarks.parity.gate import Judgement, judge
from wmdeploy.benchmarks.protocol import CASES_FILE, SAME_CODES, TIES_FILE, rollout_file
from wmdeploy.benchmarks.render.html import render
from wmdeploy.benchmarks.render.markdown import to_markdown
from wmdeploy.benchmarks.render.terminal import report_tables
from wmdeploy.benchmarks.report import read_json
from wmdeploy.benchmarks.worker.graph_outputs import backend_answers, baseline_cases
from wmdeploy.benchmarks.worker.graph_swap import swap_graphs
from wmdeploy.benchmarks.worker.rollouts import Rollout, record
from wmdeploy.benchmarks.worker.ties import read_corrections, write_ties
from wmdeploy.bundle import Bundle
from wmdeploy.clips.write import write_npz
from wmdeploy.engines.base import Backend, load_backend
from wmdeploy.engines.same_codes import TieFinder, with_same_codes
from wmdeploy.engines.session import Session
from wmdeploy.errors import ExportError
from wmdeploy.exporters.verify import verify_graph
from wmdeploy.files import write_document
from wmdeploy.manifest import Layout, Precision
from wmdeploy.models.expected import world_model_cases
from wmdeploy.models.graphs import deployment
from wmdeploy.models.ties import FEW_TIES, CodeCount, add_counts, find_ties
from wmdeploy.models.world_model import WorldModel

CONTEXT = 2
HORIZON = 2 * MICRO.temporal.context


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    """(4, 32, 32, 3), no two alike."""
    return np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize(("of_rounding", "tie"), [(0.0, 1), (0.5, 1), (2.0, 0), (100.0, 0)])
def test_tie_is_what_rounding_explains(
    micro: WorldModel, pictures: np.ndarray, precision: Precision, of_rounding: float, tie: int
) -> None:
    frame = pictures[1]
    excess = of_rounding * rounding(micro, frame, precision)
    count = counted(tied_model(micro, frame, excess), frame, precision)
    assert (count.tied, count.wrong, count.codes) == (tie, 1 - tie, 64)
    margin = count.tie_margin if tie else count.wrong_margin
    assert margin == pytest.approx(excess, rel=0.1, abs=1e-6)


def test_rounding_is_that_of_the_precision(micro: WorldModel, pictures: np.ndarray) -> None:
    single, half = (rounding(micro, pictures[1], p) for p in ("fp32", "fp16"))
    assert 1e-7 < single < 1e-4 and 30 * single < half < 0.1


def test_code_that_is_none_is_wrong(micro: WorldModel, pictures: np.ndarray) -> None:
    expected = micro.encode(torch.tensor(pictures)[None])[1][0].numpy()
    for code in (-1, MICRO.vqvae.codebook_size, 2**40):
        got = expected.copy()
        got[0, 0] = code
        found = find_ties(micro.vqvae.encoder, micro.vqvae.vq, pictures, expected, got, "fp32")
        assert (found.count.wrong, found.count.tied) == (1, 0) and not found.tied.any()


def test_equal_codes_are_not_encoded_again(pictures: np.ndarray) -> None:
    codes = np.zeros((4, 64), np.int64)
    found = find_ties(None, None, pictures, codes, codes, "fp32")  # type: ignore[arg-type]
    assert found.count == CodeCount(codes=256) and found.count.agreement == 1


def test_more_ties_than_rounding_explains_count_as_wrong() -> None:
    few = CodeCount(codes=10_000, tied=FEW_TIES + 20, unsteady=10)
    assert few.agreement == 1
    many = dataclasses.replace(few, tied=FEW_TIES + 31)
    assert many.agreement == pytest.approx(1 - 11 / 10_000)
    assert dataclasses.replace(few, wrong=7).agreement == pytest.approx(1 - 7 / 10_000)


def test_count_in_words() -> None:
    tied = CodeCount(codes=2560, tied=1, tie_margin=2.4e-6, rounding=1e-5)
    assert str(tied) == "1 of 2,560 codes tied (distances equal to 2.4e-06)"
    wrong = CodeCount(codes=1440, wrong=2, wrong_margin=0.03, rounding=1e-6)
    assert str(add_counts([tied, wrong])) == (
        "2 of 4,000 codes wrong (distances differ by up to 3.0e-02, rounding explains 1.0e-06), "
        "1 of 4,000 codes tied (distances equal to 2.4e-06)"
    )


@pytest.mark.parametrize("by", [1.001, 1.01, 1.1])
def test_scaled_latents_give_wrong_codes(micro: WorldModel, by: float) -> None:
    """An encoder that is off by a thousandth is found by the codes that it gets wrong."""
    other = copy.deepcopy(micro)
    other.vqvae.encoder.conv_out.weight.data *= by
    noise = np.random.default_rng(1).integers(0, 256, (200, 32, 32, 3), np.uint8)
    expected, got = (m.encode(torch.tensor(noise)[None])[1][0].numpy() for m in (micro, other))
    found = find_ties(micro.vqvae.encoder, micro.vqvae.vq, noise, expected, got, "fp32").count
    assert found.wrong > 0 and found.tied <= found.wrong
    assert found.wrong + found.tied == (expected != got).sum()


def judged(bundle: Bundle, frames: np.ndarray, folder: Path) -> Judgement:
    """`ort-cpu` beside the baseline on one clip."""
    base, mine = folder / "baseline", folder / "backend"
    base.mkdir()
    (mine / SAME_CODES).mkdir(parents=True)
    eager, backend = load_backend("eager", bundle), load_backend("ort-cpu", bundle)
    np.savez(
        base / CASES_FILE, allow_pickle=False, **baseline_cases(bundle, frames[:CONTEXT], None)
    )
    np.savez(base / rollout_file(0), allow_pickle=False, **recorded(eager, frames))

    def leave(backend: Backend, where: Path) -> None:
        np.savez(
            where / CASES_FILE,
            allow_pickle=False,
            **backend_answers(backend, bundle, base / CASES_FILE),
        )
        np.savez(where / rollout_file(0), allow_pickle=False, **recorded(backend, frames))

    leave(backend, mine)
    counts = write_ties(bundle, [frames], base, mine, backend.precision)
    if (mine / TIES_FILE).exists():
        leave(
            with_same_codes(backend, read_corrections(mine / TIES_FILE, [frames])),
            mine / SAME_CODES,
        )
    else:
        (mine / SAME_CODES).rmdir()
    return judge("ort-cpu", backend.precision, mine, base, bundle, ["a.mkv"], counts)


def recorded(backend: Backend, frames: np.ndarray) -> dict[str, np.ndarray]:
    return record(Rollout(Session(backend), frames, None, CONTEXT), HORIZON)


def scale(graph: str, weight: str, by: float) -> tuple[str, Callable[[onnx.ModelProto], None]]:
    def fault(model: onnx.ModelProto) -> None:
        tensor = next(t for t in model.graph.initializer if t.name.endswith(weight))
        array = onnx.numpy_helper.to_array(tensor)
        tensor.CopyFrom(onnx.numpy_helper.from_array(array * array.dtype.type(by), tensor.name))

    return graph, fault


@pytest.fixture(scope="module")
def tied(micro: WorldModel, pictures: np.ndarray) -> Tied:
    frame = pictures[1]
    return tied_model(micro, frame, 0.5 * rounding(micro, frame))


@pytest.fixture(scope="module")
def bundle(tied: Tied, bundles: Bundles, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return tied_bundle(tied, bundles(), tmp_path_factory.mktemp("tied") / "bundle")


@pytest.mark.parametrize(
    ("layout", "precision"), [("token", "fp32"), ("latent", "fp32"), ("token", "fp16")]
)
def test_tie_passes_and_is_told(
    micro: WorldModel,
    bundles: Bundles,
    pictures: np.ndarray,
    tmp_path: Path,
    layout: Layout,
    precision: Precision,
) -> None:
    frame = pictures[1]
    tied = tied_model(micro, frame, 0.5 * rounding(micro, frame, precision))
    made = tied_bundle(tied, bundles(layout, precision), tmp_path / "bundle")
    found = judged(made, pictures, tmp_path)
    assert found.reason is None
    assert found.note and " of 256 codes tied (distances equal to " in found.note
    (curve,) = found.curves
    lowest = 60 if precision == "fp32" else 38
    assert min(curve.free_db) > lowest > min(curve.own_db)  # what was gated before
    assert curve.codes and curve.codes.wrong == 0
    assert 1 <= curve.codes.tied <= (1 if precision == "fp32" else 4)  # float16 has others, too
    assert curve.code_agreement == 1 - curve.codes.tied / 256
    assert found.parity["frame"].codes == curve.codes
    assert (found.parity["encode"].cosine or 0) > 0.999  # of the token that goes with the codes


def test_code_past_the_rounding_fails(
    micro: WorldModel, bundles: Bundles, pictures: np.ndarray, tmp_path: Path
) -> None:
    frame = pictures[1]
    tied = tied_model(micro, frame, 5 * rounding(micro, frame))
    found = judged(tied_bundle(tied, bundles(), tmp_path / "bundle"), pictures, tmp_path)
    assert found.reason and found.reason.startswith(
        "codes agree 99.61%, expected 99.9%, on a.mkv; 1 of 256 codes wrong (distances differ by"
    )


@pytest.mark.parametrize(
    ("graph", "weight", "by"),
    [
        ("encoder", "encoder.conv_out.weight", 1.1),
        ("encoder", "project.weight", 1.01),
        ("decoder", "conv_out.weight", 1.01),
        ("decoder", "conv_out.weight", 1.002),
    ],
)
def test_fault_beside_a_tie_fails(
    bundle: Bundle, pictures: np.ndarray, tmp_path: Path, graph: str, weight: str, by: float
) -> None:
    broken = planted(bundle, graph, tmp_path / "broken", scale(graph, weight, by)[1])
    assert judged(broken, pictures, tmp_path).reason


def test_swapped_rows_of_the_codebook_fail(
    bundle: Bundle, tied: Tied, pictures: np.ndarray, tmp_path: Path
) -> None:
    rows = tied.model.vqvae.vq.embedding.weight.detach().numpy()
    swapped = rows.copy()
    used = tied.model.encode(torch.tensor(pictures)[None])[1].unique().tolist()
    swapped[used[:2]] = rows[used[1::-1]]

    def swap(model: onnx.ModelProto) -> None:
        replace_codebook(model, rows, swapped)

    found = judged(planted(bundle, "encoder", tmp_path / "b", swap), pictures, tmp_path)
    assert found.reason and "codes wrong" in found.reason


def test_export_takes_a_tie_and_refuses_a_wrong_code(
    micro: WorldModel, bundles: Bundles, pictures: np.ndarray, tmp_path: Path
) -> None:
    frame = pictures[1]
    for name, of_rounding in (("tie", 0.5), ("wrong", 5.0)):
        tied = tied_model(micro, frame, of_rounding * rounding(micro, frame))
        made = tied_bundle(tied, bundles(), tmp_path / name)
        case = world_model_cases(tied.model, "token", "float32", torch.tensor(pictures), None)[
            "encoder"
        ]
        graph = deployment(tied.model, "token", "fp32").graphs["encoder"]()
        arguments = made.checked_graph("encoder"), case, graph, "fp32"
        if name == "tie":
            parity = verify_graph(*arguments)["codes"]  # type: ignore[arg-type]
            assert parity.tied == 1 and parity.wrong == 0 and parity.agreement == 127 / 128
        else:
            with pytest.raises(ExportError, match="has 1 of 128 codes wrong"):
                verify_graph(*arguments)  # type: ignore[arg-type]


def test_evaluate_goes_on_from_the_models_codes(
    bundle: Bundle, tied: Tied, pictures: np.ndarray
) -> None:
    codes = tied.model.encode(torch.tensor(pictures)[None])[1][0].numpy()
    runner = SessionRunner(load_backend("ort-cpu", bundle), tied.model)
    found = list(runner.following(pictures, codes, None))
    exact = SessionRunner(load_backend("eager", bundle), tied.model)
    expected = list(exact.following(pictures, codes, None))
    np.testing.assert_allclose(found, expected, atol=1)
    assert (runner.codes.codes, runner.codes.tied, exact.codes.tied) == (256, 1, 0)
    rolled = runner.rollout(pictures[:2], codes[:2], 8, None)
    np.testing.assert_allclose(rolled, exact.rollout(pictures[:2], codes[:2], 8, None), atol=1)


def test_swap_does_not_blame_the_encoder_for_a_tie(bundle: Bundle, pictures: np.ndarray) -> None:
    backend = load_backend("ort-cpu", bundle)
    found = swap_graphs(backend, bundle, (pictures, None), CONTEXT, HORIZON)
    assert found.worst_db["encoder"] > 60


def test_bisect_counts_a_tie_and_finds_no_culprit(
    bundle: Bundle, tied: Tied, pictures: np.ndarray
) -> None:
    exact = PytorchValues(tied.model, bundle.manifest.recipe, "encoder")
    cases = world_model_cases(tied.model, "token", "float32", torch.tensor(pictures), None)
    tested = OnnxValues(bundle, "encoder", "ort-cpu", exact.operations)
    found = examine(exact, tested, cases["encoder"], 1e-3)
    assert found.culprit is None
    assert found.codes and (found.codes.tied, found.codes.wrong) == (1, 0)
    node = next(node for node in found.nodes if node.operation == "argmin")
    assert node.accumulated == 0


def test_bench_and_all_its_forms_tell_a_tie(
    bundle: Bundle, pictures: np.ndarray, tmp_path: Path
) -> None:
    """Through the workers' processes."""
    clip = tmp_path / "four.npz"
    write_npz(clip, pictures)
    quick = Effort(runs=3, seconds=0.01, block_ms=1)
    options = BenchOptions(bundle.path, (clip,), ("ort-cpu",), CONTEXT, 4, effort=quick)
    report = bench(options)
    frame = next(r for r in report.rows if (r.backend, r.stage) == ("ort-cpu", "frame"))
    assert frame.verdict == "pass" and frame.reason and "1 of 256 codes tied" in frame.reason
    others = [r.reason for r in report.rows if r is not frame]
    assert others == [None] * len(others)
    caption = str(report_tables(report)[-1].caption)
    assert "passed: ort-cpu: 1 of 256 codes tied" in caption and "from its own" in caption
    write_document(report, tmp_path / "report.json")
    assert read_json(tmp_path / "report.json") == report
    assert "1 of 256 codes tied" in render(report) and "1 of 256 codes tied" in to_markdown(report)


def test_what_is_kept_of_a_frame_is_small(
    micro: WorldModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 100,000 frames of 64x64, as `evaluate` takes them, that is some 20 MB."""
    count = CodeCount(codes=64)
    monkeypatch.setattr(TieFinder, "_find", lambda *given: (dataclasses.replace(count), None))
    finder = TieFinder(micro, "fp32")
    random = np.random.default_rng(0)

    def show(frames: int) -> None:
        for _ in range(frames):
            frame = random.integers(0, 256, (1, 8, 8, 3), np.uint8)
            codes = random.integers(0, 512, (1, 64))
            finder.expect(frame, codes)
            assert finder(frame[0], codes[0]) is None

    show(100)
    tracemalloc.start()
    show(1000)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert finder.count.codes == 1100 * 64
    assert held < 250 * 1000
