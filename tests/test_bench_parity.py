import base64
import copy
import io
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from tests.conftest import MICRO, Bundles, future_pixels
from wmdeploy.benchmarks.bench.roofline import moved_bytes
from wmdeploy.benchmarks.parity.gate import GATES, failure
from wmdeploy.benchmarks.parity.metrics import curve, frame_parity, horizons
from wmdeploy.benchmarks.parity.worst_frame import GAP, HIGHEST, strip
from wmdeploy.benchmarks.report import Parity
from wmdeploy.benchmarks.worker.graph_swap import swap_graphs
from wmdeploy.benchmarks.worker.rollouts import Rollout, record
from wmdeploy.clips.clip import Clip
from wmdeploy.clips.read import SAMPLE_CLIP
from wmdeploy.engines.base import Settings, load_backend
from wmdeploy.engines.session import Session
from wmdeploy.exporters.export import ExportOptions, export_bundle
from wmdeploy.exporters.layouts import other_layout_bytes
from wmdeploy.manifest import Layout, Precision
from wmdeploy.models.checkpoint import save_model
from wmdeploy.models.world_model import WorldModel
from wmdeploy.psnr import IDENTICAL_DB

S = MICRO.temporal.context


def test_frame_parity_finds_the_worst_frame() -> None:
    expected = np.full((4, 8, 8, 3), 100, np.uint8)
    got = expected.copy()
    got[2] += 10
    parity = frame_parity([(got, expected)], [1, 4])
    assert parity.worst_frame_psnr_db == {
        "1": IDENTICAL_DB, "4": pytest.approx(10 * math.log10(255**2 / 100)),
    }  # fmt: skip
    assert parity.psnr_db and parity.psnr_db["4"] == pytest.approx(10 * math.log10(255**2 / 25))
    assert parity.max_abs == 10 and parity.mean_abs == 2.5


def test_horizons_end_where_the_rollout_ends() -> None:
    assert horizons(32, 64) == [1, 8, 32, 64]
    assert horizons(16, 20) == [1, 8, 16, 20]
    assert horizons(16, 100) == [1, 8, 16, 32, 64, 100]


@pytest.mark.parametrize(
    ("worst", "codes", "error", "reason"),
    [
        ({"1": 70.0, "8": 61.0}, 1.0, 0.0, None),
        ({"1": 70.0, "8": 59.0}, 1.0, 0.0, "worst frame 59.0 dB at horizon 8, expected 60 dB"),
        ({"1": float("nan")}, 1.0, 0.0, "worst frame nan dB at horizon 1"),
        ({"1": 70.0}, 0.99, 0.0, "codes agree 99.00%, expected 99.9%"),
        ({"1": 70.0}, 1.0, 0.1, "step: relative error 1.0e-01, expected 1e-03"),
    ],
)
def test_gate_names_the_first_figure_that_misses(
    worst: dict[str, float], codes: float, error: float, reason: str | None
) -> None:
    rollout = Parity(worst_frame_psnr_db=worst, code_agreement=codes)
    found = failure(GATES["fp32"], rollout, {"step": error})
    assert found is None if reason is None else found is not None and found.startswith(reason)


def test_worst_frame_is_the_worst_of_all_clips() -> None:
    expected = np.full((4, 8, 8, 3), 100, np.uint8)
    first, second = expected.copy(), expected.copy()
    first[3] += 4
    second[1] += 10
    parity = frame_parity([(first, expected), (second, expected)], [1, 2, 4])
    ten = 10 * math.log10(255**2 / 100)
    assert parity.worst_frame_psnr_db == pytest.approx({"1": IDENTICAL_DB, "2": ten, "4": ten})
    assert parity.psnr_db and parity.psnr_db["4"] == pytest.approx(
        10 * math.log10(255**2 / ((100 + 16) / 8))
    )
    assert parity.max_abs == 10 and parity.mean_abs == pytest.approx(14 / 8)


def test_curve_is_frame_by_frame() -> None:
    expected: dict[str, np.ndarray] = {
        "free": np.full((3, 8, 8, 3), 100, np.uint8),
        "forced": np.full((2, 8, 8, 3), 100, np.uint8),
        "codes": np.zeros((5, 4), np.int64),
        "imagined_codes": np.zeros((3, 4), np.int64),
    }
    got = {name: array.copy() for name, array in expected.items()}
    got["free"][1] += 5
    got["forced"][0] += 10
    got["codes"][0, 0] = got["imagined_codes"][1, 2] = 1
    found = curve("x", "a.mkv", got, expected)
    assert found.free_db == pytest.approx([120, 10 * math.log10(255**2 / 25), 120])
    assert found.forced_db == pytest.approx([10 * math.log10(255**2 / 100), 120])
    assert found.worst_frame == 2 and found.first_difference == 2
    assert (found.code_agreement, found.imagined_agreement) == (19 / 20, 11 / 12)
    assert curve("x", "a.mkv", expected, expected).first_difference is None


