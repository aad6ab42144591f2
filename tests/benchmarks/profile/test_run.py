"""Profiles of real runs: nodes, modules, and what is left over."""

import dataclasses
import shutil
from pathlib import Path
from statistics import median

import onnx
import pytest

from tests.benchmarks.conftest import CEILINGS
from tests.benchmarks.profile.conftest import RUNS
from tests.conftest import Bundles
from tests.planted import planted
from tests.stand_in import machine
from wmdeploy.benchmarks.profile.document import GraphCall, Profile
from wmdeploy.benchmarks.profile.onnx_nodes import source_nodes
from wmdeploy.benchmarks.profile.run import ProfileOptions, frame_programs, profile
from wmdeploy.bundle import Bundle
from wmdeploy.clips.read import SAMPLE_CLIP
from wmdeploy.engines.base import BACKENDS, Settings
from wmdeploy.engines.trt.plans import BuildOptions, build_plans


def options(bundle: Bundle, backend: str, *graphs: str, runs: int = 2) -> ProfileOptions:
    settings = Settings("cuda" if BACKENDS[backend].device == "cuda" else "auto")
    return ProfileOptions(
        bundle=bundle.path, clip=SAMPLE_CLIP, backend=backend, graphs=graphs, runs=runs,
        settings=settings,
    )  # fmt: skip


def in_file(bundle: Bundle, graph: str) -> int:
    """The operations of all nodes of a file."""
    model = onnx.load(bundle.checked_graph(graph), load_external_data=False)
    return sum(node.operations or 0 for node in source_nodes(model, None).values())


def test_every_graph_has_nodes_in_modules_of_the_model(profiled: Profile) -> None:
    assert set(profiled.graphs) == {"encoder", "prefill", "step", "decoder"}
    for graph in profiled.graphs.values():
        assert graph.nodes and all(node.ms >= 0 for node in graph.nodes)
    modules = {node.module for node in profiled.graphs["step"].nodes}
    assert "temporal_model.layers.0.self_attention.q_proj" in modules
    modules = {node.module for node in profiled.graphs["decoder"].nodes}
    assert "vqvae.decoder.conv_out" in modules and "" not in modules


def test_parts_add_up_to_the_time_without_the_profiler(profiled: Profile) -> None:
    for graph in profiled.graphs.values():
        assert len(graph.wall_ms) == len(graph.profiled_ms) == len(graph.between_ms) == RUNS
        assert 0 < min(graph.between_ms) < min(graph.profiled_ms)
        parts = graph.nodes_ms + median(graph.between_ms) + graph.varying_ms - graph.profiler_ms
        assert parts == pytest.approx(graph.ms)


def test_operations_of_what_runs_are_those_of_the_file(profiled: Profile, bundles: Bundles) -> None:
    """Fusions and the runtime's own nodes count nothing twice, and nothing is lost."""
    for name, graph in profiled.graphs.items():
        assert sum(node.operations or 0 for node in graph.nodes) == in_file(bundles(), name)
        assert graph.floor_ms is not None and graph.floor_ms > 0
        heavy = max(graph.nodes, key=lambda node: node.operations or 0)
        assert heavy.bytes and heavy.floor_ms is not None and heavy.operations is not None
        assert heavy.floor_ms == pytest.approx(
            max(heavy.bytes / CEILINGS.bandwidth_gb_s, heavy.operations / CEILINGS.gflop_s) / 1e6
        )


def test_frame_calls_what_the_programs_say(profiled: Profile) -> None:
    assert profiled.frame.stage == "frame"
    assert profiled.frame.calls == [
        GraphCall("refresh", "prefill", 1), GraphCall("render", "decoder", 1)
    ]  # fmt: skip
    assert profiled.others == [GraphCall("encode", "encoder", 1), GraphCall("predict", "step", 1)]
    rest = profiled.frame.ms - sum(profiled.graphs[g].ms for g in ("prefill", "decoder"))
    assert profiled.session_ms == pytest.approx(rest)


