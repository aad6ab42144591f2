import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import typer

from tests.conftest import Bundles
from wmdeploy import cli
from wmdeploy.clips.read import SAMPLE_CLIP
from wmdeploy.errors import WmdeployError
from wmdeploy.graph_file import WEIGHTS_FILE

ROOT = Path(__file__).parents[2]
VERBS = (
    "record", "train", "distill", "evaluate", "convert", "export", "build-engine", "rollout",
    "play", "serve", "site", "inspect", "bench", "compare", "report", "profile", "bisect", "sweep",
    "milestone", "push", "doctor",
)  # fmt: skip
CLI = ROOT / "wmdeploy" / "cli"
HEAVY = {"torch", "onnx", "onnxruntime"}


def wmdeploy(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "wmdeploy.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        env=os.environ | {"COLUMNS": "160"} | environment,
    )


def heavy_imports(code: str) -> set[str]:
    probe = f"import sys\n{code}\nprint(*({HEAVY!r} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return set(result.stdout.split("\n")[-2].split())


def test_help_imports_nothing_heavy() -> None:
    run_help = "from wmdeploy import cli\ntry: cli.main(['--help'])\nexcept SystemExit: pass"
    assert heavy_imports(run_help) == set()


def test_the_import_test_can_fail() -> None:
    assert heavy_imports("import wmdeploy.families.reference.world_model") == {"torch"}


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_every_verb_has_an_example_that_parses(verb: str) -> None:
    result = wmdeploy(verb, "--help")
    assert result.returncode == 0
    (example,) = re.findall(rf"Example: wmdeploy {verb} (.*)", result.stdout)
    command = typer.main.get_command(cli.app).commands[verb]  # type: ignore[attr-defined]
    with command.make_context(verb, shlex.split(example)) as context:
        assert context.info_name == verb


def test_verbs_are_those_that_are_tested() -> None:
    assert set(typer.main.get_command(cli.app).commands) == set(VERBS)  # type: ignore[attr-defined]


def test_two_outputs_in_one_file_are_refused(bundles: Bundles, tmp_path: Path) -> None:
    path = tmp_path / "x"
    result = wmdeploy("bench", bundles().path, "--json", path, "--csv", f"{tmp_path}/./x")
    assert result.returncode == 1 and "is given twice" in result.stderr
    assert not path.exists()


def exhaust_gpu(arguments: list[str] | None) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate")


def exhaust_cpu(arguments: list[str] | None) -> None:
    torch.empty(2**58)


@pytest.mark.parametrize(
    ("exhausted", "told"),
    [
        (exhaust_gpu, "error: CUDA out of memory. Tried to allocate; use a smaller batch"),
        (exhaust_cpu, "error: DefaultCPUAllocator: can't allocate memory: you tried to allocate"),
    ],
)
def test_too_little_memory_is_one_line(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    exhausted: Callable[[list[str] | None], None],
    told: str,
) -> None:
    monkeypatch.setattr("wmdeploy.cli.common.app", exhausted)
    with pytest.raises(SystemExit):
        cli.main([])
    said = capsys.readouterr().err
    assert said.startswith(told) and "; use a smaller batch, or a machine" in said


def test_other_errors_of_torch_are_bugs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wmdeploy.cli.common.app", lambda arguments: torch.ones(2) @ torch.ones(3))
    with pytest.raises(RuntimeError, match="inconsistent tensor size"):
        cli.main([])


