"""What lies beside an unfinished training may be damaged, or a stranger's, or another process's."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.test_train import Killed, assert_equal_weights, options, run
from wmdeploy.errors import TrainingError, WmdeployError
from wmdeploy.locks import sole_writer
from wmdeploy.training.state import differences

NAN = float("nan")


@pytest.fixture(scope="module")
def unfinished(squares: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a training that was killed after the first checkpoint. Do not write to it."""
    output = tmp_path_factory.mktemp("killed") / "model"
    with pytest.raises(Killed):
        run(options(squares, output), kill_at=("vqvae", 6))
    return output.with_name("model.train")


@pytest.fixture
def output(unfinished: Path, tmp_path: Path) -> Path:
    """Where a copy of that training goes on."""
    shutil.copytree(unfinished, tmp_path / "model.train")
    return tmp_path / "model"


def nothing(document: dict[str, Any]) -> None:
    del document["current"]["step"]


def other_shape(document: dict[str, Any]) -> None:
    for state in document["optimizers"][0]["state"].values():
        state["exp_avg"] = torch.zeros(3)


def without_moments(document: dict[str, Any]) -> None:
    document["optimizers"][0]["state"][0] = {"step": torch.tensor(5.0)}


def words_for_moments(document: dict[str, Any]) -> None:
    document["optimizers"][0]["state"][0]["exp_avg"] = "abc"


def unknown_parameter(document: dict[str, Any]) -> None:
    document["optimizers"][0]["state"][10_000] = document["optimizers"][0]["state"][0]


def current(**changes: object) -> Callable[[dict[str, Any]], None]:
    return lambda document: document["current"].update(changes)


def whole(**changes: object) -> Callable[[dict[str, Any]], None]:
    return lambda document: document.update(changes)


def each(
    make: Callable[..., Callable[[dict[str, Any]], None]], name: str, *values: Any
) -> list[Callable[[dict[str, Any]], None]]:
    return [make(**{name: value}) for value in values]


FINISHED = {"step": 1, "images": 0, "seconds": 0.0, "data_seconds": 0.0, "elapsed": 0.0,
            "held_out": None, "best": None, "worse": 0, "ended": "steps"}  # fmt: skip
DAMAGE: list[Callable[[dict[str, Any]], None]] = [
    *each(current, "step", "abc", -5, 1.5, NAN, None, 10**12, True, 13),
    *each(current, "elapsed", "x", NAN, float("inf"), -1.0, None),
    *each(current, "best", "x", [1]),
    current(ended="tomorrow"),
    nothing,
    *each(whole, "current", 5, [1], None, {}),
    *each(whole, "finished", [], 5, {"vqvae": 5}, {"vqvae": {}}, {5: FINISHED}),
    whole(finished={"stranger": FINISHED}),
    whole(finished={"vqvae": {**FINISHED, "step": 10**12}}),
    *each(whole, "optimizers", 5, [{}], [{}] * 9, ["x"], [{"state": 5}] * 2, None),
    *each(whole, "scaler", 5, {"scale": "x"}),
    *each(whole, "model", 5, {}, None),
    other_shape,
    without_moments,
    words_for_moments,
    unknown_parameter,
]


@pytest.mark.parametrize("number", range(len(DAMAGE)))
def test_state_of_another_type_is_one_clear_error(squares: Path, output: Path, number: int) -> None:
    state = output.with_name("model.train") / "state.pt"
    document = torch.load(state, weights_only=True)
    DAMAGE[number](document)
    torch.save(document, state)
    with pytest.raises(TrainingError, match=r"state\.pt: is damaged.*; remove .*start again$"):
        run(options(squares, output))


def test_settings_of_optimizers_are_not_taken_from_the_state(
    squares: Path, output: Path, tmp_path: Path
) -> None:
    untouched = tmp_path / "other" / "model"
    shutil.copytree(output.with_name("model.train"), untouched.with_name("model.train"))
    state = output.with_name("model.train") / "state.pt"
    document = torch.load(state, weights_only=True)
    for group in (g for saved in document["optimizers"] for g in saved["param_groups"]):
        group.update(weight_decay="much", betas=5)
    torch.save(document, state)
    run(options(squares, output))
    run(options(squares, untouched))
    assert_equal_weights(output, untouched)


@pytest.mark.parametrize("name", ["state.pt", "options.json", "best.safetensors"])
@pytest.mark.parametrize("kind", ["pipe", "link", "outside"])
def test_files_that_are_none_are_refused_and_what_they_lead_to_stays(
    squares: Path, output: Path, tmp_path: Path, name: str, kind: str
) -> None:
    file, mine = output.with_name("model.train") / name, tmp_path / "mine"
    mine.write_text("mine")
    file.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(file)
    else:
        file.symlink_to({"link": mine, "outside": tmp_path / "not-there"}[kind])
    with pytest.raises(WmdeployError, match=f"{name}: (is a link|exists and is not a regular)"):
        run(options(squares, output))
    assert mine.read_text() == "mine" and not (tmp_path / "not-there").exists()


def test_folder_that_is_a_link_is_not_written_through(
    squares: Path, output: Path, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    output.with_name("model.train").rename(elsewhere)
    output.with_name("model.train").symlink_to(elsewhere)
    before = {path.name: path.read_bytes() for path in elsewhere.iterdir()}
    with pytest.raises(WmdeployError, match=r"model\.train: is a link"):
        run(options(squares, output))
    assert {path.name: path.read_bytes() for path in elsewhere.iterdir()} == before


def test_second_training_into_the_same_output_is_refused(squares: Path, output: Path) -> None:
    with sole_writer(output.with_name("model.train")):
        with pytest.raises(WmdeployError, match="another process is writing into it"):
            run(options(squares, output))
    run(options(squares, output))
    assert not output.with_name("model.train").exists()


def test_training_that_runs_holds_its_folder(squares: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from tests.training.test_train import options, run\n"
        "run(options(Path(sys.argv[1]), Path(sys.argv[2])))"
    )
    told: list[str] = []

    def second(task: str, done: int, total: int, detail: str = "") -> None:
        if (task, done) == ("temporal", 2):
            command = [sys.executable, "-c", code, str(squares), str(tmp_path / "model")]
            told.append(subprocess.run(command, capture_output=True, text=True).stderr)

    from tests.training.test_train import MICRO
    from wmdeploy.training.train import train

    train(options(squares, tmp_path / "model"), second, MICRO)
    assert len(told) == 1 and "another process is writing into it" in told[0]
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_setting_that_an_older_version_did_not_know_is_none() -> None:
    """Trainings of before go on, and what differs is named by where it lies."""
    stored = {"seed": 0, "config": {"vqvae": {"widths": [8, 16]}}}
    now = {"seed": 0, "config": {"vqvae": {"widths": [8, 16], "encoder": None}, "student": None}}
    assert differences(stored, now) == ""
    other = {"seed": 0, "config": {"vqvae": {"widths": [8, 24]}}}
    assert differences(stored, other) == "config.vqvae.widths: there [8, 16], now [8, 24]"
