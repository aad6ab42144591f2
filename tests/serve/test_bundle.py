"""A bundle that was exported with a recorded clip knows its game, and where dreams begin."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.cli.test_cli import wmdeploy
from tests.envs.counting import counting
from wmdeploy.bundle import Bundle
from wmdeploy.clips.folder import INDEX_NAME
from wmdeploy.clips.read import SAMPLE_CLIP, read_clip
from wmdeploy.clips.source import ReadOptions
from wmdeploy.errors import BundleError
from wmdeploy.exporters.export import ExportOptions, export_bundle
from wmdeploy.exporters.play import noted_prediction, write_starts
from wmdeploy.manifest import STARTS_FILE, Play, Prediction
from wmdeploy.programs.contract import Programs
from wmdeploy.serve.world import find_world

READ = ReadOptions()
PREDICTION = Prediction(
    frames=1000, next_db=40.0, next_copy_db=35.0, horizon=16, later_db=36.0, later_copy_db=33.0
)


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    """A clip of Freeway in a data folder, whose three actions are those of the models here."""
    folder = tmp_path / "data"
    shutil.copytree(SAMPLE_CLIP.parent, folder)
    return folder / SAMPLE_CLIP.name


def starts(clip: Path, programs: Programs, directory: Path) -> Play | None:
    directory.mkdir(exist_ok=True)
    return write_starts(clip, READ, 8, PREDICTION, programs, directory)


def test_starts_are_of_the_clip(recorded: Path, tmp_path: Path) -> None:
    programs = dataclasses.replace(counting().programs, least=4)
    play = starts(recorded, programs, tmp_path / "out")
    assert play == Play(
        game="Freeway",
        actions=("NOOP", "UP", "DOWN"),
        fps=15,
        frame_skip=4,
        starts=6,
        context=4,
        prediction=PREDICTION,
    )
    made, clip = read_clip(tmp_path / "out" / STARTS_FILE), read_clip(recorded, size=8)
    assert (made.frames[:4] == clip.frames[:4]).all() and (
        made.frames[-4:] == clip.frames[-4:]
    ).all()
    assert made.actions is not None and clip.actions is not None
    assert (made.actions[-4:] == clip.actions[-4:]).all()


def test_what_is_not_known_is_not_written(recorded: Path, tmp_path: Path) -> None:
    programs, out = counting().programs, tmp_path / "out"
    assert starts(SAMPLE_CLIP, programs, out) is None
    assert starts(recorded, dataclasses.replace(programs, num_actions=4), out) is None
    assert starts(recorded, dataclasses.replace(programs, least=100), out) is None
    index = recorded.parent / INDEX_NAME
    said = json.loads(index.read_text())
    for name, value in {"game": "<b>", "fps": 10**6, "frame_skip": 0}.items():
        index.write_text(json.dumps(said | {name: value}))
        assert starts(recorded, programs, out) is None  # and not a bundle that cannot be opened
    (recorded.parent / INDEX_NAME).unlink()
    assert starts(recorded, programs, out) is None
    assert list(out.iterdir()) == []


@pytest.fixture
def bundle(recorded: Path, tmp_path: Path) -> Bundle:
    """Of a model of three actions."""
    model = str(tmp_path / "model")
    from wmdeploy.families import save_model
    from wmdeploy.families.reference.config import PRESETS
    from wmdeploy.families.reference.family import ReferenceFamily

    family = ReferenceFamily()
    save_model(family.initialized(PRESETS["tiny"].with_actions(3), 0), Path(model))
    options = ExportOptions(source=model, output=tmp_path / "bundle", clip=recorded, max_batch=2)
    return export_bundle(options)[0]


@pytest.mark.slow
def test_a_bundle_is_played_as_what_it_knows(bundle: Bundle, recorded: Path) -> None:
    from wmdeploy.engines.base import load_backend

    backend = load_backend("ort-cpu", bundle)
    world = find_world(backend, [], READ, None, bundle=bundle, remarks=[])
    assert world.meanings == ("NOOP", "UP", "DOWN")
    assert len(world.starts) == 6 and world.starts[0].title == "Freeway, 1"
    clip = read_clip(recorded, size=64)
    assert (world.starts[0].frames == clip.frames[: len(world.starts[0].frames)]).all()
    shown = wmdeploy("inspect", bundle.path).stdout
    assert "Freeway" in shown and "NOOP UP DOWN" in shown
    altered = bundle.path / STARTS_FILE
    with np.load(altered) as arrays:
        np.savez_compressed(altered, **{name: array[::-1] for name, array in arrays.items()})
    with pytest.raises(BundleError, match=STARTS_FILE):
        find_world(backend, [], READ, None, bundle=Bundle.open(bundle.path), remarks=[])
    manifest = json.loads((bundle.path / "manifest.json").read_text())
    for name, value in {
        "fps": -1,
        "frame_skip": 0,
        "starts": 10**9,
        "context": 10**9,
        "actions": ["NOOP"],
        "game": "<script>",
    }.items():
        wrong = manifest | {"play": manifest["play"] | {name: value}}
        (bundle.path / "manifest.json").write_text(json.dumps(wrong))
        with pytest.raises(BundleError, match="play"):
            Bundle.open(bundle.path)


def test_how_well_it_predicts_is_what_its_training_noted() -> None:
    psnr = {"model": {"psnr": {"16": 36.0}}, "copy": {"psnr": {"16": 33.0}}}
    following = {"model": {"psnr": 40.0}, "copy": {"psnr": 35.0}}
    group = {"name": "all", "following": following, "rollouts": psnr}
    summary = {"training_frames": 1000, "quality": {"groups": [group]}}
    assert noted_prediction({"training": {"summary": summary}}) == PREDICTION
    assert ("Next frame", "40.0 dB; copying the last real one: 35.0 dB") in PREDICTION.lines()
    wrong = [{**summary, "quality": 3}, {**summary, "training_frames": float("inf")}]
    infinite = {**group, "following": {**following, "copy": {"psnr": float("inf")}}}
    wrong.append({**summary, "quality": {"groups": [infinite]}})
    notes: list[dict[str, Any]] = [{}, {"training": None}]
    for noted in notes + [{"training": {"summary": one}} for one in wrong]:
        assert noted_prediction(noted) is None