def test_completion_script_is_offered() -> None:
    result = wmdeploy("--show-completion", "bash", _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    assert "_WMDEPLOY_COMPLETE" in result.stdout or "complete" in result.stdout


def test_version() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+\n", wmdeploy("--version").stdout)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["export", "nothing", "-o", "{tmp}/b"], "no such directory, file or preset"),
        (["export", "tiny", "-o", "{tmp}/b", "--opset", "9"], "opset: got 9"),
        (["bench", "{tmp}"], "no manifest.json there; expected a bundle"),
        (["inspect", "{tmp}"], "no config.json; expected a model directory"),
        (["rollout", "tiny", "{tmp}/none.mp4", "-o", "{tmp}/x.gif"], "none.mp4"),
        (["rollout", "tiny", "{clip}", "-o", "{tmp}/x.avi"], "x.avi"),
        (["rollout", "tiny", "{clip}", "-o", "{tmp}/x.gif", "--context", "99"], "99"),
        (["rollout", "tiny", "{clip}", "-o", "{tmp}/x.gif", "--backend", "compile"],
         "export it first"),
        (["rollout", "{tmp}/text.pt", "{clip}", "-o", "{tmp}/x.gif"], "text.pt"),
        (["serve", "{tmp}", "--replicas", "2"], "need --engine ray"),
        (
            [*"serve {tmp} --engine ray --replicas 3 --most-replicas 2".split()],
            "--most-replicas: got 2, expected 3 or more",
        ),
        (["record", "pongg", "-o", "{tmp}/d", "--frames", "9"], "pongg"),
        (["record", "pong", "-o", "{tmp}/d", "--frames", "9", "--size", "3"], "size: got 3"),
        (["export", "{clip}", "-o", "{clip}"], "overlaps with the input"),
        (["rollout", "tiny", "{clip}", "-o", "{clip}"], "is the input"),
        (["train", "--data", "{tmp}", "-o", "{tmp}/m"], "{tmp}"),
        (
            ["train", "--data", "{clip}", "-o", "{tmp}/m", "--family", "diffusion", "--stage", "x"],
            "stage: got 'x', expected a setting and a number",
        ),
        (
            [*"train --data {clip} -o {tmp}/m --family diffusion --vqvae-steps 5".split()],
            "vqvae_steps: is of the family vqvae-transformer, got the family diffusion",
        ),
        (
            [*"train --data {clip} -o {tmp}/m --family tokens".split()],
            "family tokens: its models are not trained here",
        ),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_and_exit_code_1(
    tmp_path: Path, arguments: list[str], message: str
) -> None:
    (tmp_path / "text.pt").write_text("this is no model")
    names = {"tmp": str(tmp_path), "clip": str(SAMPLE_CLIP)}
    result = wmdeploy(*(a.format(**names) for a in arguments))
    assert result.returncode == 1, result.stderr
    assert "Traceback" not in result.stderr
    lines = [line for line in result.stderr.splitlines() if line.strip()]
    assert len(lines) == 1 and lines[0].startswith("error: "), result.stderr
    assert message.format(**names) in lines[0]
    assert [p.name for p in tmp_path.iterdir()] == ["text.pt"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["frobnicate"],
        ["export"],
        ["export", "tiny"],
    ],
)
def test_wrong_usage_exits_with_2(arguments: list[str]) -> None:
    result = wmdeploy(*arguments)
    assert result.returncode == 2 and "Usage" in result.stderr


