"""What reaches a terminal, a pipe, or a stream that cannot show it."""

import errno
import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from rich.table import Table
from rich.text import Text

from tests.conftest import Bundles
from wmdeploy import cli
from wmdeploy.cli.common import err, out
from wmdeploy.cli.tables import bundle_tables
from wmdeploy.clips.read import SAMPLE_CLIP
from wmdeploy.engines.ort.cpu import cpu_session
from wmdeploy.errors import WmdeployError
from wmdeploy.text import one_line

HOSTILE = "\x1b]0;title\x07\x1b[2J\x9b2J\r\u202egpj.exe"
NAME = f"{'a' * 100}/{'b' * 100} c.mkv"  # a path; its name has a space

Shown = Callable[..., str]


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> Shown:
    """What a command prints, into a pipe or into a terminal of a width."""

    def show(*renderables: object, width: int = 80) -> str:
        monkeypatch.setenv("COLUMNS", str(width))
        written = io.StringIO()
        monkeypatch.setattr(out, "_file", written)
        for one in renderables:
            out.print(one)
        return written.getvalue()

    return show


def wmdeploy(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "wmdeploy.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        errors="surrogateescape",
        env=os.environ | environment,
    )


@pytest.mark.parametrize("width", [20, 40, 80, 200])
def test_a_line_is_one_line_at_any_width(shown: Shown, width: int) -> None:
    told = f"written: {NAME}, and some more words that are no names"
    assert shown(told, Text(told), width=width) == f"{told}\n{told}\n"


def test_figures_in_a_line_have_no_colours_of_their_own() -> None:
    assert out.render_str("24 frames, 'x': /a/b.mkv").spans == []


@pytest.mark.parametrize("width", [10, 40, 80, 200])
def test_inspect_cuts_no_name_and_no_hash(bundles: Bundles, shown: Shown, width: int) -> None:
    bundle = bundles()
    lines = shown(*bundle_tables(bundle, details=True), width=width)
    for name, record in bundle.manifest.files.items():
        assert any(f" {name} " in line and record.sha256 in line for line in lines.splitlines())
    for graph in bundle.manifest.graphs.values():
        assert all(f" {spec.name} " in lines for spec in (*graph.inputs, *graph.outputs))
    assert str(bundle.path) in lines and "…" not in lines


@pytest.mark.parametrize("width", [40, 80])
def test_names_around_a_table_are_not_broken(shown: Shown, width: int) -> None:
    table = Table("a", "b", title=f"title {NAME}", caption=f"caption {NAME.replace(' ', '-')}")
    table.add_row("some words", NAME.split()[0])
    lines = shown(table, width=width).splitlines()
    assert lines[0].strip() == f"title {NAME}"
    assert lines[-1].strip() == NAME.replace(" ", "-")
    assert any(NAME.split()[0] in line for line in lines)


def test_control_characters_do_not_reach_the_terminal(shown: Shown) -> None:
    table = Table(HOSTILE, title=HOSTILE, caption=HOSTILE)
    table.add_row(HOSTILE)
    table.add_row(Text(HOSTILE))
    written = shown(HOSTILE, Text(HOSTILE), Text("note: ").append(HOSTILE), table)
    assert not set(written) & {"\x1b", "\x07", "\x9b", "\r", "\u202e"}
    assert written.count(r"\x1b]0;title") == 8


def test_a_table_of_control_characters_keeps_its_columns(shown: Shown) -> None:
    table = Table("a", "b")
    table.add_row(HOSTILE, "x")
    table.add_row("y", "z")
    assert len({len(line) for line in shown(table).splitlines()}) == 1


def error_line(monkeypatch: pytest.MonkeyPatch, error: Exception) -> str:
    """What the command line says of an error."""

    def fail(arguments: object) -> None:
        raise error

    monkeypatch.setattr("wmdeploy.cli.common.app", fail)
    written = io.StringIO()
    monkeypatch.setattr(err, "_file", written)
    with pytest.raises(SystemExit):
        cli.main([])
    return written.getvalue()


def test_an_error_is_one_printable_line(monkeypatch: pytest.MonkeyPatch) -> None:
    told = error_line(monkeypatch, WmdeployError(f"b: {HOSTILE}\nand\u2028more\x85"))
    assert told == "error: b: \\x1b]0;title\\x07\\x1b[2J\\x9b2J \\u202egpj.exe and more\n"


