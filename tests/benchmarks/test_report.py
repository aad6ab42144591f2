"""The stored document: what is read back, and what is refused."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.benchmarks.made_reports import made_report, report_of, row_of
from wmdeploy.benchmarks.environment import Ceilings
from wmdeploy.benchmarks.report import (
    SCHEMA,
    Curve,
    Memory,
    Report,
    flatten,
    read_json,
    rows_by_key,
)
from wmdeploy.errors import WmdeployError
from wmdeploy.files import write_document

RESULTS = Path(__file__).parents[2] / "docs" / "results"
MOST = 2000  # entries of each list


def written(report: Report, path: Path, change: Callable[[Any], object] = lambda d: None) -> Path:
    """A report's file, after a change to its document."""
    document = msgspec.to_builtins(report)
    change(document)
    path.write_text(json.dumps(document))
    return path


def refused(path: Path) -> str:
    """Why a file is refused, in one line."""
    with pytest.raises(WmdeployError) as caught:
        read_json(path)
    assert "\n" not in str(caught.value) and str(caught.value).startswith(f"{path}: ")
    return str(caught.value).removeprefix(f"{path}: ")


def test_report_reads_back_as_it_was(report: Report, tmp_path: Path) -> None:
    write_document(report, tmp_path / "r.json")
    assert read_json(tmp_path / "r.json") == report
    document = json.loads((tmp_path / "r.json").read_text(), parse_constant=pytest.fail)
    assert document["schema"] == SCHEMA == 5


def test_committed_reports_read() -> None:
    paths = list(RESULTS.rglob("*.json"))
    assert paths and all(read_json(path).rows for path in paths)


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        (1, "has schema 1, expected 5; run wmdeploy bench again"),
        (4, "has schema 4, expected 5; run wmdeploy bench again"),
        (6, "has schema 6, expected 5; update wmdeploy"),
        (-1, "has schema -1, expected 5; run wmdeploy bench again"),
    ],
)
def test_other_schema_is_refused_whatever_else_it_holds(
    tmp_path: Path, schema: int, message: str
) -> None:
    path = written(report_of(), tmp_path / "r.json", lambda d: d.update(schema=schema, rows=7))
    assert refused(path) == message


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"schema": "4"}', '{"schema": null}', "\udcff", "nan"]
)
def test_what_is_no_report_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "r.json").write_bytes(text.encode(errors="surrogateescape"))
    assert refused(tmp_path / "r.json").startswith("is no report (")


def test_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    assert refused(tmp_path / "none.json").startswith("cannot be read (")


@pytest.mark.parametrize(
    ("part", "values", "where"),
    [
        ((), {"baseline": None}, "$.baseline"),
        ((), {"rows": 1}, "$.rows"),
        ((), {"warnings": [1]}, "$.warnings[0]"),
        ((), {"substitutions": {"x": {"step": "0"}}}, "$.substitutions"),
        (("environment",), {"cores": "2"}, "$.environment.cores"),
        (("environment",), {"ceilings": {"cpu": 3}}, "$.environment.ceilings"),
        (("environment",), {"settings": {"device": "<b>"}}, "$.environment.settings.device"),
        (("bundle",), {"recipe": {"layout": "token"}}, "$.bundle.recipe"),
        (("bundle",), {"graphs": {"step": {"flops": 0.5}}}, "$.bundle.graphs"),
        (("bundle",), {"clips": "a.mkv"}, "$.bundle.clips"),
        (("rows", 0), {"stage": "<script>"}, "$.rows[0].stage"),
        (("rows", 0), {"precision": "<script>"}, "$.rows[0].precision"),
        (("rows", 0), {"bound": "<script>"}, "$.rows[0].bound"),
        (("rows", 0), {"verdict": "good"}, "$.rows[0].verdict"),
        (("rows", 0), {"p50_ms": "1"}, "$.rows[0].p50_ms"),
        (("rows", 0), {"samples_ms": [None]}, "$.rows[0].samples_ms[0]"),
        (("rows", 0), {"memory": {"resident": None}}, "$.rows[0].memory.resident"),
        (("rows", 0), {"stage": "x" * 41}, "$.rows[0].stage"),
        (("curves", 0), {"free_db": ["a"]}, "$.curves[0].free_db[0]"),
        (("curves", 0), {"outputs": {"reward": 1}}, "$.curves[0].outputs"),
        (("fixed_rate", 0), {"fps": None}, "$.fixed_rate[0].fps"),
    ],
)
def test_values_of_other_types_are_refused_where_they_stand(
    report: Report,
    tmp_path: Path,
    part: tuple[str | int, ...],
    values: dict[str, Any],
    where: str,
) -> None:
    def change(document: Any) -> None:
        for step in part:
            document = document[step]
        document.update(values)

    message = refused(written(report, tmp_path / "r.json", change))
    assert message.startswith("is no report (") and where in message