def test_square_brackets_of_a_message_are_shown(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(arguments: object) -> None:
        raise WmdeployError("pip install 'wmdeploy[cpu]'")

    monkeypatch.setattr("wmdeploy.cli.common.app", fail)
    with pytest.raises(SystemExit):
        cli.main([])
    assert "wmdeploy[cpu]" in capsys.readouterr().err


def test_other_exceptions_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(arguments: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("wmdeploy.cli.common.app", fail)
    with pytest.raises(ZeroDivisionError):
        cli.main([])


def test_rollout_of_a_bundle_writes_what_was_asked_for(bundles: Bundles, tmp_path: Path) -> None:
    path = bundles().path
    for name in ("out.npz", "out.gif", "out.mp4"):
        result = wmdeploy("rollout", path, SAMPLE_CLIP, "--horizon", "5", "-o", tmp_path / name,
                          "--context", "4")  # fmt: skip
        assert result.returncode == 0, result.stderr
        assert "5 frames imagined by ort-cpu" in result.stdout
    with np.load(tmp_path / "out.npz") as arrays:
        assert arrays["frames"].shape == (5, 32, 32, 3)
    from wmdeploy.clips import read_clip

    shown = read_clip(tmp_path / "out.gif").frames
    assert len(shown) == 5 and shown.shape[2] > 64  # real and imagined side by side


@pytest.mark.slow
def test_bench_command_prints_tables_and_writes_json(bundles: Bundles, tmp_path: Path) -> None:
    target = tmp_path / "report.json"
    result = wmdeploy("bench", bundles().path, "--backend", "ort-cpu", "--context", "4",
                      "--seconds", "0.05", "--json", target)  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "speed-up" in result.stdout and "worst dB" in result.stdout
    assert len(json.loads(target.read_text())["rows"]) == 18


def kill_while_writing(place: Path, *arguments: str | Path) -> None:
    """Start a command and kill it as soon as its partial directory is there."""
    process = subprocess.Popen(
        [sys.executable, "-m", "wmdeploy.cli", *map(str, arguments)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    while not list(place.glob(".*partial*")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.kill()
    process.wait()
    assert list(place.glob(".*partial*"))


def test_record_killed_half_way_leaves_nothing_and_starts_clean(tmp_path: Path) -> None:
    command: list[str | Path] = ["record", "pong", "-o", tmp_path / "d", "--size", "32", "--frames"]
    kill_while_writing(tmp_path, *command, "100000")
    assert not (tmp_path / "d").exists()
    assert wmdeploy(*command, "20").returncode == 0
    assert [p.name for p in tmp_path.iterdir()] == ["d"]


def test_export_killed_half_way_leaves_the_old_bundle(bundles: Bundles, tmp_path: Path) -> None:
    shutil.copytree(bundles().path, tmp_path / "b")
    kill_while_writing(tmp_path, "export", "tiny", "-o", tmp_path / "b")
    result = wmdeploy("inspect", tmp_path / "b")
    assert result.returncode == 0 and "uint8 (B, 32, 32, 3)" in result.stdout


def test_bench_refuses_an_output_it_could_not_write_before_it_runs(
    bundles: Bundles, tmp_path: Path
) -> None:
    start = time.monotonic()
    result = wmdeploy("bench", bundles().path, "--json", tmp_path)
    assert result.returncode == 1 and "is not a regular file" in result.stderr
    result = wmdeploy("bench", bundles().path, "--json", bundles().path / "manifest.json")
    assert result.returncode == 1 and "is the input" in result.stderr
    assert "speed-up" not in result.stdout and time.monotonic() - start < 30
    bundles().verify()


def test_square_brackets_in_paths_are_only_characters(bundles: Bundles, tmp_path: Path) -> None:
    (tmp_path / "[bold]").mkdir()
    target = tmp_path / "[bold]" / "[" / ":smile:.npz"
    result = wmdeploy("rollout", bundles().path, SAMPLE_CLIP, "--context", "4",
                      "--horizon", "1", "-o", target)  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert target.exists() and "[bold]/[/:smile:.npz" in result.stdout.replace("\n", "")


def test_inspect_shows_graphs_programs_and_hashes(bundles: Bundles) -> None:
    bundle = bundles()
    result = wmdeploy("inspect", bundle.path)
    assert result.returncode == 0, result.stderr
    for word in ("encoder", "uint8 (B, 32, 32, 3)", "next_token", "slides by one frame"):
        assert word in result.stdout
    assert bundle.manifest.files["step.onnx"].sha256 in result.stdout
    lines = [line.strip() for line in result.stdout.splitlines()]
    assert "encode: of each real frame" in lines and "predict: of each imagined frame" in lines


def test_inspect_finds_an_altered_file(bundles: Bundles, tmp_path: Path) -> None:
    shutil.copytree(bundles().path, tmp_path / "b")
    data = (tmp_path / "b" / WEIGHTS_FILE).read_bytes()
    (tmp_path / "b" / WEIGHTS_FILE).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    result = wmdeploy("inspect", tmp_path / "b")
    assert result.returncode == 1 and "the file was altered" in result.stderr


def test_inspect_counts_the_parameters_of_a_model() -> None:
    result = wmdeploy("inspect", ROOT / "tests" / "golden" / "best.pt")
    assert result.returncode == 0 and "vqvae.codebook_size" in result.stdout


def test_doctor_names_what_is_here_and_what_is_missing() -> None:
    result = wmdeploy("doctor")
    assert result.returncode == 0
    for word in ("torch", "onnxruntime", "tensorrt", "C++ compiler"):
        assert word in result.stdout


def test_doctor_finds_both_onnxruntimes(monkeypatch: pytest.MonkeyPatch) -> None:
    from wmdeploy import doctor

    monkeypatch.setattr(doctor, "_version", lambda name: "1.0")
    (finding,) = doctor._onnxruntime()
    assert finding.state == "problem" and "both installed" in finding.description
    monkeypatch.setattr(doctor, "_version", lambda name: None)
    (finding,) = doctor._onnxruntime()
    assert finding.state == "missing" and "pip install" in finding.fix
