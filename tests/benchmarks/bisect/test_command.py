"""The command `wmdeploy bisect`."""

import json
from pathlib import Path

import pytest

from tests.benchmarks.bisect.faults import (
    ACTED,
    maker,
    spoil,
)
from tests.conftest import Bundles
from tests.planted import planted
from wmdeploy.cli import main


def test_command_line_marks_the_culprit(
    bundles: Bundles, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = planted(
        bundles(*ACTED), "decoder", tmp_path / "b",
        lambda m: spoil(m, maker(m, "convolution")),
    )  # fmt: skip
    report = tmp_path / "errors.json"
    arguments = ["bisect", str(bundle.path), "--graph", "decoder", "--json", str(report)]
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 1
    said = capsys.readouterr().out
    assert "the first node past 0.001 is convolution (ConvTranspose of vqvae.decoder" in said
    assert "the fault is in this node" in said
    (graph,) = json.loads(report.read_text())["graphs"]
    assert graph["nodes"][graph["culprit"]]["name"] == "convolution"
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--tolerance", "0.5"])
    assert ended.value.code == 0
    assert "decoder: no node is past 0.5; the largest error is" in capsys.readouterr().out


def test_command_line_tells_rounding_that_adds_up(
    bundles: Bundles, capsys: pytest.CaptureFixture[str]
) -> None:
    path = bundles("latent", "fp16").path
    with pytest.raises(SystemExit) as ended:
        main(["bisect", str(path), "--graph", "decoder", "--tolerance", "5e-3"])
    assert ended.value.code == 1
    said = capsys.readouterr().out
    assert "errors before it add up, the largest of one node" in said
    assert "the fault is in" not in said