def test_record_is_what_the_model_says(
    micro_actions: WorldModel, bundles: Bundles, clip: Clip
) -> None:
    backend = load_backend("eager", bundles(actions=True), Settings("cpu"))
    frames, actions, context, horizon = clip.frames[:9], clip.actions, 4, S + 2
    assert actions is not None
    got = record(Rollout(Session(backend), frames, actions[:9], context), horizon)
    assert got["free"].shape == (horizon, *frames.shape[1:]) and len(got["forced"]) == 5
    held = np.concatenate([actions[:9], np.repeat(actions[8], horizon)])  # past the clip's end
    free = future_pixels(micro_actions, frames[:context], horizon, held[: context + horizon - 1])
    np.testing.assert_allclose(got["free"], free, atol=1)
    for now in range(context, 9):  # each from the true frames before it
        one = future_pixels(micro_actions, frames[:now], 1, actions[:now])
        np.testing.assert_allclose(got["forced"][now - context], one[0], atol=1)
    encoded = micro_actions.encode(torch.tensor(frames)[None])[1][0].numpy()
    np.testing.assert_array_equal(got["codes"], encoded)
    again = micro_actions.encode(torch.tensor(got["free"])[None])[1][0].numpy()
    np.testing.assert_array_equal(got["imagined_codes"], again)


def test_record_of_a_clip_that_ends_with_its_context(bundles: Bundles, clip: Clip) -> None:
    backend = load_backend("eager", bundles(), Settings("cpu"))
    got = record(Rollout(Session(backend), clip.frames[:4], None, 4), 3)
    assert len(got["free"]) == 3 and len(got["forced"]) == 0 and len(got["codes"]) == 4


@pytest.mark.parametrize("side", [8, 512])
def test_strip_shows_both_frames_and_what_is_between_them(side: int) -> None:
    expected = np.full((side, side, 3), 100, np.uint8)
    got = expected.copy()
    got[: side // 2] += 2
    got[-1, -1, 0] -= 1
    picture = Image.open(io.BytesIO(base64.b64decode(strip(expected, got))))
    shown = min(side, HIGHEST)
    assert picture.size == (3 * shown + 2 * GAP, shown)
    pixels = np.asarray(picture)
    assert (pixels[:, shown : shown + GAP, 3] == 0).all()
    difference = pixels[:, 2 * (shown + GAP) :, :3]
    assert (difference[: shown // 4] == 255).all() and (difference[shown - 4, 0] == 0).all()
    if side == shown:
        assert difference[-1, -1].tolist() == [128, 0, 0]  # half the largest
    assert (pixels[0, 0, :3] == 100).all() and (pixels[0, shown + GAP, :3] == 102).all()


def test_strip_of_equal_frames_is_black() -> None:
    frame = np.full((8, 8, 3), 100, np.uint8)
    picture = Image.open(io.BytesIO(base64.b64decode(strip(frame, frame))))
    assert not np.asarray(picture)[:, -8:, :3].any()


def test_other_layout_weighs_what_its_export_weighs(
    micro_actions: WorldModel, tmp_path: Path
) -> None:
    model = copy.deepcopy(micro_actions)
    for parameter in model.parameters():  # as if trained: an exporter leaves out biases of zero
        parameter.data += 0.01 * torch.randn(
            parameter.shape, generator=torch.Generator().manual_seed(1)
        )
    save_model(model, tmp_path / "model")
    layouts: tuple[Layout, ...] = ("token", "latent")
    manifests = {}
    for layout in layouts:
        options = ExportOptions(
            str(tmp_path / "model"), tmp_path / layout, SAMPLE_CLIP, layout, "fp16"
        )
        manifests[layout] = export_bundle(options)[0].manifest
    for mine, other in (layouts, layouts[::-1]):
        counted = other_layout_bytes(manifests[mine])
        real = {name: graph.weight_bytes for name, graph in manifests[other].graphs.items()}
        assert counted == pytest.approx(real, abs=300)  # vectors that are small stay in the graph
        for name, size in real.items():
            assert abs(size - manifests[mine].graphs[name].weight_bytes) > 30_000


def test_moved_bytes_are_weights_and_both_ends(bundles: Bundles) -> None:
    decoder = bundles().manifest.graphs["decoder"]
    ends = MICRO.temporal.d_model * 4 + 32 * 32 * 3
    assert moved_bytes(decoder, 1) == decoder.weight_bytes + ends
    assert moved_bytes(decoder, 3) == decoder.weight_bytes + 3 * ends


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("wrong", ["encoder", "step", "decoder"])
def test_swap_finds_the_wrong_graph(
    bundles: Bundles, clip: Clip, precision: Precision, wrong: str
) -> None:
    bundle = bundles("token", precision)
    backend = load_backend("ort-cpu", bundle, Settings("cpu"))
    engine = backend.engines[wrong]
    right = engine.run

    def run(feeds: Mapping[str, Tensor]) -> dict[str, Tensor]:
        outputs = right(feeds)
        name = engine.outputs[0].name
        moved = outputs[name] * 1.2 if outputs[name].is_floating_point() else outputs[name] // 2
        return outputs | {name: moved}

    engine.run = run  # type: ignore[method-assign]
    found = swap_graphs(backend, bundle, (clip.frames, None), 3, S + 2)
    assert found.skipped is None and set(found.worst_db) == {
        "encoder",
        "prefill",
        "step",
        "decoder",
    }
    assert min(found.worst_db, key=lambda name: found.worst_db[name]) == wrong
    others = [db for name, db in found.worst_db.items() if name != wrong]
    assert min(others) > found.worst_db[wrong] + 6


def test_swap_is_skipped_for_graphs_of_its_own(bundles: Bundles, clip: Clip) -> None:
    backend = load_backend("eager", bundles(), Settings("cpu"))
    found = swap_graphs(backend, bundles(), (clip.frames, None), 4, 4)
    assert not found.worst_db and found.skipped and "graphs of its own" in found.skipped
