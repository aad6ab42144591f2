"""The stages of a benchmark, and what follows from them."""

from wmdeploy.benchmarks.stages import COMMON, find_stage, stages_of

GRAPHS = ("encoder", "denoise")


def test_graphs_have_a_stage_each_between_the_common_ones() -> None:
    stages = stages_of(GRAPHS)
    assert list(stages) == [
        "load", "first_call", "encoder", "denoise", "download", "frame", "imagine", "slide"
    ]  # fmt: skip
    assert all(stage.name == name for name, stage in stages.items())
    assert {n: s.graph for n, s in stages.items() if s.graph} == {g: g for g in GRAPHS}


def test_stage_is_found_by_its_name() -> None:
    for name, stage in stages_of(GRAPHS).items():
        assert find_stage(name) == stage
    assert find_stage("frame") is COMMON["frame"]


def test_stages_are_of_one_kind() -> None:
    for stage in stages_of(GRAPHS).values():
        assert sum((stage.once, stage.graph is not None, stage.session)) <= 1, stage
        assert stage.session or not stage.batched, stage  # several sessions
        assert not stage.once or not (stage.frames or stage.errors or stage.summary), stage