def test_an_error_of_megabytes_keeps_its_begin_and_its_advice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told = error_line(monkeypatch, WmdeployError(f"b: schema {'x' * 20_000_000}; export again"))
    assert told.startswith("error: b: schema xxx") and told.endswith("xxx; export again\n")
    assert len(told) < 1010


@pytest.mark.parametrize(
    ("argument", "encoding", "code"),
    [("--help", "ascii", 0), ("doctor", "ascii", 0), ("doctor", "latin-1", 0), ("ü日", "ascii", 2)],
)
def test_any_encoding_will_do(argument: str, encoding: str, code: int) -> None:
    result = wmdeploy(argument, PYTHONIOENCODING=encoding, COLUMNS="40")
    assert "Traceback" not in result.stderr and result.returncode == code


def test_work_that_is_done_does_not_fail_for_its_name(bundles: Bundles, tmp_path: Path) -> None:
    target = tmp_path / "ü日\udcff.npz"  # the last one is a byte that is no UTF-8
    command = ("rollout", bundles().path, SAMPLE_CLIP, "-o", target, "--horizon", "1")
    for environment, said in (
        ({"PYTHONIOENCODING": "ascii"}, "???.npz"),
        ({"PYTHONIOENCODING": "utf-8"}, "ü日?.npz"),
        ({"PYTHONIOENCODING": "", "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0"}, "ü日?.npz"),
    ):
        result = wmdeploy(*command, "--context", "4", **environment)
        assert result.returncode == 0 and target.exists(), result.stderr
        assert result.stdout.endswith(f"/{said}\n")
        target.unlink()


def test_a_reader_that_has_gone_ends_the_printing_only(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    read, write = os.pipe()
    os.close(read)
    with open(write, "w") as gone:
        monkeypatch.setattr(out, "_file", gone)
        monkeypatch.setattr(out, "quiet", False)
        out.print("one")
        out.print("two")  # and what a command writes after this is written


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (
            "b/step.onnx: [ONNXRuntimeError] : 1 : FAIL : /onnxruntime_src/onnxruntime/core/graph/"
            "model.cc:256 onnxruntime::Model::Model(onnx::ModelProto&&, const std::function<void"
            "(int)>&, const onnxruntime::ModelOptions&) Unsupported model IR version: 99",
            "b/step.onnx: Unsupported model IR version: 99",
        ),
        (
            "[ONNXRuntimeError] : 1 : FAIL : Name:'' Status Message: /src/core/bfc_arena.cc:360 "
            "void* onnxruntime::BFCArena::Allocate(size_t, bool) const Failed to allocate",
            "Name:'' Status Message: Failed to allocate",
        ),
        (
            "[ONNXRuntimeError] : 1 : FAIL : Name:'a' Status Message: matmul_helper.h:59 Compute "
            "MatMul dimension mismatch\n",
            "Name:'a' Status Message: MatMul dimension mismatch",
        ),
        ("/data/model.cc/a.mkv: has (2) frames", "/data/model.cc/a.mkv: has (2) frames"),
    ],
)
def test_words_of_onnxruntime_are_told_without_its_source(words: str, shown: str) -> None:
    assert one_line(words) == shown


def test_onnxruntime_says_nothing_itself(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    product = onnx.helper.make_node("MatMul", ["x", "x"], ["y"])
    tensors = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [None, None])
        for name in ("x", "y")
    ]
    graph = onnx.helper.make_graph([product], "g", tensors[:1], tensors[1:])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 23)])
    onnx.save(model, tmp_path / "m.onnx")
    session = cpu_session(tmp_path / "m.onnx")
    with pytest.raises(Exception, match="dimension mismatch"):
        session.run(None, {"x": np.zeros((2, 3), np.float32)})
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    "error",
    [
        ImportError("libtorch_cpu.so: failed to map segment from shared object"),
        RuntimeError("can't start new thread"),
    ],
)
def test_too_little_memory_for_a_library_is_one_line(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    told = error_line(monkeypatch, error)
    assert told == f"error: {error}; use a smaller batch, or a machine with more memory\n"


def test_an_error_of_the_system_names_the_file_and_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told = error_line(monkeypatch, OSError(errno.EROFS, os.strerror(errno.EROFS), "b/plans"))
    assert told == (
        "error: b/plans: Read-only file system; the place is read-only: choose another\n"
    )


def test_a_name_that_is_no_utf8_is_told_where_it_cannot_be(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnicodeEncodeError) as caught:
        "b\udcff".encode()
    told = error_line(monkeypatch, caught.value)
    assert told.endswith(": the name is not UTF-8, which this command needs; rename it\n")