def test_report_of_more_rows_than_any_is_refused(tmp_path: Path) -> None:
    rows = [row_of(f"b{i}") for i in range(MOST + 1)]
    write_document(report_of(rows), tmp_path / "x.json")
    assert "length <= 2000 - at `$.rows`" in refused(tmp_path / "x.json")
    write_document(report_of(rows[:MOST]), tmp_path / "x.json")
    assert len(read_json(tmp_path / "x.json").rows) == MOST


def test_two_rows_of_the_same_are_refused() -> None:
    rows = [row_of("eager", "load"), row_of("eager"), row_of("eager", "load")]
    with pytest.raises(WmdeployError, match="^x has two rows of eager, load, batch 1; give"):
        rows_by_key(report_of(rows), "x")
    assert list(rows_by_key(report_of(rows[:2]))) == [("eager", "load", 1), ("eager", "frame", 1)]


def test_json_has_no_nan() -> None:
    row = row_of(p50_ms=float("nan"))
    assert json.loads(msgspec.json.encode(row))["p50_ms"] is None


def test_memory_headline_says_who_counted() -> None:
    memory = Memory(resident=5.0)
    counts: tuple[tuple[dict[str, Any], tuple[float, str]], ...] = (
        ({}, (5.0, "resident")),
        ({"gpu_used": 7.0}, (7.0, "GPU, all")),
        ({"gpu_used": 7.0, "gpu_grown": 2.0}, (2.0, "GPU, growth")),
        ({"gpu_used": 7.0, "gpu_grown": 2.0, "gpu_process": 6.0}, (6.0, "GPU, process")),
    )
    for values, headline in counts:
        assert dataclasses.replace(memory, **values).headline == headline


def test_float16_has_a_rate_of_its_own_only_on_a_gpu() -> None:
    cpu, gpu = Ceilings(40, 100, 2), Ceilings(4000, 50e3, 2, half_gflop_s=790e3)
    assert (cpu.rate("fp32"), cpu.rate("fp16")) == (100, 100)
    assert (gpu.rate("fp32"), gpu.rate("fp16")) == (50e3, 790e3)


def test_the_higher_of_two_ceilings_counts() -> None:
    first, second = Ceilings(40, 400, 2), Ceilings(60, 300, 2)
    assert first.or_higher(second) == Ceilings(60, 400, 2) and first.or_higher(None) is first
    halves = (Ceilings(1, 1, 1, 7), Ceilings(1, 1, 1, 9))
    assert halves[0].or_higher(halves[1]).half_gflop_s == 9


def test_worst_frame_is_counted_from_one() -> None:
    curve = Curve(
        backend="x",
        clip="a",
        free_db=[70.0, 60.0, 60.0, 65.0],
        forced_db=[],
        code_agreement=1.0,
        imagined_agreement=1.0,
        first_difference=None,
    )
    assert curve.worst_frame == 2


def test_one_row_stands_for_each_backend() -> None:
    report = made_report(backends=("eager", "ort-cpu"))
    assert [(row.backend, row.batch) for row in report.frames()] == [("eager", 1), ("ort-cpu", 1)]
    assert set(report.frames()[1].worst_frame_db) == {"1", "8", "32", "64"}
    assert report.frames()[0].worst_frame_db == {}


def test_flat_names_have_dots() -> None:
    assert flatten({"a": {"b": {"c": 1}}, "d": [2]}, "x.") == {"x.a.b.c": 1, "x.d": [2]}
