"""The least time of a stage."""

import dataclasses

import pytest

from tests.conftest import MICRO, Bundles
from wmdeploy.benchmarks.bench.roofline import floors, moved_bytes
from wmdeploy.benchmarks.environment import Ceilings


def test_moved_bytes_are_weights_and_both_ends(bundles: Bundles) -> None:
    decoder = bundles().manifest.graphs["decoder"]
    ends = MICRO.temporal.d_model * 4 + 32 * 32 * 3
    assert moved_bytes(decoder, 1) == decoder.weight_bytes + ends
    assert moved_bytes(decoder, 3) == decoder.weight_bytes + 3 * ends


def test_floor_of_a_frame_is_that_of_its_graphs_one_after_the_other(bundles: Bundles) -> None:
    manifest = bundles().manifest
    slow_memory, slow_processor = Ceilings(1e-3, 1e9, 1), Ceilings(1e9, 1e-3, 1)
    least = floors(manifest, slow_memory, 2, None)
    moved = {name: moved_bytes(graph, 2) for name, graph in manifest.graphs.items()}
    assert least["step"].ms == least["imagine"].ms == pytest.approx(moved["step"] / 1e3)
    assert least["frame"].ms == pytest.approx((moved["prefill"] + moved["decoder"]) / 1e3)
    assert least["slide"].ms == least["prefill"].ms
    assert {floor.bound for floor in least.values()} == {"bandwidth"}
    least = floors(manifest, slow_processor, 2, None)
    assert least["encoder"].ms == pytest.approx(2 * manifest.graphs["encoder"].flops / 1e3)
    assert {floor.bound for floor in least.values()} == {"compute"}


def test_window_that_is_refilled_slides_by_a_step(bundles: Bundles) -> None:
    least = floors(bundles().manifest, Ceilings(10, 100, 1), 1, 3)
    assert least["slide"] == least["step"] != least["prefill"]


def test_graph_that_runs_several_times_takes_as_often_its_time(bundles: Bundles) -> None:
    manifest = bundles().manifest
    predict = tuple(dataclasses.replace(call, times=3) for call in manifest.programs.predict)
    programs = dataclasses.replace(manifest.programs, predict=predict, refresh=())
    looped = dataclasses.replace(manifest, programs=programs)
    once, thrice = (floors(m, Ceilings(10, 100, 1), 1, None) for m in (manifest, looped))
    assert thrice["step"] == once["step"]
    assert thrice["slide"].ms == thrice["imagine"].ms == pytest.approx(3 * once["imagine"].ms)
    assert thrice["frame"].ms == pytest.approx(thrice["slide"].ms + once["decoder"].ms)


def test_float16_has_the_rate_of_the_gpu(bundles: Bundles) -> None:
    manifest = bundles().manifest
    half = dataclasses.replace(
        manifest, recipe=dataclasses.replace(manifest.recipe, precision="fp16")
    )
    ceilings = Ceilings(1e9, 1.0, 1, half_gflop_s=4.0)
    single, double = (floors(m, ceilings, 1, None)["decoder"].ms for m in (manifest, half))
    assert single == pytest.approx(4 * double)
