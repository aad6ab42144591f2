"""A profile as a tree, as tables, as a trace."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.benchmarks.profile.made_profile import made_profile
from wmdeploy.benchmarks.profile.document import Profile
from wmdeploy.benchmarks.profile.spans import Span, by_module, frame_span
from wmdeploy.benchmarks.profile.table import frame_table, module_table, node_table
from wmdeploy.benchmarks.profile.trace import trace
from wmdeploy.benchmarks.render.tables import Table
from wmdeploy.files import write_document


def column(table: Table, heading: str) -> dict[str, str]:
    """By the first column."""
    at = table.headings.index(heading)
    return {row[0].text: row[at].text for row in table.rows}


def walk(span: Span) -> list[Span]:
    return [span, *(inner for child in span.children for inner in walk(child))]


def test_tree_is_frame_program_graph_module_node() -> None:
    spans = walk(frame_span(made_profile()))
    by_name = {span.name: span for span in spans}
    assert [c.name for c in by_name["frame"].children] == ["predict", "render", "in no graph"]
    assert (by_name["step"].ms, by_name["step"].kind) == (4.0, "graph")
    (decoder,) = by_name["render"].children
    assert (decoder.kind, [(c.kind, c.name) for c in decoder.children]) == (
        "graph",
        [("module", "vqvae"), ("module", "(no module)"), ("rest", "between nodes"),
         ("rest", "varies from run to run")],
    )  # fmt: skip
    blocks = by_name["blocks"]
    assert (blocks.ms, blocks.operations, blocks.bytes, blocks.floor_ms) == (6.0, 2000, 1000, 3.0)
    assert by_name["second"].detail == "Conv"
    for span in spans:
        if span.children:
            assert sum(child.ms for child in span.children) == pytest.approx(span.ms)


def test_modules_are_the_heaviest_first() -> None:
    spans = by_module(made_profile().graphs["decoder"].nodes)
    assert [span.name for span in spans] == [
        "vqvae.decoder.blocks.0", "vqvae.decoder.conv_in", "vqvae.decoder.blocks.1", "(no module)"
    ]  # fmt: skip


@pytest.mark.parametrize("make", [module_table, node_table])
def test_rows_of_a_graph_add_up_and_hide_nothing(make: Any) -> None:
    decoder = made_profile().graphs["decoder"]
    table = make("decoder", decoder, 2)
    ms, share = column(table, "ms"), column(table, "share")
    assert ms["2 more"] == "1.50"
    assert (ms["between nodes"], ms["varies from run to run"]) == ("1.00", "2.50")
    assert (ms["with the profiler"], share["with the profiler"]) == ("14.0", "100.0%")
    assert (ms["profiler itself"], share["profiler itself"]) == ("-2.00", "")
    *parts, together, taken_off, without = (float(text) for text in ms.values())
    assert sum(parts) == pytest.approx(together)
    assert together + taken_off == without == decoder.ms
    assert column(table, "of floor")["without it"] == "50%"


def test_frame_says_what_is_in_no_graph() -> None:
    ms = column(frame_table(made_profile()), "ms")
    assert ms == {"step": "2.00", "decoder": "12.0", "in no graph": "4.00", "together": "20.0"}
    assert column(frame_table(made_profile()), "of floor")["decoder"] == "50%"


def test_trace_nests_nodes_in_modules_in_time(tmp_path: Path) -> None:
    write_document(trace(made_profile()), tmp_path / "t.json")
    document = msgspec.json.decode((tmp_path / "t.json").read_bytes())
    events = document["traceEvents"]
    names = {e["tid"]: e["args"]["name"] for e in events if e["name"] == "thread_name"}
    slices = [e for e in events if e["ph"] == "X"]
    assert names == {1: "step", 2: "decoder"} and {e["tid"] for e in slices} == {2}
    assert {e["name"] for e in slices if e["cat"] == "module"} == {
        "vqvae", "decoder", "conv_in", "blocks", "0", "1"
    }  # fmt: skip
    second = next(e for e in slices if e["name"] == "second")
    assert (second["ts"], second["dur"]) == (4500, 5000)
    assert second["args"]["module"] == "vqvae.decoder.blocks.0"
    for outer in slices:  # one is inside the other, or they do not touch
        for inner in slices:
            begins, ends = inner["ts"], inner["ts"] + inner["dur"]
            within = outer["ts"] <= begins and ends <= outer["ts"] + outer["dur"]
            around = begins <= outer["ts"] and outer["ts"] + outer["dur"] <= ends
            apart = ends <= outer["ts"] or outer["ts"] + outer["dur"] <= begins
            assert within or around or apart


def test_document_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_document(made_profile(), tmp_path / "p.json")
    read = msgspec.json.decode((tmp_path / "p.json").read_bytes(), type=Profile)
    assert read == made_profile()
