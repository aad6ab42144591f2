"""One line for each backend, from reports of several runs."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks.made_reports import report_of, row_of
from wmdeploy.benchmarks.render.verdicts import verdicts
from wmdeploy.benchmarks.report import Parity, Row
from wmdeploy.engines.base import BACKENDS
from wmdeploy.files import write_document

ROOT = Path(__file__).parents[3]
PARITY = Parity(worst_frame_psnr_db={"8": 50.0, "32": 46.66})


def row(backend: str, verdict: str, ms: float | None = None, reason: str | None = None) -> Row:
    given: dict[str, Any] = {
        "precision": "fp16",
        "device": "cuda",
        "verdict": verdict,
        "reason": reason,
    }
    if ms is None:
        return row_of(backend, **given)
    return row_of(backend, **given, p50_ms=ms, speedup=14.2, memory_mb=1100.4, parity=PARITY)


def test_every_backend_has_one_line() -> None:
    reports = {
        "a": report_of(
            [
                row("eager", "pass", 3.0),
                row("cudagraph", "pass", 1.234),
                row("ort-cuda", "fail", 2.0, "worst frame 21.3 dB"),
                row("ort-tensorrt", "fail", None, "refuses the graph"),
                row("tensorrt", "skipped", None, "not installed"),
            ]
        ),
        "b": report_of([row("eager", "pass", 3.0), row("ort-cuda", "pass", 1.0)]),
        "c": report_of([row("cudagraph", "pass", 0.5), row("tensorrt", "pass", 0.25)]),
    }
    lines = {line.split()[0]: line.split(maxsplit=1)[1] for line in verdicts(reports)}
    assert list(lines) == list(BACKENDS)
    assert lines["cudagraph"] == (
        "works: a 1.23 ms a frame, 14.2x, 1100 MB, worst frame 46.7 dB; "
        "c 0.5 ms a frame, 14.2x, 1100 MB, worst frame 46.7 dB"
    )
    assert lines["ort-cuda"] == "wrong: worst frame 21.3 dB (a)"  # though another run passed
    assert lines["ort-tensorrt"] == "refused: refuses the graph (a)"
    assert lines["tensorrt"].startswith("works: c 0.25 ms")
    assert lines["compile"] == "not run"


@pytest.mark.parametrize("document", [None, "{}", "gone"])
def test_what_is_no_report_is_told_in_a_line(tmp_path: Path, document: str | None) -> None:
    files = [] if document is None else [tmp_path / "x.json"]
    if document == "{}":
        files[0].write_text(document)
    command = [sys.executable, "-m", "wmdeploy.benchmarks.render.verdicts", *map(str, files)]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert told.returncode == 1 and told.stderr.startswith("error: ")
    assert len(told.stderr.splitlines()) == 1


def test_script_prints_the_verdict_of_its_reports(tmp_path: Path) -> None:
    write_document(report_of([row("eager", "pass", 3.0)]), tmp_path / "x.json")
    script = ROOT / "scripts" / "gpu_check.sh"
    told = subprocess.run(
        ["bash", str(script), "verdict"],
        env={"PATH": "/usr/bin:/bin", "OUT": str(tmp_path), "WORK": str(tmp_path / "w"),
             "PYTHON": sys.executable},
        capture_output=True,
        text=True,
    )  # fmt: skip
    assert told.stdout.splitlines()[0].startswith("eager ") and "works: x 3 ms" in told.stdout
    assert (tmp_path / "verdict.txt").read_text() == told.stdout


def test_page_explains_every_call_of_the_script() -> None:
    script = (ROOT / "scripts" / "gpu_check.sh").read_text()
    calls = script.split("for call in ")[1].split(";")[0].split()
    page = (ROOT / "docs" / "gpu.md").read_text()
    assert len(calls) == 7 and all(f"| `{call}` |" in page for call in calls)