def test_frame_programs_follow_the_window(bundles: Bundles) -> None:
    programs = bundles().manifest.programs
    assert frame_programs(programs) == ("refresh", "render")
    both = dataclasses.replace(programs, refresh_predicts=False)
    assert frame_programs(both) == ("refresh", "predict", "render")
    starts_again = dataclasses.replace(programs, keep=1)
    assert frame_programs(starts_again) == ("predict", "render")


def test_graphs_that_nobody_asked_for_have_their_time_alone(bundles: Bundles) -> None:
    result = profile(options(bundles("token", "fp16"), "ort-cpu", "decoder"))
    assert [name for name, graph in result.graphs.items() if graph.nodes] == ["decoder"]
    assert all(len(graph.wall_ms) == 2 for graph in result.graphs.values())


def test_eager_pytorch_is_profiled_by_module(bundles: Bundles) -> None:
    result = profile(options(bundles(), "eager"))
    decoder = result.graphs["decoder"]
    found = {(node.module, node.operation) for node in decoder.nodes}
    assert ("vqvae.decoder.conv_out", "conv2d") in found
    assert 0 < min(decoder.between_ms) < min(decoder.profiled_ms)


@pytest.mark.slow
def test_compiled_code_is_profiled_by_kernel(bundles: Bundles) -> None:
    result = profile(options(bundles(), "compile", "step"))
    step = result.graphs["step"]
    assert any("cpp_fused" in node.name for node in step.nodes)
    assert {node.module for node in step.nodes} == {"step"}
    assert any("compile runs no modules" in note for note in result.notes)


@pytest.mark.parametrize("backend", ["ort-cuda", "ort-cuda-nhwc"])
def test_on_a_gpu_a_node_takes_what_its_kernels_take(bundles: Bundles, backend: str) -> None:
    bundle = bundles("token", "fp16")
    with machine() as gpu, gpu.running():
        result = profile(options(bundle, backend, "step"))
    step = result.graphs["step"]
    assert {node.ms for node in step.nodes} == {0.007}
    assert "temporal_model.layers.0.self_attention.q_proj" in {n.module for n in step.nodes}
    assert any("without CUDA graphs" in note for note in result.notes)


@pytest.mark.parametrize("backend", ["tensorrt", "tensorrt-rtx"])
def test_layers_of_tensorrt_belong_to_the_modules_of_their_nodes(
    bundles: Bundles, backend: str, tmp_path: Path
) -> None:
    shutil.copytree(bundles("token", "fp16").path, tmp_path / "b")
    with machine() as gpu:
        build_plans(BuildOptions(bundle=tmp_path / "b", flavour=backend))
        bundle = Bundle.open(tmp_path / "b")
        with gpu.running():
            result = profile(options(bundle, backend, "step"))
    step = result.graphs["step"]
    assert {node.ms for node in step.nodes} == {0.25} and all(
        " + " in n.name for n in step.nodes[:-1]
    )
    assert "temporal_model.layers.0.self_attention.q_proj" in {n.module for n in step.nodes}
    assert sum(node.operations or 0 for node in step.nodes) == in_file(bundle, "step")


def test_what_a_cuda_graph_runs_belongs_to_the_whole_graph(bundles: Bundles) -> None:
    bundle = bundles()
    with machine() as gpu, gpu.running():
        result = profile(options(bundle, "cudagraph", "step"))
    assert {node.module for node in result.graphs["step"].nodes} == {"step"}
    assert any("cudagraph runs no modules" in note for note in result.notes)


def test_odd_names_of_nodes_are_shown_as_they_are(bundles: Bundles, tmp_path: Path) -> None:
    def rename(model: onnx.ModelProto) -> None:
        for node in model.graph.node:
            node.name += '"<b>'

    bundle = planted(bundles(), "decoder", tmp_path / "b", rename)
    nodes = profile(options(bundle, "ort-cpu", "decoder")).graphs["decoder"].nodes
    assert any('"<b>' in node.name for node in nodes)
    assert "vqvae.decoder.conv_out" in {node.module for node in nodes}
