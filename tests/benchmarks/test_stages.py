"""The table of stages, and what follows from it."""

from typing import get_args

from wmdeploy.benchmarks.stages import GRAPH_STAGES, STAGES, StageName


def test_table_has_every_name_once_in_the_order_of_a_report() -> None:
    assert tuple(STAGES) == get_args(StageName)
    assert all(stage.name == name for name, stage in STAGES.items())


def test_graphs_have_a_stage_each() -> None:
    assert GRAPH_STAGES == {
        "encode": "encoder", "prefill": "prefill", "step": "step", "decode": "decoder"
    }  # fmt: skip


def test_stages_are_of_one_kind() -> None:
    for stage in STAGES.values():
        assert sum((stage.once, stage.graph is not None, stage.session)) <= 1, stage
        assert stage.session or not stage.batched, stage  # several sessions
        assert not stage.once or not (stage.frames or stage.errors or stage.summary), stage
