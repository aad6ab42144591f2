"""How far unchanged runs lie apart."""

from pathlib import Path

import pytest
import typer

from tests.benchmarks.made_reports import made_report, runs, write_runs
from wmdeploy.benchmarks.studies import false_alarms
from wmdeploy.files import write_document


def test_study_says_how_far_runs_lie_apart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [tmp_path / f"{seed}.json" for seed in range(3)]
    for seed, path in enumerate(paths):
        slower = {"decoder": 1.5} if seed == 2 else None
        write_document(made_report(seed, slower=slower), path)
    false_alarms.main(paths)
    told = capsys.readouterr().out
    assert "2 of 6 ordered pairs are flagged" in told and "decoder of compile: speed-up" in told
    assert "first_call" not in told and "eager" not in told


def test_study_pools_the_runs_of_each_side(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(write_runs(tmp_path / "runs", runs(0, 4)))
    paths = sorted(folder.glob("*.json"))
    false_alarms.main(paths, side=2)
    assert "0 of 6 ordered pairs are flagged" in capsys.readouterr().out
    with pytest.raises(typer.BadParameter, match="makes 0 ordered pairs"):
        false_alarms.main(paths, side=3)
