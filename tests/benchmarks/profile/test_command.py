"""The command `wmdeploy profile`."""

import shutil
from pathlib import Path

import msgspec
import pytest

from tests.conftest import Bundles
from wmdeploy.benchmarks.profile.document import SCHEMA, Profile
from wmdeploy.cli import main


def ended(arguments: list[str]) -> int:
    with pytest.raises(SystemExit) as raised:
        main(arguments)
    return int(str(raised.value.code))


def test_command_shows_tables_and_writes_all_forms(
    bundles: Bundles, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    place = tmp_path / "elsewhere"
    place.mkdir()
    monkeypatch.chdir(place)
    out = tmp_path / "missing" / "folder"
    names = {"--json": "p.json", "--trace": "t.json", "--html": "p.html"}
    forms = [part for flag, name in names.items() for part in (flag, str(out / name))]
    assert ended(["profile", str(bundles().path), "--runs", "3", *forms]) == 0
    said = capsys.readouterr().out
    for words in ("a frame on ort-cpu, fp32", "in no graph", "decoder: modules", "decoder: nodes",
                  "between nodes", "without it", "vqvae.decoder.", "written:"):  # fmt: skip
        assert words in said, words
    document = msgspec.json.decode((out / "p.json").read_bytes(), type=Profile)
    assert (document.schema, document.runs, document.backend) == (SCHEMA, 3, "ort-cpu")
    assert "flame" in (out / "p.html").read_text() and "traceEvents" in (out / "t.json").read_text()
    assert not list(place.iterdir())  # ONNX Runtime's own files are gone


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--graph", "decodr"], "graph: got 'decodr', expected one of encoder, "),
        (["--backend", "openvino"], "backend: got 'openvino', which has no profiler of nodes; "
         "expected one of eager, "),
        (["--backend", "ort-cpuu"], "--backend: got 'ort-cpuu', expected one of"),
        (["--backend", "ort-cpu,eager"], "--backend: got ort-cpu, eager, expected one backend"),
        (["--clip", "nowhere.mkv"], "nowhere.mkv"),
        (["--runs", "0"], "runs: got 0, expected 1 to 1000"),
        (["--json", "/proc/nowhere/p.json"], "/proc/nowhere/p.json: cannot be written"),
        (["--json", "p", "--html", "p"], "p: is given twice"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line(
    bundles: Bundles, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert ended(["profile", str(bundles().path), *arguments]) == 1
    said = capsys.readouterr().err
    assert message in " ".join(said.split()) and "Traceback" not in said
    assert not list(tmp_path.iterdir())


def test_a_damaged_bundle_is_refused(
    bundles: Bundles, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(bundles().path, tmp_path / "b")
    with open(tmp_path / "b" / "decoder.onnx", "r+b") as file:
        file.write(b"\0\0")
    assert ended(["profile", str(tmp_path / "b"), "--json", str(tmp_path / "p.json")]) == 1
    assert "the file was altered" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "p.json").exists()
