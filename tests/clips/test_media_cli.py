"""Every verb that reads clips tells once what should be known of them, on standard error."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from tests.clips.made_media import encode, greys
from tests.conftest import Bundles
from wmdeploy import cli
from wmdeploy.clips import ReadOptions
from wmdeploy.exporters.export import ExportOptions, _recipe
from wmdeploy.families import load_family
from wmdeploy.files import sha256

TIMES = [0, 300, 600, 1500, *range(1800, 8400, 300)]


def run(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """What a command writes to standard error; it must succeed."""
    with pytest.raises(SystemExit) as end:
        cli.main(list(map(str, arguments)))
    told = capsys.readouterr().err
    assert end.value.code == 0, told
    return told


@pytest.fixture
def film(tmp_path: Path) -> Path:
    """A wide video with a frame dropped."""
    (tmp_path / "films").mkdir()
    return encode(tmp_path / "films" / "film.mp4", greys(26, 36, 64) // 2, times=TIMES)


VERBS = {
    "export": ("export", "MODEL", "-o", "OUT", "--clip", "FILM"),
    "rollout": ("rollout", "BUNDLE", "FILM", "-o", "OUT.mkv", "--context", "4", "--horizon", "4"),
    "bisect": ("bisect", "BUNDLE", "--clip", "FILM", "--graph", "encoder"),
    "milestone": ("milestone", "MODEL", "--clip", "FILM"),
    "evaluate": ("evaluate", "MODEL", "--data", "FILMS", "--context", "4"),
}


@pytest.fixture
def typed(film: Path, micro_model: Path, bundles: Bundles, tmp_path: Path) -> dict[str, list[str]]:
    """The command of each verb."""
    given = {
        "MODEL": micro_model,
        "BUNDLE": bundles().path,
        "FILM": film,
        "FILMS": film.parent,
        "OUT": tmp_path / "out",
        "OUT.mkv": tmp_path / "out.mkv",
    }
    return {verb: [str(given.get(word, word)) for word in VERBS[verb]] for verb in VERBS}


@pytest.mark.parametrize("verb", VERBS)
def test_a_clip_that_is_not_as_it_seems_is_told_once(
    verb: str, typed: dict[str, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    told = run(capsys, *typed[verb])
    assert told.count("frames of 64x36 are squeezed to 32x32") == 1
    assert told.count("variable frame rate: frames are 33.33 to 100 ms apart") == 1


@pytest.mark.parametrize("verb", ["rollout", "milestone", "evaluate"])
def test_nothing_is_told_of_what_was_asked_for(
    verb: str, typed: dict[str, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    told = run(capsys, *typed[verb], "--fps", "30", "--fit", "crop")
    assert "squeezed" not in told and "variable" not in told


def test_training_tells_of_its_clips(
    film: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for index in range(2):
        encode(film.with_name(f"other-{index}.mp4"), greys(20 + index, 64, 64))
    steps = ("--vqvae-steps", "1", "--temporal-steps", "1", "--vqvae-batch", "2")
    arguments = ("train", "--data", film.parent, *steps, "--temporal-batch", "1")
    told = run(capsys, *arguments, "-o", tmp_path / "a")
    assert "1 of 3 clips: frames of 64x36 are squeezed to 64x64" in told
    assert "1 of 3 clips: variable frame rate: frames are 33.33 to 100 ms apart" in told
    told = run(capsys, *arguments, "-o", tmp_path / "b", "--fps", "30", "--fit", "pad")
    assert "squeezed" not in told and "variable" not in told


def test_how_a_clip_is_read_decides_what_an_export_makes(film: Path, tmp_path: Path) -> None:
    plain = ExportOptions(source="tiny", output=tmp_path / "b", clip=film)
    padded = dataclasses.replace(plain, read=ReadOptions(fit="pad", fps=10))
    assert _recipe(plain, load_family("vqvae-transformer")).clip == f"sha256:{sha256(film)}"
    assert (
        _recipe(padded, load_family("vqvae-transformer")).clip
        == f"sha256:{sha256(film)} --fps 10 --fit pad"
    )


def test_rollout_takes_the_series_asked_for(
    bundles: Bundles, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from PIL import Image

    folder = tmp_path / "p"
    folder.mkdir()
    for index in range(6):
        Image.fromarray(np.full((32, 32, 3), 200, np.uint8)).save(folder / f"rgb_{index}.png")
        Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(folder / f"mask_{index}.png")
    arguments = ("rollout", bundles().path, folder, "-o", tmp_path / "o.mkv", "--context", "4")
    with pytest.raises(SystemExit) as end:
        cli.main(list(map(str, arguments)))
    assert end.value.code == 1
    assert "holds 2 series of pictures (mask_%d: 6, rgb_%d: 6)" in capsys.readouterr().err
    run(capsys, *arguments, "--horizon", "2", "--series", "rgb")
    from wmdeploy.clips import read_clip

    assert read_clip(tmp_path / "o.mkv").frames[0, 5, 5, 0] == 200
